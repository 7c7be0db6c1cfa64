"""Where a value of a graph can be divided by constants, one for each of its last dimension, without
a node of its own: in the constants of what makes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import helper

_HOMOGENEOUS = ("Identity", "Relu")
"""f(x / s) = f(x) / s for positive s."""


@dataclass(frozen=True)
class Site:
    """The constant that is input `place` of a node; dividing it along `axis` divides the value."""

    node: str
    place: int
    axis: int


class Wiring:
    """Who makes and who takes the values of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.takers: defaultdict[str, list[str]] = defaultdict(list)
        for node in graph.node:
            for name in inputs_of(node):
                self.takers[name].append(node.name)
        for value in graph.output:
            self.takers[value.name].append("")

    def sites(self, value: str, takers: set[str]) -> tuple[Site, ...] | None:
        """What to divide so that `value` is divided for the nodes named, all that take it; None if
        others take it too or its maker has no such constants."""
        node = self.makers.get(value)
        if node is None or set(self.takers[value]) != takers:
            return None
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type in _HOMOGENEOUS:
            return self.sites(node.input[0], {node.name})
        if node.op_type == "LayerNormalization" and given.get("axis", -1) == -1:
            places = range(1, len(node.input))
            fits = value == node.output[0] and all(self._is_vector(node.input[p]) for p in places)
            return tuple(Site(node.name, place, 0) for place in places) if fits else None
        if node.op_type in ("MatMul", "Gemm"):
            return self._product(node, bool(given.get("transB")))
        if node.op_type in ("Add", "Mul"):
            return self._elementwise(node)
        return None

    def _product(self, node: onnx.NodeProto, turned: bool) -> tuple[Site, ...] | None:
        if not self._is_float(node.input[1], 2):
            return None
        weight = Site(node.name, 1, 0 if turned else 1)
        if len(node.input) < 3 or not node.input[2]:
            return (weight,)
        return (weight, Site(node.name, 2, 0)) if self._is_vector(node.input[2]) else None

    def _elementwise(self, node: onnx.NodeProto) -> tuple[Site, ...] | None:
        for place in (0, 1):
            if self._is_vector(node.input[place]):
                here = Site(node.name, place, 0)
                if node.op_type == "Mul":
                    return (here,)
                above = self.sites(node.input[1 - place], {node.name})
                return None if above is None else (*above, here)
        return None

    def _is_vector(self, name: str) -> bool:
        return self._is_float(name, 1) and self.constants[name].dims[0] > 1

    def _is_float(self, name: str, rank: int) -> bool:
        tensor = self.constants.get(name)
        return tensor is not None and (len(tensor.dims), tensor.data_type) == (rank, tensor.FLOAT)


def inputs_of(node: onnx.NodeProto) -> Iterator[str]:
    """What a node takes, its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for each in graph.node:
                yield from inputs_of(each)
