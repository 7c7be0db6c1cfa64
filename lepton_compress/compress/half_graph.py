"""Rewrites an ONNX graph so that chosen nodes compute in float16.

A value that a float16 node makes is called `<name>_float16`; where float32 is wanted of it, a Cast
right behind its maker gives it under its own name, and the other way round. So no value passes
through float16 between two nodes that stay in float32, and inputs and outputs keep name and type.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Model
from lepton_compress.load.forms import duplicate, signature

_SUFFIX = "_float16"
_CONTRIBUTED = (
    "Attention",
    "BiasGelu",
    "FastGelu",
    "FusedConv",
    "FusedMatMul",
    "Gelu",
    "MultiHeadAttention",
    "QuickGelu",
    "SkipLayerNormalization",
)
"""Operators of ONNX Runtime's own, all of whose float inputs and outputs have one type."""
_FIXED = ("Cast", "Constant", "ConstantOfShape", "CumSum", "Range", "TopK")
"""Kept in float32: their type is an attribute, or float16 is too coarse for what they do."""

Slots = tuple[set[int], set[int]]


def slots(node: onnx.NodeProto, model: onnx.ModelProto) -> Slots | None:
    """Places among a node's inputs and outputs that may hold float16 at once; None if its operator
    has no float16 form."""
    if any(each.HasField("g") or each.graphs for each in node.attribute):
        return None
    if node.domain not in ("", "ai.onnx"):
        known = node.op_type in _CONTRIBUTED
        return (set(range(len(node.input))), set(range(len(node.output)))) if known else None
    if node.op_type in _FIXED:
        return None
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    schema = onnx.defs.get_schema(node.op_type, version, "")
    wide = {
        each.type_param_str
        for each in schema.type_constraints
        if "tensor(float16)" in each.allowed_type_strs
    }
    given = _types(schema.inputs, len(node.input))
    made = _types(schema.outputs, len(node.output))
    inputs = {place for place, kind in enumerate(given) if kind in wide}
    # An output follows the input that shares its type parameter.
    shared = {given[place] for place in inputs}
    outputs = {place for place, kind in enumerate(made) if kind in shared}
    return (inputs, outputs) if inputs and outputs else None


def _types(formal: Collection[onnx.defs.OpSchema.FormalParameter], count: int) -> list[str]:
    """The type parameter of each place; the last formal parameter may stand for many."""
    names = [each.type_str for each in formal]
    return [names[min(place, len(names) - 1)] for place in range(count)] if names else []


def rewrite(model: Model, floats: set[str], keep: set[str]) -> Model:
    """The graph with every node but those named in `keep` in float16.

    Args:
        model: a graph in float32.
        floats: names of its float32 values, initialisers included.
        keep: names of nodes; those without a float16 form must be among them.
    """
    made = duplicate(model).value
    graph = made.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [_Node(node, made, floats, keep) for node in graph.node]
    wide = {value.name for value in graph.output}.union(*(each.wide for each in nodes))
    half = set[str]().union(*(each.half for each in nodes))
    del graph.node[:]
    for spec in model.inputs:
        if spec.name in half:
            graph.node.append(_cast(spec.name, TensorProto.FLOAT16))
    for each in nodes:
        graph.node.append(each.node)
        graph.node.extend(
            _cast(name, TensorProto.FLOAT) for name in each.makes_half if name in wide
        )
        graph.node.extend(
            _cast(name, TensorProto.FLOAT16) for name in each.makes_wide if name in half
        )
    for name in sorted(half & set(held)):
        # The largest finite value is in reach of every weight here; rounding is to the nearest.
        array = numpy_helper.to_array(held[name]).astype(np.float16)
        graph.initializer.append(numpy_helper.from_array(array, name + _SUFFIX))
    for name in (half - wide) & set(held):
        graph.initializer.remove(held[name])
    _type_values(graph, floats)
    onnx.checker.check_model(made)
    return Model("graph", made, *signature(made))


class _Node:
    """A node with its float16 places renamed, and what it takes and makes of each type, by the
    values' former names."""

    def __init__(
        self, node: onnx.NodeProto, model: onnx.ModelProto, floats: set[str], keep: set[str]
    ) -> None:
        self.node = onnx.NodeProto()
        self.node.CopyFrom(node)
        places = None if node.name in keep else slots(node, model)
        inputs, outputs = places or (set(), set())
        self.half = {node.input[place] for place in inputs} & floats
        self.wide = {name for name in _inputs(node) if name in floats} - self.half
        self.wide |= {name for place, name in enumerate(node.input) if place not in inputs} & floats
        made = [(name, place in outputs) for place, name in enumerate(node.output)]
        self.makes_half = [name for name, is_half in made if is_half and name in floats]
        self.makes_wide = [name for name, is_half in made if not is_half and name in floats]
        for place in inputs:
            if node.input[place] in floats:
                self.node.input[place] += _SUFFIX
        for place in outputs:
            if node.output[place] in floats:
                self.node.output[place] += _SUFFIX


def _cast(name: str, kind: int) -> onnx.NodeProto:
    half = name + _SUFFIX
    given, made = (name, half) if kind == TensorProto.FLOAT16 else (half, name)
    return helper.make_node("Cast", [given], [made], f"{made}_cast", to=kind)


def _type_values(graph: onnx.GraphProto, floats: set[str]) -> None:
    """Give the renamed values the shapes of those they come from."""
    for value in list(graph.value_info):
        if value.name in floats:
            copy = graph.value_info.add()
            copy.CopyFrom(value)
            copy.name += _SUFFIX
            copy.type.tensor_type.elem_type = TensorProto.FLOAT16
    there = {name for node in graph.node for name in node.output}
    for value in [each for each in graph.value_info if each.name not in there]:
        graph.value_info.remove(value)


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """What a node takes, its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for each in graph.node:
                yield from _inputs(each)
