"""The exporter `onnx`: a file that ONNX Runtime loads."""

from __future__ import annotations

from pathlib import Path

from lepton_compress.artifacts import Model
from lepton_compress.load import external
from lepton_compress.registry import Params, plugin


class Onnx(Params):
    """Takes no parameters yet."""


@plugin("exporter", "onnx", Onnx, evaluates="onnxruntime-cpu")
def export_onnx(model: Model, params: Onnx, folder: Path) -> Path:
    """One ONNX file with a dynamic batch, its weights inside; those of a large graph beside it."""
    path = folder / "model.onnx"
    if model.folder is not None:
        external.keep(model.value, model.folder, path)
    else:
        path.write_bytes(model.value.SerializeToString(deterministic=True))
    return path
