"""Where a graph cuts a row of samples into overlapping frames, found by what it does: the nodes
behind the input that only move samples are run on the samples' own numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from lepton_compress.export.rewriting import attributes, copied

_MOVES = {"Concat", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
_MOVES |= {"Transpose", "Unsqueeze"}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Framing:
    """Frames of a row of samples.

    Attributes:
        value: that holds them, (batch, frames, window).
        frames, window, hop: how many, of how many samples, from one to the next.
        inside: what the nodes between the input and `value` give.
    """

    value: str
    frames: int
    window: int
    hop: int
    inside: frozenset[str]


def find(model: onnx.ModelProto, name: str, shape: tuple[int, ...]) -> Framing | None:
    """The framing behind an input (batch, samples), the last that all else follows from; None if
    there is none."""
    moved, nodes = {name}, list[onnx.NodeProto]()
    for node in model.graph.node:
        data = node.input[:1] if node.op_type != "Concat" else node.input
        cast = node.op_type == "Cast" and attributes(node)["to"] in _FLOATS
        if (node.op_type in _MOVES or cast) and data and set(data) <= moved:
            moved.update(node.output)
            nodes.append(node)
    numbers = _numbers(model, nodes, name, shape)
    for value, places in reversed(numbers.items()):
        framed = _framed(places)
        if framed is None:
            continue
        inside = _between(nodes, name, value)
        outside = [node for node in model.graph.node if not set(node.output) & inside]
        if not any(set(node.input) & ((inside | {name}) - {value}) for node in outside):
            return Framing(value, *framed, frozenset(inside))
    return None


def _numbers(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], name: str, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """What each value of the nodes holds where the input holds its samples' numbers."""
    from onnx.reference import ReferenceEvaluator

    made = []
    for node in nodes:
        each = copied(node)
        if each.op_type == "Cast":
            each = helper.make_node("Identity", each.input, each.output)
        made.append(each)
    given = [out for node in nodes for out in node.output if out]
    if not given:
        return {}
    graph = helper.make_graph(
        made,
        "moves",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [1, *shape[1:]])],
        [helper.make_tensor_value_info(out, TensorProto.INT64, None) for out in given],
        _constants(model),
    )
    small = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    feeds = {name: np.arange(shape[1], dtype=np.int64)[None]}
    try:
        found = ReferenceEvaluator(small).run(None, feeds)
    except Exception:  # a move that does not fit one row; the graph is then no such framing
        return {}
    return dict(zip(given, found, strict=True))


def _constants(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The whole numbers among the initialisers; weights are none."""
    kinds = (TensorProto.INT64, TensorProto.INT32)
    return [each for each in model.graph.initializer if each.data_type in kinds]


def _framed(places: np.ndarray) -> tuple[int, int, int] | None:
    """Frames, window and hop of samples' numbers (1, frames, window)."""
    if places.ndim != 3 or places.shape[0] != 1 or min(places.shape[1:]) < 2:
        return None
    held = places[0]
    hop, window = int(held[1, 0] - held[0, 0]), held.shape[1]
    wanted = np.arange(len(held))[:, None] * hop + np.arange(window)
    whole = held[0, 0] == 0 and 0 < hop <= window and np.array_equal(held, wanted)
    return (len(held), window, hop) if whole else None


def _between(nodes: list[onnx.NodeProto], name: str, value: str) -> set[str]:
    """What lies between the input and a value, this included."""
    inside, found = {value}, set[str]()
    for node in reversed(nodes):
        if set(node.output) & inside:
            found.update(node.output)
            inside.update(each for each in node.input if each != name)
    return found
