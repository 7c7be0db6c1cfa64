"""What a scheme did: which nodes with weights the runtime computes in integers, which it does not
and why, and how much noise that put on the outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.session import observing, optimised

WEIGHTED = ("Attention", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN")
RECURRENT = ("GRU", "LSTM", "RNN")

BATCH = 4
"""Few at once, so that the activations of large images do not fill the memory."""
SAMPLES = 32
"""Calibration samples that the noise of the outputs is measured on."""

_INTEGER = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
    }
)


def weighted(graph: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """By name: the nodes that multiply matrices, whether by weights or by each other."""
    return {node.name: node for node in graph.graph.node if node.op_type in WEIGHTED}


def is_integer(operator: str) -> bool:
    """Whether an operator of that type multiplies integers."""
    return operator in _INTEGER or operator.startswith("QLinear")


def integer_nodes(graph: onnx.ModelProto) -> dict[str, str]:
    """By node name: the integer operator that ONNX Runtime computes it with, in the graph as
    optimised on this machine."""
    return {
        node.name: node.op_type
        for node in optimised(graph, fused=True).graph.node
        if is_integer(node.op_type)
    }


def account(
    before: Model, after: Model, reasons: Mapping[str, str], otherwise: Callable[[str], str]
) -> dict[str, Any]:
    """Of a quantised graph: `integer`, node to the integer operator that runs it, and `float`,
    node to the reason.

    Args:
        before, after: the float and the quantised graph.
        reasons: node to why it was left in float on purpose.
        otherwise: from a node's name to why it runs in float all the same.
    """
    runs = integer_nodes(after.value)
    names = weighted(before.value)
    return {
        "integer": {name: runs[name] for name in names if name in runs},
        "float": {name: reasons.get(name) or otherwise(name) for name in names if name not in runs},
    }


def left_in_float(reasons: Mapping[str, str]) -> list[str]:
    """One line for each reason, with the nodes that it holds for."""
    grouped: defaultdict[str, list[str]] = defaultdict(list)
    for name, why in reasons.items():
        grouped[why].append(name)
    return [f"left in float: {', '.join(names)} ({why})" for why, names in grouped.items()]


def held_in_float(model: Model, names: Collection[str]) -> dict[str, Any]:
    """What nodes that stay in float hold of the weights of all layers: `bytes`, and `share`; empty
    if they hold none.

    Args:
        model: the float graph.
        names: of its nodes.
    """
    sizes = {
        each.name: onnx.helper.tensor_dtype_to_np_dtype(each.data_type).itemsize
        * int(np.prod(each.dims))
        for each in model.value.graph.initializer
    }

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        held = {name for node in nodes for name in node.input if name in sizes}
        return sum(sizes[name] for name in held)

    layers = weighted(model.value)
    kept = size(layers[name] for name in names if name in layers)
    return {"bytes": kept, "share": round(kept / size(layers.values()), 4)} if kept else {}


def told_of_held(held: Mapping[str, Any]) -> list[str]:
    """One line about that; none where nothing is held."""
    if not held:
        return []
    share, size = 100 * held["share"], held["bytes"] / 1000
    said = f"what is left in float holds {share:.0f} % of the layers' weights ({size:,.1f} KB)"
    return [f"{said}; `explain` on the artifact tells its share of the time"]


def output_noise(before: Model, after: Model, split: Split) -> float | None:
    """Signal to quantisation noise of the first float output, in decibels; None if the outputs
    are equal or zero."""
    names = [spec.name for spec in before.inputs]
    sessions = [observing(each.value, (), 1) for each in (before, after)]
    signal = noise = 0.0
    for feeds in split.named(names).batches(BATCH, SAMPLES):
        runs = (session.run(list(before.outputs), dict(feeds)) for session in sessions)
        for wanted, given in zip(*runs, strict=True):
            if wanted.dtype.kind == "f":
                exact = wanted.astype(np.float64)
                signal += float(np.square(exact).sum())
                noise += float(np.square(exact - given).sum())
                break
    return _decibels(signal, noise)


def signal_to_noise(reference: np.ndarray, given: np.ndarray) -> float | None:
    """10 log10 of the energy of the reference over that of the difference."""
    wanted = reference.astype(np.float64)
    return _decibels(float(np.square(wanted).sum()), float(np.square(wanted - given).sum()))


def _decibels(signal: float, noise: float) -> float | None:
    return round(10 * float(np.log10(signal / noise)), 2) if noise and signal else None
