"""ONNX's own Attention operator (operator set 23 and later) taken apart into the products that it
is defined by, for which ONNX Runtime has integer kernels; for the whole it has none."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np
import onnx
from onnx import inliner, numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.session import observing
from lepton_compress.graph import value_specs
from lepton_compress.load.forms import call, duplicate, signature

OPERATOR = "Attention"
MASK = 1e30
"""Magnitude from which on a value hides what it is added to, rather than being one."""
_PART = "attention/"
_QUANTISED = ("MatMul", "Reshape", "Transpose")
_SAMPLES = 2
_EXACT = 1e-4
"""Largest difference, relative to the largest output, that another order of sums can explain."""


def take_apart(model: Model, split: Split, keep: Collection[str]) -> tuple[Model, tuple[str, ...]]:
    """The graph without Attention nodes, and what was done; the same graph if it has none, or if
    the function that the standard defines them by does not compute the same.

    Args:
        model: a graph.
        split: samples, to compare the two on.
        keep: names of nodes; with one of them among the Attention nodes all are left.
    """
    nodes = [n for n in model.value.graph.node if n.op_type == OPERATOR and not n.domain]
    whole = [node.name for node in nodes]
    if not whole:
        return model, ()
    kept = [name for name in whole if name in keep]
    if kept:
        return model, (f"attention is left whole, for `keep` names {', '.join(kept)}",)
    graph = duplicate(model).value
    _tell_types(graph)
    listed = [("", OPERATOR)]
    inlined = inliner.inline_selected_functions(graph, listed, inline_schema_functions=True)
    specs = value_specs(model.value)
    if all(specs[node.input[0]].dtype == "float32" for node in nodes):
        _fix_types(inlined.graph)
    import onnxsim  # it takes torch, which is large

    simplified, same = onnxsim.simplify(inlined)
    _name(simplified.graph, {node.name for node in model.value.graph.node})
    made = Model("graph", simplified, *signature(simplified))
    if not same or not _alike(model, made, split):
        reason = "its function body computes something else here"
        return model, (f"attention is left whole and in float: {reason}",)
    return made, (f"attention taken apart into its products: {', '.join(whole)}",)


def parts_in_float(model: Model, split: Split) -> dict[str, str]:
    """Nodes around the products that are to stay in float, and why: those that attention was taken
    apart into, and those of any graph that take or give a mask, which would widen a range beyond
    use."""
    masked = _masked(model, split)
    found = {}
    for node in model.value.graph.node:
        if masked & {*node.input, *node.output}:
            found[node.name] = f"it takes or gives a mask, with values beyond {MASK:g}"
        elif node.name.startswith(_PART) and node.op_type not in _QUANTISED:
            found[node.name] = "a part of attention that is no product"
    return found


def _masked(model: Model, split: Split) -> set[str]:
    """Values beyond `MASK` that come from constants, minus infinity among them."""
    graph = model.value.graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    held = {name: array for name, array in held.items() if array.dtype.kind == "f"}
    found = {name for name, array in held.items() if (np.abs(array) > MASK).any()}
    if not found:
        return found
    specs = value_specs(model.value)
    made = [name for node in graph.node for name in node.output if name in specs]
    names = [name for name in made if specs[name].dtype == "float32"]
    feeds = next(split.batches(_SAMPLES))
    arrays = observing(model.value, names, 1).run(names, feeds)
    return found | {n for n, a in zip(names, arrays, strict=True) if (np.abs(a) > MASK).any()}


def _tell_types(graph: onnx.ModelProto) -> None:
    """The inliner knows no type of an initialiser."""
    known = {value.name for value in (*graph.graph.value_info, *graph.graph.input)}
    for each in graph.graph.initializer:
        if each.name not in known:
            value = onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims)
            graph.graph.value_info.append(value)


def _fix_types(graph: onnx.GraphProto) -> None:
    """Casts to the type of the queries, float32 here, so that constants can be folded."""
    for node in graph.node:
        if node.op_type == "CastLike":
            node.op_type = "Cast"
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))


def _name(graph: onnx.GraphProto, known: Collection[str]) -> None:
    """Name the nodes that were put in."""
    taken: set[str] = set()
    for node in graph.node:
        if node.name not in known or node.name in taken:
            numbered = (f"{_PART}{node.op_type}_{number}" for number in itertools.count(1))
            node.name = next(n for n in numbered if n not in taken and n not in known)
        taken.add(node.name)


def _alike(one: Model, other: Model, split: Split) -> bool:
    feeds = next(split.named([spec.name for spec in one.inputs]).batches(_SAMPLES))
    wanted, given = call(one, feeds), call(other, feeds)
    return all(
        np.abs(array - given[name]).max() <= _EXACT * max(float(np.abs(array).max()), 1e-30)
        for name, array in wanted.items()
        if array.dtype.kind == "f" and array.size
    )
