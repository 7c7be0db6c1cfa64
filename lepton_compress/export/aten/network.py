"""A traced ONNX graph as a torch module that torch.export can take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lepton_compress.errors import InputError
from lepton_compress.export.flatbuffer import graph
from lepton_compress.export.flatbuffer.graph import Graph, Node, Quantized

Made = Callable[[], torch.Tensor]
"""A value that is made anew for each node that takes it."""
Convert = Callable[["Network", Node], torch.Tensor | Sequence[torch.Tensor] | Made]


def refuse(node: Node, problem: str, mend: str = "") -> InputError:
    """The error for a node that no torch operator stands for."""
    return graph.refuse(node, problem, mend, format="ExecuTorch")


class Network(torch.nn.Module):
    """The graph, at its batch.

    Constants become buffers when a node first takes them: call it once before it is exported.
    Values that the graph holds as uint8 are int8 here, 128 lower, which XNNPACK computes with.

    Args:
        held: the graph, as `trace` gives it.
        operators: ONNX operator to the function that computes it.
        moves: those that take integers of any meaning.
    """

    def __init__(
        self, held: Graph, operators: Mapping[str, Convert], moves: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.graph = held
        self.lowered: set[str] = set()
        """Values that are 128 lower than in the graph."""
        self._operators, self._moves = operators, moves
        self._values: dict[str, torch.Tensor | Made] = {}
        self._held: dict[tuple[str, str], tuple[str, ...]] = {}

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs in the graph's order, of its inputs in order.

        Raises:
            InputError: a node has no counterpart.
        """
        self._values = dict(zip(self.graph.inputs, given, strict=True))
        for node in self.graph.nodes:
            function = self._operators.get(node.type)
            if function is None:
                raise refuse(node, "it has no counterpart there")
            self._pass_on(node)
            made = function(self, node)
            outputs: list[Any] = list(made) if isinstance(made, list | tuple) else [made]
            self._values.update(zip(node.outputs, outputs, strict=False))
        made_of = [self.value(name) for name in self.graph.outputs]
        self._values = {}
        # An output that is an input, or given twice, is no tensor of its own to a runtime.
        seen: set[int] = {id(each) for each in given}
        found = []
        for each in made_of:
            found.append(each.clone() if id(each) in seen else each)
            seen.add(id(each))
        return tuple(found)

    def _pass_on(self, node: Node) -> None:
        """Integers that are 128 lower stay so where they are only moved."""
        if node.type == "DequantizeLinear" or not self.lowered & set(node.inputs):
            return
        if node.type not in self._moves:
            raise refuse(node, "it computes with integers that no DequantizeLinear has made float")
        self.lowered |= set(node.outputs)

    def value(self, name: str) -> torch.Tensor:
        """A value that a node takes, constants included."""
        if name in self._values:
            held = self._values[name]
            return held if isinstance(held, torch.Tensor) else held()
        return self.buffer(name, "", lambda array: array)

    def constant(self, node: Node, place: int, what: str) -> np.ndarray:
        """An input that must be known.

        Raises:
            InputError: it is not.
        """
        array = self.graph.constants.get(node.input(place))
        if array is None:
            raise refuse(node, f"its {what} is known only when the model runs")
        return array

    def buffer(
        self, name: str, change: str, function: Callable[[np.ndarray], np.ndarray]
    ) -> torch.Tensor:
        """A constant, changed in a way that `change` names, as a buffer of the module."""
        return self._buffers_of(name, change, lambda: [function(self.graph.constants[name])])[0]

    def weight(
        self, name: str, change: str, function: Callable[[np.ndarray], np.ndarray], axis: int
    ) -> torch.Tensor:
        """A layer's weight, in integers where it is held as such and XNNPACK takes it so.

        Args:
            name: of the value.
            change: what `function` does to its axes, in a word.
            axis: of the output channels, before the change; after it they are the first.
        """
        if name not in self.graph.constants:
            taken = self.value(name)
            return taken if not change else torch.transpose(taken, -1, -2)
        held = signed(self.graph.quantized.get(name))
        fits = held is not None and held.axis in (None, axis % held.integers.ndim)
        if held is None or not fits:
            return self.buffer(name, change, function)
        from lepton_compress.export.aten.rounding import dequantized_weight

        def made() -> list[np.ndarray]:
            count = held.integers.shape[axis]
            scales = np.broadcast_to(held.scale, (count,)).astype(np.float32)
            return [function(held.integers), scales, np.zeros(count, np.int64)]

        return dequantized_weight(*self._buffers_of(name, f"{change}, integers", made))

    def _buffers_of(
        self, name: str, change: str, made: Callable[[], list[np.ndarray]]
    ) -> list[torch.Tensor]:
        if (name, change) not in self._held:
            names: list[str] = []
            for array in made():
                names.append(f"constant_{sum(map(len, self._held.values())) + len(names)}")
                copied = np.array(array, order="C")  # torch takes no read-only memory
                self.register_buffer(names[-1], torch.from_numpy(copied))
            self._held[name, change] = tuple(names)
        return [self.get_buffer(each) for each in self._held[name, change]]


def signed(held: Quantized | None) -> Quantized | None:
    """The same in int8 about zero; None where it is no such thing."""
    if held is None:
        return None
    if held.integers.dtype == np.int8 and not held.zero.any():
        return held
    if held.integers.dtype == np.uint8 and (held.zero == 128).all():
        integers = (held.integers.astype(np.int16) - 128).astype(np.int8)
        return Quantized(integers, held.scale, np.zeros_like(held.zero, np.int8), held.axis)
    return None
