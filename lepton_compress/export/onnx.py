"""The exporter `onnx`: one file that ONNX Runtime loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Model
from lepton_compress.registry import Params, plugin

if TYPE_CHECKING:
    import onnx


class Onnx(Params):
    """Takes no parameters yet."""


@plugin("exporter", "onnx", Onnx)
def export_onnx(model: Model, params: Onnx, folder: Path) -> Path:
    """One ONNX file with a dynamic batch, its weights inside."""
    graph: onnx.ModelProto = model.value
    path = folder / "model.onnx"
    path.write_bytes(graph.SerializeToString(deterministic=True))
    return path
