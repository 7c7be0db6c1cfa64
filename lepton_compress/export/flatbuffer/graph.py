"""An ONNX graph as the converter takes it: every shape a number, constants worked out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lepton_compress.errors import InputError

Array = np.ndarray


@dataclass(frozen=True)
class Node:
    """One operator. `inputs` and `outputs` are names of values; an empty one is not given."""

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def input(self, place: int) -> str:
        """The name of an input; empty where it is not given."""
        return self.inputs[place] if place < len(self.inputs) else ""


@dataclass(frozen=True)
class Quantized:
    """A constant as integers: (integers - zero) * scale.

    Attributes:
        integers: int8, uint8, int16, uint16 or int32.
        scale: float32, of no dimension or along `axis`.
        zero: of the integers' dtype, like `scale`.
        axis: that the scales belong to; None for one scale.
    """

    integers: Array
    scale: Array
    zero: Array
    axis: int | None

    @property
    def values(self) -> Array:
        """The numbers that it stands for, float32."""
        shape = [1] * self.integers.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        scale, zero = self.scale.reshape(shape), self.zero.reshape(shape).astype(np.float32)
        made: Array = (self.integers.astype(np.float32) - zero) * scale
        return made.reshape(self.integers.shape)


@dataclass
class Graph:
    """A graph of nodes in an order in which they can run.

    Attributes:
        inputs, outputs: names of values.
        shapes, dtypes: of every value; dtypes are numpy's names.
        constants: values that are known.
        quantized: those of them that are held as integers.
        hybrid: constants that are multiplied by activations quantised at run time.
        borders: numpy's names of the types that inputs and outputs have in the ONNX model.
        halves: constants that it holds in 16 bits.
    """

    nodes: list[Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    constants: dict[str, Array]
    quantized: dict[str, Quantized] = field(default_factory=dict)
    hybrid: set[str] = field(default_factory=set)
    borders: dict[str, str] = field(default_factory=dict)
    halves: set[str] = field(default_factory=set)

    def users(self) -> dict[str, list[Node]]:
        """Value to the nodes that take it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return found

    def makers(self) -> dict[str, Node]:
        """Value to the node that makes it."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def keep(self, nodes: Sequence[Node]) -> None:
        """Take these nodes, without those that no output needs."""
        needed, kept = set(self.outputs), []
        for node in reversed(nodes):
            if needed & set(node.outputs):
                kept.append(node)
                needed |= set(node.inputs)
        self.nodes = kept[::-1]

    def add_constant(self, name: str, array: Array) -> str:
        """A constant of a new name."""
        self.constants[name], self.shapes[name] = array, array.shape
        self.dtypes[name] = array.dtype.name
        return name


def renamed(node: Node, *, inputs: Sequence[str] | None = None, type: str | None = None) -> Node:
    """The node with other inputs, or of another type."""
    given = tuple(inputs) if inputs is not None else node.inputs
    return replace(node, inputs=given, type=type or node.type)


def refuse(node: Node, problem: str, mend: str = "", *, format: str = "LiteRT") -> InputError:
    """The error for a node that a format cannot hold."""
    return InputError(
        f"{node.type} cannot be converted to {format}: {problem}",
        where=f"node {node.name or node.outputs[0]}",
        mend=mend or "replace the layer that it comes from, or export `onnx`",
    )
