"""The exporter `onnx`: a file that ONNX Runtime loads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lepton_compress.artifacts import Model
from lepton_compress.load import external
from lepton_compress.registry import Params, plugin


class Onnx(Params):
    """How to write it."""

    recurrent: Literal["sequence", "step"] = Field(
        "sequence",
        description="`step`: of a recurrent model, one frame a call: the states are inputs and "
        "outputs, so that a device computes each frame once.",
    )
    layout: Literal["auto", "keep"] = Field(
        "auto",
        description="`auto`: on x86, channels of quantised convolutions are filled up to what the "
        "integer kernels take at a time; no output changes by it.",
    )


@plugin("exporter", "onnx", Onnx, evaluates="onnxruntime-cpu")
def export_onnx(model: Model, params: Onnx, folder: Path) -> Path:
    """One ONNX file with a dynamic batch, its weights inside; those of a large graph beside it."""
    path = folder / "model.onnx"
    if params.recurrent == "step":
        from lepton_compress.export.stepwise import stepwise

        model = stepwise(model)
    if model.folder is not None:
        external.keep(model.value, model.folder, path)
    else:
        from lepton_compress.alignment import laid_out

        graph = laid_out(model.value) if params.layout == "auto" else model.value
        path.write_bytes(graph.SerializeToString(deterministic=True))
    return path
