"""Activations that operators of LiteRT have built in, and element types that they take."""

from __future__ import annotations

import numpy as np

from lepton_compress.errors import InputError
from lepton_compress.export.flatbuffer.graph import Array, Graph, Node
from lepton_compress.export.flatbuffer.quantization import Integers

ACTIVATIONS = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3, "TANH": 4}
_NARROW = {"int64": "int32", "uint64": "int32", "uint32": "int32", "uint16": "int32"}


def narrowed(array: Array) -> Array:
    """An array in an element type that LiteRT's kernels take.

    Raises:
        InputError: a whole number needs more than 32 bits.
    """
    wanted = _NARROW.get(array.dtype.name)
    if wanted is None:
        return array
    made = array.astype(wanted)
    if (made.astype(array.dtype) != array).any():
        raise InputError("a constant needs more than 32 bits", where="model")
    return made


def dtype_of(name: str) -> str:
    """The element type that LiteRT holds a numpy type in."""
    return _NARROW.get(name, name)


def bounds(node: Node, graph: Graph) -> tuple[float, float] | None:
    """Constant bounds of a Clip."""
    found = []
    for place, (key, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        name = node.input(place)
        if name and name not in graph.constants:
            return None
        found.append(float(graph.constants[name].item() if name else node.get(key, default)))
    low, high = (None if abs(each) > 3e38 else each for each in found)
    return (-np.inf if low is None else low), (np.inf if high is None else high)


def activation(node: Node | None, graph: Graph) -> str | None:
    """The activation of the schema that a node is, if it is one."""
    if node is None:
        return None
    if node.type == "Relu":
        return "RELU"
    if node.type == "Clip":
        known = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
        limits = bounds(node, graph)
        return known.get(limits) if limits else None
    return None


def implied(node: Node, graph: Graph, wanted: Integers) -> bool:
    """Whether rounding clips as the node does."""
    limits = bounds(node, graph)
    low, high = wanted.range
    slack = 0.501 * wanted.scale.values[0]  # half a step, and what float32 adds to it
    return limits is not None and limits[0] <= low + slack and high - slack <= limits[1]
