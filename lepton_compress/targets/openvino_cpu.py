"""The runtime `openvino-cpu`: OpenVINO on the processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lepton_compress.artifacts import Json, TensorSpec
from lepton_compress.errors import MissingExtraError
from lepton_compress.registry import Params, plugin
from lepton_compress.targets import openvino_session, session_runner
from lepton_compress.targets.installed import lacking
from lepton_compress.targets.openvino_session import Session, Tensor
from lepton_compress.targets.runner import Runner
from lepton_compress.targets.session_runner import Specs

PACKAGES = openvino_session.PACKAGES
PROGRAM = Path(openvino_session.__file__)
"""What loads and runs an artifact on a machine without this package."""

settings, alternatives = openvino_session.settings, openvino_session.alternatives
operators = openvino_session.operators


class OpenvinoCpu(Params):
    """No parameters: threads and batch belong to the target."""


def _requires(params: OpenvinoCpu, targets: tuple[str, ...]) -> list[str]:
    return lacking("openvino-cpu", ["openvino"], "openvino")


@plugin("runtime", "openvino-cpu", OpenvinoCpu, formats=("onnx",), requires=_requires)
def openvino_cpu(path: Path, threads: int, changes: Mapping[str, Json] | None = None) -> Runner:
    """OpenVINO on the processor (extra `openvino`), in float32 where the graph is float.

    OpenVINO by itself computes float graphs in bfloat16 on processors that can, and its answers
    are then others; `changes` may ask for that. A step model takes whole sequences, see `stepping`.

    Args:
        path: an .onnx file; external data stands beside it.
        threads: how many threads compute one call.
        changes: properties of the compiled model other than those of `settings(threads)`.

    Raises:
        InputError: OpenVINO cannot load the file, or it takes or gives something that is not a
            tensor of numbers.
        MissingExtraError: the extra `openvino` is not installed.
    """
    try:
        return session_runner.opened(openvino_session, path, threads, changes, _sides)
    except ImportError as error:
        raise MissingExtraError(
            f"openvino-cpu needs OpenVINO ({error})",
            mend="pip install 'lepton-compress[openvino]'",
        ) from error


def _sides(session: Session) -> tuple[Specs, Specs]:
    return _specs(session.inputs), _specs(session.outputs)


def _specs(tensors: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    """OpenVINO forgets what open sizes are called: the first is the batch."""
    return tuple(
        TensorSpec(
            each.name,
            each.dtype.name,
            tuple(
                size if size is not None else f"{each.name}_{axis}" if axis else "batch"
                for axis, size in enumerate(each.shape)
            ),
        )
        for each in tensors
    )
