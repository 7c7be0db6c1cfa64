"""Runs of an ONNX graph that show what is computed inside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnxruntime

_PROVIDERS = ["CPUExecutionProvider"]
_SILENT = 4


def observing(
    model: onnx.ModelProto, names: Iterable[str], threads: int
) -> onnxruntime.InferenceSession:
    """A session that can give the values `names`, beside the model's own outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    # The runtime finds the type itself.
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in held)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    # The arena keeps the largest of every size that was ever needed.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=_PROVIDERS)


def optimised(model: onnx.ModelProto, *, fused: bool) -> onnx.ModelProto:
    """The graph as ONNX Runtime rewrites it: constants folded, and with `fused` also the nodes
    joined that it computes at once, integer kernels among them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    levels = onnxruntime.GraphOptimizationLevel
    # The highest level changes memory layouts and, with them, the names of nodes.
    options.graph_optimization_level = (
        levels.ORT_ENABLE_EXTENDED if fused else levels.ORT_ENABLE_BASIC
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=_PROVIDERS)
        return onnx.load(path)
