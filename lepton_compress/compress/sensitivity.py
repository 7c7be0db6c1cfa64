"""Which nodes cost accuracy or time in integers."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from lepton_compress.compress import account

_CLIPPING = ("Relu", "Clip", "LeakyRelu")
_PASSING = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_APART = {"Add", "AveragePool", "Concat", "ConvTranspose", "Gemm", "GlobalAveragePool", "Mul"}
_APART |= {"Resize", "Sigmoid", "Softmax"}


def families(graph: onnx.ModelProto) -> dict[str, list[str]]:
    """Sets of nodes that may be faster in float together: by kind, and the ends of the graph."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    found: defaultdict[str, list[str]] = defaultdict(list)
    weighted = account.weighted(graph)
    for node in graph.graph.node:
        if node.op_type in _APART:
            found[node.op_type].append(node.name)
        elif node.op_type == "MatMul":
            stored = constants & set(node.input)
            found["MatMul" if stored else "products of activations"].append(node.name)
        elif node.op_type == "Conv":
            groups = next((each.i for each in node.attribute if each.name == "group"), 1)
            if groups > 1:
                found["grouped convolutions"].append(node.name)
    if len(weighted) > 1:
        first, *_, last = weighted
        found |= {"the first layer": [first], "the last layer": [last]}
    sets = {name: with_clipping(graph, nodes) for name, nodes in found.items()}
    # What would leave no product in integers is float by another name.
    return {name: nodes for name, nodes in sets.items() if not set(weighted) <= set(nodes)}


