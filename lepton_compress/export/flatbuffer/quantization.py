"""Integers of a graph with QuantizeLinear and DequantizeLinear, as LiteRT has them: activations of
8 bits are int8, those of 16 bits int16 around zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lepton_compress.errors import InputError
from lepton_compress.export.flatbuffer.builder import Scale
from lepton_compress.export.flatbuffer.graph import Array, Graph, Node, Quantized, refuse

_SHIFTS = {"int8": 0, "uint8": 128, "int16": 0, "uint16": 32768}
_MOVING = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Pad", "Gather"}
_MOVING |= {"Split", "Identity", "Expand", "Concat", "MaxPool"}
_MEND_16 = "quantise with `symmetric: true`, or with 8-bit activations"


@dataclass(frozen=True)
class Integers:
    """Element type and scale of an activation."""

    dtype: str
    scale: Scale

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest number that it can hold."""
        bits = 8 if self.dtype == "int8" else 16
        (step,) = self.scale.values
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        return (low - self.scale.zero) * step, (high - self.scale.zero) * step


def fixed(low: float, high: float, dtype: str) -> Integers:
    """The scale that kernels with a fixed output range insist on.

    Args:
        low, high: 0 and 1, or -1 and 1; 16 bits always reach from -1 to 1.
    """
    if dtype == "int16":
        return Integers(dtype, Scale((1 / 32768,)))
    zero = -128 if low == 0 else round(-128 - low * 256 / (high - low))
    return Integers(dtype, Scale(((high - low) / 256,), zero))


def shifted(held: Quantized) -> tuple[Array, Scale] | None:
    """A constant as int8 or int16 with its scale; None if it is neither, or its zero points
    differ."""
    name = held.integers.dtype.name
    zeros = np.unique(held.zero.astype(np.int64))
    if name not in _SHIFTS or len(zeros) != 1:
        return None
    dtype = np.int8 if name.endswith("int8") else np.int16
    integers = (held.integers.astype(np.int64) - _SHIFTS[name]).astype(dtype)
    values = tuple(float(each) for each in held.scale.ravel())
    return integers, Scale(values, int(zeros[0]) - _SHIFTS[name], held.axis or 0)


def of_node(node: Node, graph: Graph) -> Integers:
    """What a QuantizeLinear makes or a DequantizeLinear takes.

    Raises:
        InputError: its scale is no constant, or LiteRT has no such integers.
    """
    scale = graph.constants.get(node.inputs[1])
    if scale is None or scale.size != 1 or not math.isfinite(scale.item()):
        raise refuse(node, "activations need one constant scale")
    place = node.outputs[0] if node.type == "QuantizeLinear" else node.inputs[0]
    dtype = graph.dtypes[place]
    zero = graph.constants.get(node.input(2), np.zeros((), np.int64)).item()
    if dtype not in _SHIFTS:
        raise refuse(node, f"LiteRT has no activations in {dtype}", "quantise to uint8 or int8")
    moved = int(zero) - _SHIFTS[dtype]
    if dtype.endswith("16") and moved:
        raise refuse(
            node, f"16-bit activations need the middle as zero point, not {int(zero)}", _MEND_16
        )
    return Integers(dtype.removeprefix("u"), Scale((float(scale.item()),), moved))


def spread(graph: Graph) -> dict[str, Integers]:
    """Every integer value to what its integers stand for, as far as operators that only move
    values reach.

    Raises:
        InputError: one value stands for two things.
    """
    found: dict[str, Integers] = {}
    for node in graph.nodes:
        if node.type in ("QuantizeLinear", "DequantizeLinear"):
            place = node.outputs[0] if node.type == "QuantizeLinear" else node.inputs[0]
            kind = of_node(node, graph)
            if found.setdefault(place, kind) != kind:
                raise InputError(
                    f"{place} is dequantised with another scale than it was quantised with",
                    where=f"node {node.name}",
                    mend="quantise the float model by `quantize`",
                )
    moving = [node for node in graph.nodes if node.type in _MOVING]
    before = -1
    while before != len(found):
        before = len(found)
        for node in moving:
            given = node.inputs if node.type == "Concat" else node.inputs[:1]
            values = [*given, *filter(None, node.outputs)]
            known = next((found[name] for name in values if name in found), None)
            whole = all("int" in graph.dtypes[name] for name in values)
            if known is not None and whole:
                for name in values:
                    found.setdefault(name, known)
    return found
