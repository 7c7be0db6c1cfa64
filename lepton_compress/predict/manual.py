"""What an artifact says of itself: how its inputs are made, and what its outputs mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress import registry
from lepton_compress.artifacts import Json, TensorSpec
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.preprocess.form import METADATA, Preprocessing
from lepton_compress.targets import executorch_session, litert_session

if TYPE_CHECKING:
    from lepton_compress.targets.runner import Runner

_MEND = "attach `preprocess` and `postprocess` in the recipe and run it again"


@dataclass(frozen=True)
class Manual:
    """Read from an artifact's metadata.

    Attributes:
        path: of the artifact.
        inputs: by name, what its preprocessing told; empty of an input that takes plain arrays.
        outputs: by name, what its postprocessing told.
        files: names of those that travel with it.
    """

    path: Path
    inputs: Mapping[str, Mapping[str, Json]]
    outputs: Mapping[str, Mapping[str, Json]]
    files: tuple[str, ...] = ()

    def host(self, name: str) -> Preprocessing | None:
        """What an input needs done before the artifact, by the file that travels with it.

        Raises:
            InputError: the file is missing, or the plug-in cannot be used.
        """
        about = self.inputs.get(name, {})
        if "plugin" not in about:
            return None
        dtype, shape = about["raw"]
        try:
            plugin = registry.get("preprocessing", str(about["plugin"]))
            params = plugin.params.model_validate(about["parameters"])
        except (RecipeError, ValueError) as error:
            raise InputError(
                f"what its input {name} needs done is not known here: {error}", where=str(self.path)
            ) from error
        for file in self.files:
            if not (self.path.parent / file).is_file():
                raise InputError(
                    f"the file {file}, which travels with it, is missing",
                    where=str(self.path),
                    mend="put it beside the artifact",
                )
        raw = TensorSpec(name, dtype, ("batch", *shape))
        made: Preprocessing = plugin.call(params, raw, self.path.parent)
        return made


def read(path: Path) -> Manual:
    """The manual of an artifact; empty where a file of another maker has none.

    Raises:
        InputError: the file is no model, or its manual is damaged or of a later version.
    """
    try:
        about: Any = _READERS.get(path.suffix, _of_onnx)(path)
        if about and about["version"] != 1:
            raise InputError(
                f"its manual is of version {about['version']}, which this version does not read",
                where=str(path),
                mend="use the lepton-compress that made it",
            )
        files = tuple(about.get("files", ()))
        return Manual(path, about.get("inputs", {}), about.get("outputs", {}), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("its manual is damaged", where=str(path), mend=_MEND) from error


def _of_litert(path: Path) -> Json:
    """What the exporter took over from the graph."""
    return litert_session.manual(path).get(METADATA, {})


def _of_executorch(path: Path) -> Json:
    try:
        held = executorch_session.opened(path, 1).metadata
    except executorch_session.SessionError as error:
        raise InputError(error.problem, where=str(path)) from error
    return json.loads(held.get(METADATA, "{}"))


def _of_onnx(path: Path) -> Json:
    """The entry of an ONNX file's metadata."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError, ValueError) as error:
        said = "no such file" if isinstance(error, FileNotFoundError) else "not a valid ONNX model"
        raise InputError(said, where=str(path), mend="give an artifact of a run") from error
    found = (each.value for each in model.metadata_props if each.key == METADATA)
    return json.loads(next(found, "{}"))


_READERS = {".tflite": _of_litert, ".pte": _of_executorch}


def single_input(manual: Manual, runner: Runner) -> TensorSpec:
    """The input that a file or a text is for.

    Raises:
        InputError: there are several.
    """
    if len(runner.inputs) != 1:
        names = ", ".join(spec.name for spec in runner.inputs)
        raise InputError(
            f"takes {len(runner.inputs)} inputs ({names})",
            where=str(manual.path),
            mend="give an .npz file with an array for each",
        )
    return runner.inputs[0]
