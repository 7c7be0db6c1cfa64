"""The road from an ONNX graph to the bytes of a .pte file."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from executorch.exir.dialects._ops import ops as exir
from executorch.exir.pass_base import ExportPass

from lepton_compress.artifacts import Model
from lepton_compress.errors import InputError
from lepton_compress.export.aten import (
    elementwise_operators,
    layer_operators,
    movement_operators,
    recurrent_operators,
    rounding,
)
from lepton_compress.export.aten.network import Convert, Network
from lepton_compress.export.flatbuffer.graph import Graph
from lepton_compress.export.flatbuffer.rewrite import (
    with_folded_normalization,
    with_gelu,
    without_filled_channels,
)
from lepton_compress.export.flatbuffer.trace import trace
from lepton_compress.export.quiet import quiet
from lepton_compress.targets.executorch_session import ABOUT, VERSION

OPERATORS: dict[str, Convert] = {
    **elementwise_operators.OPERATORS,
    **layer_operators.OPERATORS,
    **movement_operators.OPERATORS,
    **recurrent_operators.OPERATORS,
    **rounding.OPERATORS,
}
"""ONNX operator to what computes it."""

_TYPES = {"float32", "int64", "int32", "uint8", "int8", "bool"}
_EDGE = exir.edge
_QUANTIZE = _EDGE.quantized_decomposed.quantize_per_tensor.default
_DEQUANTIZE = _EDGE.quantized_decomposed.dequantize_per_tensor.default
_DEQUANTIZE_CHANNELS = _EDGE.quantized_decomposed.dequantize_per_channel.default


_PATIENCE = 300
_TRIAL = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import numpy as np
from lepton_compress.targets import executorch_session
session = executorch_session.opened(sys.argv[2], 1)
session.run({each.name: np.zeros(each.shape, each.dtype) for each in session.inputs})
"""

_ROADS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("", {}),
    ("each operator is a delegate of its own", {"per_op_mode": True}),
    ("all is computed in float", {"config_precisions": [ConfigPrecisionType.FP32]}),
)
"""Ways to divide a graph among delegates, the fastest first, each with what it means."""


def convert(model: Model, batch: int) -> tuple[bytes, tuple[str, ...]]:
    """A .pte file that computes what the graph computes, by XNNPACK where it can; and what there is
    to say of it.

    The partitioner makes of some graphs with integers what the runtime does not load: such a file
    is loaded and run once, and where that fails the graph is divided otherwise, which is told.

    Args:
        model: in the form "graph".
        batch: samples of a call.

    Raises:
        InputError: something in it has no counterpart, or ExecuTorch runs it in no way.
    """
    if model.folder is not None:
        raise InputError(
            "its weights are too large for one .pte file", where="model", mend="export `onnx`"
        )
    graph = trace(model.value, batch, "ExecuTorch")
    without_filled_channels(graph)
    with_gelu(graph)
    with_folded_normalization(graph)
    network = Network(graph, OPERATORS, movement_operators.MOVES).eval()
    given = tuple(_example(graph, name) for name in graph.inputs)
    about = {
        "version": VERSION,
        "inputs": [_spec(graph, name) for name in graph.inputs],
        "outputs": [_spec(graph, name) for name in graph.outputs],
        "metadata": {each.key: each.value for each in model.value.metadata_props},
    }
    with quiet("torch", "executorch", "root"), torch.no_grad():
        network(*given)  # which makes its buffers
        said, first = "", ""
        rounds = any(each.type == "QuantizeLinear" for each in graph.nodes)
        for meaning, options in _ROADS:
            try:
                made = _lowered(network, given, json.dumps(about, sort_keys=True), options)
                if rounds:
                    _tried(made)
            except Exception as error:  # its passes raise errors of every kind
                said = " ".join(str(error).split())[:200] or type(error).__name__
                first = first or said
                continue
            return made, (f"{meaning}, as ExecuTorch fails otherwise ({first})",) if said else ()
    raise InputError(f"ExecuTorch cannot run it: {said}", where="model", mend="export `onnx`")


def _tried(data: bytes) -> None:
    """Load a program and run it once, in a process of its own: what the runtime does not take may
    end the process.

    Raises:
        RuntimeError: it does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tried.pte"
        path.write_bytes(data)
        command = [sys.executable, "-c", _TRIAL, json.dumps(sys.path), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    if done.returncode < 0:
        raise RuntimeError(f"the runtime ends with signal {-done.returncode}")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        raise RuntimeError(lines[-1].partition("SessionError: ")[2] or lines[-1])


def _lowered(
    network: Network, given: tuple[torch.Tensor, ...], about: str, options: Mapping[str, Any]
) -> bytes:
    program = torch.export.export(network, given)
    edge = to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner(**options)],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
        constant_methods={ABOUT: about},
    )
    return bytes(edge.transform([_Plain()]).to_executorch().buffer)


class _Plain(ExportPass):  # type: ignore[misc]
    """Roundings that XNNPACK has not taken, as the arithmetic that they are: the portable kernels
    that come with ExecuTorch's Python package hold none for them."""

    def call_operator(self, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
        def call(name: Any, *given: Any, **more: Any) -> Any:
            return super(_Plain, self).call_operator(name, given, more, meta)

        aten = _EDGE.aten
        convert = _EDGE.dim_order_ops._to_dim_order_copy.default
        if op == _QUANTIZE:
            x, scale, zero, low, high, kind = args
            level = call(aten.round.default, call(aten.mul.Scalar, x, 1.0 / scale))
            kept = call(aten.clamp.default, call(aten.add.Scalar, level, zero), low, high)
            return call(convert, kept, dtype=kind)
        if op == _DEQUANTIZE:
            level = call(convert, args[0], dtype=torch.float32)
            return call(aten.mul.Scalar, call(aten.sub.Scalar, level, args[2]), args[1])
        if op == _DEQUANTIZE_CHANNELS:
            level = call(convert, args[0], dtype=torch.float32)
            shape = [-1, *[1] * (len(args[0].data.shape) - 1)]
            return call(aten.mul.Tensor, level, call(aten.view_copy.default, args[1], shape))
        return super().call_operator(op, args, kwargs, meta)


def _example(graph: Graph, name: str) -> torch.Tensor:
    kind = graph.dtypes[name]
    if kind not in _TYPES:
        raise InputError(f"input {name} is {kind}, which ExecuTorch does not take", where="model")
    return torch.zeros(graph.shapes[name], dtype=getattr(torch, kind))


def _spec(graph: Graph, name: str) -> dict[str, Any]:
    """Of an input or output as the host sees it."""
    return {"name": name, "dtype": graph.borders[name], "shape": list(graph.shapes[name])}
