"""A runner of a step model that takes whole sequences, so that it is evaluated, verified and asked
like any other; a stream is fed to it frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Json, TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.targets.frames import Frames, Stepped
from lepton_compress.targets.runner import Runner

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SteppedRunner:
    """A loaded step model; `inputs` and `outputs` are of a whole sequence.

    Attributes:
        about: what its file says of its steps, see `frames`.
        where: how to name it in an error.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model: Stepped
    about: Mapping[str, Json]
    where: str

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs after the last frame, or of each, of states that are zero at first.

        Raises:
            InputError: the runtime refuses the arrays, or a sequence is shorter than a frame.
        """
        try:
            return self.model.run(feeds)
        except ValueError as error:
            raise InputError(str(error), where=self.where) from error

    def start(self, batch: int = 1) -> Frames:
        """The states at the start of so many streams."""
        return self.model.start(batch)


def stepped(runner: Runner, about: Mapping[str, Json], where: str) -> SteppedRunner:
    """Wrap a runner of a step model's file.

    Raises:
        InputError: the file has not what its metadata says.
    """
    try:
        frame, states = about["frame"], {each["input"] for each in about["states"]}
        whole = TensorSpec(frame["input"], frame["dtype"], tuple(frame["shape"]))
        inputs = tuple(
            whole if spec.name == whole.name else spec
            for spec in runner.inputs
            if spec.name not in states
        )
        outputs = tuple(
            TensorSpec(each["name"], each["dtype"], tuple(each["shape"]))
            for each in about["outputs"]
        )
        model = Stepped(runner.run, [spec.name for spec in runner.outputs], about)
        model.start(1)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"lacks what it says of its steps ({error})", where=where) from error
    return SteppedRunner(inputs, outputs, model, about, where)
