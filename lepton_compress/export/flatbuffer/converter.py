"""From nodes to operators: which tensor holds a value, how it lies in memory, and what turns one
representation into another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compress.errors import InputError
from lepton_compress.export.flatbuffer import layouts
from lepton_compress.export.flatbuffer.activations import (
    ACTIVATIONS,
    activation,
    implied,
    narrowed,
)
from lepton_compress.export.flatbuffer.builder import Scale, Subgraph, options
from lepton_compress.export.flatbuffer.graph import Array, Graph, Node, refuse
from lepton_compress.export.flatbuffer.layouts import Layout, Shape
from lepton_compress.export.flatbuffer.quantization import Integers, shifted, spread

if TYPE_CHECKING:
    from lepton_compress.export.litert import Litert


@dataclass(frozen=True)
class Slot:
    """A value as the file holds it.

    Attributes:
        tensor: its place among the subgraph's tensors.
        shape: of the value in the ONNX graph.
        layout: how its elements lie in memory.
        storage: the tensor's own shape.
        dtype: the tensor's element type.
        scale: what its integers stand for, if it is quantised.
    """

    tensor: int
    shape: Shape
    layout: Layout
    storage: Shape
    dtype: str
    scale: Scale | None = None

    @property
    def integers(self) -> Integers | None:
        """Type and scale, if it is quantised."""
        return Integers(self.dtype, self.scale) if self.scale else None

    def seen(self, shape: Shape) -> Slot | None:
        """The same memory in another shape, if it can be seen so."""
        fitted = self.layout.fitted(shape)
        return None if fitted is None else replace(self, shape=shape, layout=fitted)


class Converter:
    """What a graph's nodes become. Functions for operators take one, and a node."""

    def __init__(self, graph: Graph, params: Litert) -> None:
        self.graph, self.params = graph, params
        self.users = graph.users()
        self.kinds = spread(graph)
        self.subgraphs = [Subgraph()]
        self.subgraph = self.subgraphs[0]
        self.slots: dict[str, Slot] = {}
        self.absorbed: set[str] = set()
        self.narrows = False  # whether weights are rounded that are float in the graph
        self._cache: dict[tuple[Any, ...], int] = {}

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[Subgraph]:
        """A subgraph of its own, which operators are added to until the block ends."""
        outer, cache = self.subgraph, self._cache
        self.subgraph, self._cache = Subgraph(name), {}
        self.subgraphs.append(self.subgraph)
        try:
            yield self.subgraph
        finally:
            self.subgraph, self._cache = outer, cache

    # Values

    def take(self, name: str) -> Slot:
        """A value; a constant becomes a tensor in its own order."""
        if name not in self.slots:
            self.slots[name] = self._constant_slot(name)
        return self.slots[name]

    def give(self, name: str, slot: Slot) -> None:
        """The tensor that holds a value of the graph."""
        self.slots[name] = slot

    def constant(self, name: str) -> Array | None:
        """What a value is known to be."""
        return self.graph.constants.get(name)

    def known(self, node: Node, place: int, what: str) -> Array:
        """An input that must be constant.

        Raises:
            InputError: it is not.
        """
        array = self.constant(node.input(place))
        if array is None:
            raise refuse(node, f"{what} is computed while the model runs")
        return array

    def shape(self, name: str) -> Shape:
        """The shape of a value in the graph."""
        return self.graph.shapes[name]

    def wanted(self, name: str) -> Integers | None:
        """What a value is rounded to, if nothing takes it but QuantizeLinear to one scale."""
        users = self.users.get(name, [])
        if not users or name in self.graph.outputs:
            return None
        kinds = {
            self.kinds.get(node.outputs[0]) if node.type == "QuantizeLinear" else None
            for node in users
        }
        return kinds.pop() if len(kinds) == 1 else None

    def only_user(self, name: str) -> Node | None:
        """The node that alone takes a value."""
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.graph.outputs else None

    def absorb(self, node: Node) -> None:
        """Say that a later node is computed by now."""
        self.absorbed.add(node.outputs[0])

    # Operators

    def emit(
        self,
        operator: str,
        inputs: Sequence[int | Slot],
        shape: Shape,
        *,
        dtype: str = "float32",
        like: Slot | None = None,
        order: Sequence[int] | None = None,
        scale: Scale | None = None,
        options: Any = None,
    ) -> Slot:
        """An operator with one output.

        Args:
            shape: of the output in the ONNX graph.
            like: a value of that shape whose place in memory the output has.
            order: of the axes in memory; their own without `like` and `order`.
        """
        made = self.slot(shape, dtype=dtype, like=like, order=order, scale=scale)
        self.add(operator, inputs, [made], options)
        return made

    def slot(
        self,
        shape: Shape,
        *,
        dtype: str = "float32",
        like: Slot | None = None,
        order: Sequence[int] | None = None,
        scale: Scale | None = None,
    ) -> Slot:
        """A new tensor, as of `emit`."""
        if like is not None:
            layout, storage = like.layout, like.storage
        else:
            order = tuple(range(len(shape))) if order is None else order
            layout = layouts.permuted(shape, order)
            storage = tuple(shape[axis] for axis in order)
        tensor = self.subgraph.tensor(storage, dtype, scale)
        return Slot(tensor, shape, layout, storage, dtype, scale)

    def add(
        self,
        operator: str,
        inputs: Sequence[int | Slot],
        outputs: Sequence[int | Slot],
        options: Any = None,
    ) -> None:
        """An operator on tensors; -1 is an input that is not given."""
        given, made = (
            [each.tensor if isinstance(each, Slot) else each for each in side]
            for side in (inputs, outputs)
        )
        self.subgraph.add(operator, given, made, options)

    def array(self, data: Array, scale: Scale | None = None) -> int:
        """A constant tensor, whole numbers in 32 bits.

        Raises:
            InputError: a number does not fit.
        """
        return self.subgraph.constant(narrowed(np.asarray(data)), scale)

    def vector(self, values: Sequence[int]) -> int:
        """A constant of whole numbers."""
        return self.array(np.array(values, np.int32))

    # Representations

    def real(self, slot: Slot) -> Slot:
        """The value in float."""
        if slot.scale is None:
            return slot
        key = ("real", slot.tensor)
        if key not in self._cache:
            made = self.subgraph.tensor(slot.storage, "float32")
            self.add("DEQUANTIZE", [slot], [made], options("Dequantize"))
            self._cache[key] = made
        return replace(slot, tensor=self._cache[key], dtype="float32", scale=None)

    def rounded(self, slot: Slot, wanted: Integers) -> Slot:
        """The value as integers of that scale."""
        if slot.integers == wanted:
            return slot
        key = ("rounded", slot.tensor, wanted)
        if key not in self._cache:
            made = self.subgraph.tensor(slot.storage, wanted.dtype, wanted.scale)
            self.add("QUANTIZE", [slot], [made], options("Quantize"))
            self._cache[key] = made
        tensor = self._cache[key]
        return replace(slot, tensor=tensor, dtype=wanted.dtype, scale=wanted.scale)

    def laid(self, slot: Slot, order: Sequence[int]) -> Slot:
        """The value with its axes in that order in memory, and a tensor of that shape."""
        order = tuple(order)
        storage = tuple(slot.shape[axis] for axis in order)
        layout = layouts.permuted(slot.shape, order)
        moved = layouts.moves(slot.layout, slot.shape, order)
        if moved is None:
            raise ValueError(f"{slot} cannot be seen in its own shape")
        sizes, turn = moved
        made = replace(slot, layout=layout, storage=storage)
        if turn == tuple(range(len(turn))):
            return replace(made, tensor=self._reshaped(slot, storage))
        held = slot.layout.storage(slot.shape)
        if held is not None and slot.storage == tuple(slot.shape[axis] for axis in held):
            places = tuple(held.index(axis) for axis in order)
            return replace(made, tensor=self._transposed(slot, places, storage))
        seen = replace(slot, tensor=self._reshaped(slot, sizes), storage=sizes)
        turned = tuple(sizes[place] for place in turn)
        seen = replace(seen, tensor=self._transposed(seen, turn, turned), storage=turned)
        return replace(made, tensor=self._reshaped(seen, storage))

    def plain(self, slot: Slot) -> Slot:
        """The value in its own order."""
        return self.laid(slot, range(len(slot.shape)))

    def ordered(self, slot: Slot) -> tuple[Slot, Shape]:
        """The value with whole axes in memory, as little moved as can be, and their order."""
        order = slot.layout.storage(slot.shape)
        order = order if order is not None else tuple(range(len(slot.shape)))
        return self.laid(slot, order), order

    def seen(self, slot: Slot, shape: Shape) -> Slot:
        """The value in another shape."""
        made = slot.seen(shape) or self.plain(slot).seen(shape)
        if made is None:
            raise ValueError(f"{slot.shape} is no {shape}")
        return made

    def turned(self, slot: Slot, order: Sequence[int]) -> Slot:
        """The value with its axes in another order; nothing moves in memory."""
        layout = slot.layout.transposed(slot.shape, order)
        shape = tuple(slot.shape[axis] for axis in order)
        if layout is None:
            return self.turned(self.plain(slot), order)
        return replace(slot, shape=shape, layout=layout)

    def reshaped(self, slot: Slot, storage: Shape) -> Slot:
        """The same memory in a tensor of another shape."""
        return replace(slot, tensor=self._reshaped(slot, storage), storage=storage)

    def _reshaped(self, slot: Slot, storage: Shape) -> int:
        if slot.storage == storage:
            return slot.tensor
        key = ("reshaped", slot.tensor, storage)
        if key not in self._cache:
            made = self.subgraph.tensor(storage, slot.dtype, slot.scale)
            given = [slot.tensor, self.vector(storage)]
            self.add("RESHAPE", given, [made], options("Reshape", newShape=list(storage)))
            self._cache[key] = made
        return self._cache[key]

    def _transposed(self, slot: Slot, places: Shape, storage: Shape) -> int:
        key = ("transposed", slot.tensor, places)
        if key not in self._cache:
            made = self.subgraph.tensor(storage, slot.dtype, slot.scale)
            given = [slot.tensor, self.vector(places)]
            self.add("TRANSPOSE", given, [made], options("Transpose"))
            self._cache[key] = made
        return self._cache[key]

    def _constant_slot(self, name: str) -> Slot:
        array = self.constant(name)
        if array is None:
            raise InputError(f"value {name} is not made by any node", where="model")
        held = self.graph.quantized.get(name)
        if held is not None and held.axis is None:
            integers = shifted(held)
            if integers is not None:
                return self.constant_slot(*integers)
        kind = self.kinds.get(name)
        if kind is not None:
            moved = array.astype(np.int64)
            if array.dtype.kind == "u":
                moved -= 128 if kind.dtype == "int8" else 32768
            return self.constant_slot(moved.astype(kind.dtype), kind.scale)
        return self.constant_slot(array)

    def constant_slot(self, array: Array, scale: Scale | None = None) -> Slot:
        """A constant as a value."""
        array = narrowed(array)
        tensor = self.array(array, scale)
        shape = tuple(array.shape)
        return Slot(tensor, shape, layouts.plain(shape), shape, array.dtype.name, scale)

    # Integers

    def integers(self, inputs: Sequence[str], output: str) -> Integers | None:
        """What to round an output to by an integer kernel; None where an input is float or the
        output is not rounded."""
        wanted = self.wanted(output)
        if wanted is None:
            return None
        for name in inputs:
            held = self.take(name).integers
            if held is None or held.dtype != wanted.dtype:
                return None
        return wanted

    def fused(self, name: str) -> tuple[str, int]:
        """The value behind the activation that alone takes `name`, and that activation's number in
        the schema; the node is absorbed."""
        node = self.only_user(name)
        if node is not None and node.type == "QuantizeLinear":
            return self._fused_behind_rounding(name, node)
        kind = activation(node, self.graph) if node else None
        if node is None:
            return name, 0
        if kind is None:
            wanted = self.wanted(node.outputs[0])
            if node.type != "Clip" or wanted is None or not implied(node, self.graph, wanted):
                return name, 0
            kind = "NONE"
        self.absorb(node)
        return node.outputs[0], ACTIVATIONS[kind]

    def _fused_behind_rounding(self, name: str, rounds: Node) -> tuple[str, int]:
        """The same where the value is rounded alike in front of the activation and behind it: what
        is rounded first and clipped then is what an integer kernel computes."""
        real = self.only_user(rounds.outputs[0])
        node = self.only_user(real.outputs[0]) if real else None
        kind = activation(node, self.graph)
        if real is None or node is None or kind is None or real.type != "DequantizeLinear":
            return name, 0
        wanted = self.wanted(node.outputs[0])
        if wanted is None or wanted != self.kinds.get(rounds.outputs[0]):
            return name, 0
        for each in (rounds, real, node):
            self.absorb(each)
        return node.outputs[0], ACTIVATIONS[kind]


Convert = Callable[[Converter, Node], None]
