"""What a rewrite of a graph must know of it: who makes and who takes each value, which values are
constant, and what shape each has for a small batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.session import observing

Shape = tuple[int, ...]
BATCH = 2
"""Samples of the run that shapes come from."""


@dataclass(frozen=True)
class Facts:
    """Of one graph.

    Attributes:
        constants: initialiser to its values.
        makers: value to the node that gives it.
        takers: value to the nodes that take it, once for each place; of a node with subgraphs,
            what these take counts too.
        shapes: value to its shape for `BATCH` samples, initialisers included.
        given, made: names of the graph's inputs and outputs.
    """

    constants: dict[str, NDArray[Any]]
    makers: dict[str, onnx.NodeProto]
    takers: dict[str, list[onnx.NodeProto]]
    shapes: dict[str, Shape]
    given: tuple[str, ...]
    made: tuple[str, ...]

    def constant(self, node: onnx.NodeProto, place: int) -> NDArray[Any] | None:
        """The values of an input, if it is constant; None also where there is no such input."""
        name = node.input[place] if place < len(node.input) else ""
        return self.constants.get(name)

    def alone(self, node: onnx.NodeProto, place: int) -> bool:
        """Whether nothing else takes that input."""
        return len(self.takers[node.input[place]]) == 1


def facts_of(model: Model, split: Split) -> Facts:
    """The facts of a graph whose nodes have distinct names.

    Args:
        model: a graph that ONNX Runtime runs.
        split: samples, in the order of the model's inputs.
    """
    graph = model.value.graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in taken(node):
            takers.setdefault(name, []).append(node)
    makers = {name: node for node in graph.node for name in node.output if name}
    return Facts(
        constants=constants,
        makers=makers,
        takers=takers,
        shapes=_shapes(model, split, list(makers)) | {n: a.shape for n, a in constants.items()},
        given=tuple(spec.name for spec in model.inputs),
        made=model.outputs,
    )


def apart(graph: onnx.GraphProto) -> dict[str, str]:
    """Give every node its own copy of the vectors and scalars that it shares, in place; copy to
    original. Exporters merge equal ones, such as the zeros of two biases."""
    small = {each.name: each for each in graph.initializer if len(each.dims) < 2}
    held = {each.name for each in graph.initializer}
    used: set[str] = set()
    copies: dict[str, str] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in used and name in small:
                made = next(n for i in itertools.count(2) if (n := f"{name}_{i}") not in held)
                held.add(made)
                copies[made] = name
                graph.initializer.add().CopyFrom(small[name])
                graph.initializer[-1].name = node.input[place] = made
        used.update(taken(node))
    return copies


def store(
    graph: onnx.GraphProto,
    facts: Facts,
    arrays: Mapping[str, NDArray[Any]],
    copies: Mapping[str, str],
) -> None:
    """Write the constants of `arrays` that are not those of `facts` into a graph, in float32, and
    take the copies back that are still like their originals."""
    changed = {name for name, array in arrays.items() if array is not facts.constants[name]}
    back = {
        copy: name for copy, name in copies.items() if copy not in changed and name not in changed
    }
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = back.get(name, name)
    for tensor in list(graph.initializer):
        if tensor.name in back:
            graph.initializer.remove(tensor)
        elif tensor.name in changed:
            made = arrays[tensor.name].astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))


def taken(node: onnx.NodeProto) -> Iterator[str]:
    """Names of what a node takes, its subgraphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for each in graph.node:
                yield from taken(each)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def _shapes(model: Model, split: Split, names: list[str]) -> dict[str, Shape]:
    rows = [index % len(split) for index in range(BATCH)]
    feeds = {name: np.asarray(array[rows]) for name, array in split.inputs.items()}
    made = observing(model.value, names, 1).run(names, feeds)
    shapes = {name: np.shape(array) for name, array in zip(names, made, strict=True)}
    return shapes | {name: array.shape for name, array in feeds.items()}