def with_clipping(graph: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """The nodes and the clipping ones that follow them: in integers alone those would only add
    borders."""
    kept = set(nodes)
    given = {name for node in graph.graph.node if node.name in kept for name in node.output}
    for node in graph.graph.node:
        if node.op_type in _CLIPPING and node.input[0] in given:
            kept.add(node.name)
            given.update(node.output)
    return [node.name for node in graph.graph.node if node.name in kept]


def ranked(
    items: Sequence[str], noise_of: Callable[[Sequence[str]], float], evaluations: int
) -> list[str]:
    """Roundings by the noise that they put on the outputs, the most first.

    Blocks of neighbours are tried first, and the one with the most noise is split in two until
    single ones are left or the evaluations are used up: noise adds up nearly, so that a block with
    little of it holds nothing with much of it.

    Args:
        items: names, in the order of the graph.
        noise_of: noise of the outputs with those roundings alone.
        evaluations: at most about this many calls of it.
    """
    size = max(1, -(-len(items) // 4))
    order = itertools.count()
    heap: list[tuple[float, int, Sequence[str]]] = []

    def push(block: Sequence[str]) -> None:
        heapq.heappush(heap, (-noise_of(block), next(order), block))

    for start in range(0, len(items), size):
        push(items[start : start + size])
    spent, found = len(heap), list[tuple[float, str]]()
    while heap and spent < evaluations:
        noise, _, block = heapq.heappop(heap)
        if len(block) == 1:
            found.append((noise, block[0]))
            continue
        middle = len(block) // 2
        push(block[:middle])
        push(block[middle:])
        spent += 2
    # Of a block that was not split, nobody knows which one it is.
    found += [(noise / len(block), name) for noise, _, block in heap for name in block]
    return [name for _, name in sorted(found, key=lambda each: each[0])]


@dataclass(frozen=True)
class Roundings:
    """The roundings of a QDQ graph, each of which can be done alone.

    Attributes:
        original: the float graph.
        quantized: the same with Q and DQ nodes, weights int8 as `NAME_quantized`.
    """

    original: onnx.ModelProto
    quantized: onnx.ModelProto

    @functools.cached_property
    def _found(self) -> dict[str, onnx.NodeProto]:
        """Tensor of the float graph to the Q node, or the DQ node of its weight."""
        weights = {each.name for each in self.original.graph.initializer}
        named = ((_rounded(node, weights), node) for node in self.quantized.graph.node)
        return {name: node for name, node in named if name is not None}

    def names(self) -> list[str]:
        """Of the tensors that are rounded, activations and weights, in the order of the graph."""
        return list(self._found)

    def only(self, names: Collection[str]) -> onnx.ModelProto:
        """The float graph with those tensors rounded alone."""
        made = onnx.ModelProto()
        made.CopyFrom(self.original)
        held = {each.name: each for each in made.graph.initializer}
        known = {each.name: each for each in self.quantized.graph.initializer}
        versions = {each.domain: each for each in made.opset_import}
        for each in self.quantized.opset_import:
            if each.domain not in versions:
                made.opset_import.append(each)
        for name in names:
            node = self._found[name]
            if node.op_type == "DequantizeLinear":
                held[name].CopyFrom(_dequantized(node, known, name))
            else:
                _round(made.graph, name, node, known)
        del made.graph.value_info[:]
        return made

    def nodes_of(self, name: str) -> list[str]:
        """The nodes to leave in float so that a tensor is not rounded."""
        graph = self.original.graph
        if any(each.name == name for each in graph.initializer):
            return with_clipping(self.original, [n.name for n in graph.node if name in n.input])
        maker = {output: node for node in graph.node for output in node.output}
        kept: dict[str, None] = {}
        up, down = [name], [name]
        while up:
            node = maker.get(up.pop())
            if node is not None and node.name not in kept:
                kept[node.name] = None
                up += [node.input[0]] if node.op_type in (*_CLIPPING, *_PASSING) else []
        while down:
            given = down.pop()
            for node in graph.node:
                if given in node.input and node.name not in kept:
                    kept[node.name] = None
                    down += node.output if node.op_type in _PASSING else []
        return with_clipping(self.original, kept)


def _rounded(node: onnx.NodeProto, weights: Collection[str]) -> str | None:
    """The float tensor that a Q node, or the DQ node of a weight, stands for."""
    if node.op_type == "QuantizeLinear":
        # ONNX Runtime's quantiser renames what goes into the Q node of an output.
        return str(node.input[0]).removesuffix("_QuantizeLinear_Input")
    name = str(node.input[0]).removesuffix("_quantized")
    # A bias has 32 bits, which round nothing that matters.
    bias = node.op_type == "DequantizeLinear" and node.input[1].endswith("_quantized_scale")
    is_weight = node.op_type == "DequantizeLinear" and name != node.input[0] and name in weights
    return name if is_weight and not bias else None


def _dequantized(
    node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto], name: str
) -> onnx.TensorProto:
    integers, scale, zero = (numpy_helper.to_array(known[each]) for each in node.input)
    if scale.size > 1:
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        shape = [-1 if place == axis else 1 for place in range(integers.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    values = (integers.astype(np.float32) - zero.astype(np.float32)) * scale
    return numpy_helper.from_array(values.astype(np.float32), name)


def _round(
    graph: onnx.GraphProto, name: str, node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]
) -> None:
    """Put a Q and a DQ node behind a tensor of the float graph."""
    make = onnx.helper.make_node
    held = {each.name for each in graph.initializer}
    graph.initializer.extend(known[each] for each in node.input[1:] if each not in held)
    place = next((n for n, each in enumerate(graph.node) if name in each.output), -1)
    before, after = (name, f"{name}/rounded") if place < 0 else (f"{name}/exact", name)
    for each in graph.node if place < 0 else ():
        each.input[:] = [after if given == name else given for given in each.input]
    if place >= 0:
        maker = graph.node[place]
        maker.output[:] = [before if given == name else given for given in maker.output]
    pair = [
        make("QuantizeLinear", [before, *node.input[1:]], [f"{name}/integers"], domain=node.domain),
        make(
            "DequantizeLinear", [f"{name}/integers", *node.input[1:]], [after], domain=node.domain
        ),
    ]
    for offset, each in enumerate(pair, place + 1):
        graph.node.insert(offset, each)
