"""Which node of the graph each operator of the file comes from, and what its tensors hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from lepton_compress.export.flatbuffer.builder import Subgraph, Tensor
from lepton_compress.export.flatbuffer.converter import Converter, Slot
from lepton_compress.export.flatbuffer.graph import Node
from lepton_compress.layers import Layer, Layers, Value


class Origins:
    """Told by the conversion as it goes on. Only the main graph counts: what is in the body of a
    loop belongs to the loop."""

    def __init__(self, converter: Converter) -> None:
        self._converter = converter
        self._main: Subgraph = converter.subgraphs[0]
        self._nodes: dict[int, Node] = {}
        self._outputs: list[tuple[str, Slot]] = []

    @contextlib.contextmanager
    def of(self, node: Node | None) -> Iterator[None]:
        """The operators that are added meanwhile are a node's."""
        first = len(self._main.operators)
        yield
        if node is not None:
            for each in self._main.operators[first:]:
                self._nodes[id(each)] = node

    def output(self, name: str, slot: Slot) -> None:
        """The tensor that an output of the graph leaves the file by."""
        self._outputs.append((name, slot))

    def layers(self, tensors: Sequence[Tensor], places: Mapping[str, str]) -> Layers:
        """All of it, when operators that nothing needs are gone.

        Args:
            tensors: those of the main graph before, in their places of then.
            places: node to where it stands in the user's model.
        """
        graph, held = self._converter.graph, dict[int, list[Value]]()
        for name, slot in (*self._converter.slots.items(), *self._outputs):
            layout = slot.layout.fitted(slot.shape)
            if name in graph.constants or name not in graph.shapes or layout is None:
                continue
            made = Value(name, slot.shape, layout.factors, layout.order)
            known = held.setdefault(id(tensors[slot.tensor]), [])
            known += [made] if made not in known else []
        found = []
        for operator in self._main.operators:
            node = self._nodes.get(id(operator))
            for index in operator.outputs:
                tensor = self._main.tensors[index]
                found.append(
                    Layer(
                        operator.name,
                        tensor.name or str(index),
                        index,
                        node.name if node else "",
                        places.get(node.name, "") if node else "",
                        tuple(held.get(id(tensor), ())),
                    )
                )
        approximate = self._converter.params.weights != "float32" or bool(graph.hybrid)
        return Layers(tuple(found), approximate)
