"""Operators along axes: sums, means, maxima, softmax, and what normalises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_compress.export.flatbuffer.builder import Scale, options
from lepton_compress.export.flatbuffer.converter import Convert, Converter, Slot
from lepton_compress.export.flatbuffer.graph import Array, Node, refuse
from lepton_compress.export.flatbuffer.quantization import Integers, fixed

_REDUCTIONS = {
    "ReduceMax": "REDUCE_MAX",
    "ReduceMean": "MEAN",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
    "ReduceSum": "SUM",
}
_KEEPING = {"REDUCE_MAX", "REDUCE_MIN"}
"""Whose integer kernels need one scale on both sides."""


def axes_of(converter: Converter, node: Node, rank: int) -> tuple[int, ...] | None:
    """The axes that a node names, as an attribute or as an input; None for nothing to reduce."""
    given = node.get("axes", None)
    if given is None and node.input(1):
        given = converter.known(node, 1, "which axes it reduces").tolist()
    if not given:
        return None if node.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in given))


def reduce(converter: Converter, node: Node) -> None:
    """The reductions of one operator."""
    rank = len(converter.shape(node.inputs[0]))
    axes = axes_of(converter, node, rank)
    if axes is None:
        converter.give(node.outputs[0], converter.take(node.inputs[0]))
        return
    mean_over(converter, node, _REDUCTIONS[node.type], axes, keep=bool(node.get("keepdims", 1)))


def mean_over(
    converter: Converter, node: Node, name: str, axes: Sequence[int], *, keep: bool
) -> None:
    """A reduction by the schema's operator `name`, where the axes lie."""
    given = converter.take(node.inputs[0])
    wanted = converter.integers(node.inputs[:1], node.outputs[0])
    if wanted is not None and name in _KEEPING:
        wanted = given.integers
    if name == "REDUCE_PROD" or (wanted and wanted.dtype == "int16" and name == "SUM"):
        wanted = None
    given = given if wanted else converter.real(given)
    made = _reduced(converter, name, given, axes, keep=keep, wanted=wanted)
    converter.give(node.outputs[0], made)


def _reduced(
    converter: Converter,
    name: str,
    given: Slot,
    axes: Sequence[int],
    *,
    keep: bool,
    wanted: Integers | None = None,
) -> Slot:
    given, order = converter.ordered(given)
    places = sorted(order.index(axis) for axis in axes)
    if keep:
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(given.shape))
        kept = list(order)
    else:
        left = [axis for axis in range(len(given.shape)) if axis not in axes]
        shape = tuple(given.shape[axis] for axis in left)
        kept = [left.index(axis) for axis in order if axis in left]
    return converter.emit(
        name,
        [given, converter.vector(places)],
        shape,
        dtype=wanted.dtype if wanted else given.dtype,
        order=kept,
        scale=wanted.scale if wanted else None,
        options=options("Reducer", keepDims=keep),
    )


def squares(converter: Converter, node: Node) -> None:
    """ReduceSumSquare, ReduceL1 and ReduceL2 as a sum of squares or sizes, and its root."""
    rank = len(converter.shape(node.inputs[0]))
    axes = axes_of(converter, node, rank) or ()
    made = converter.real(converter.take(node.inputs[0]))
    name, kind = ("ABS", "Abs") if node.type == "ReduceL1" else ("SQUARE", "Square")
    made = converter.emit(name, [made], made.shape, like=made, options=options(kind))
    made = _reduced(converter, "SUM", made, axes, keep=bool(node.get("keepdims", 1)))
    if node.type == "ReduceL2":
        made = converter.emit("SQRT", [made], made.shape, like=made)
    converter.give(node.outputs[0], made)


def softmax(converter: Converter, node: Node) -> None:
    """Softmax and LogSoftmax along one axis, which is brought to the end."""
    given = converter.take(node.inputs[0])
    rank = len(given.shape)
    axis = int(node.get("axis", -1)) % rank
    wanted = converter.integers(node.inputs[:1], node.outputs[0])
    name = "SOFTMAX" if node.type == "Softmax" else "LOG_SOFTMAX"
    if wanted is not None and name == "SOFTMAX":
        wanted = fixed(0, 1, wanted.dtype)
    elif wanted is not None:
        wanted = Integers("int8", Scale((16 / 256,), 127)) if wanted.dtype == "int8" else None
    given, order = converter.ordered(given if wanted else converter.real(given))
    if order[-1] != axis:
        order = (*(each for each in order if each != axis), axis)
        given = converter.laid(given, order)
    chosen = options("Softmax", beta=1.0) if name == "SOFTMAX" else options("LogSoftmax")
    made = converter.emit(
        name,
        [given],
        given.shape,
        dtype=wanted.dtype if wanted else "float32",
        order=order,
        scale=wanted.scale if wanted else None,
        options=chosen,
    )
    converter.give(node.outputs[0], made)


def arg(converter: Converter, node: Node) -> None:
    """ArgMax and ArgMin; the first of equal ones."""
    if node.get("select_last_index", 0):
        raise refuse(node, "LiteRT takes the first of equal values, not the last")
    given = converter.take(node.inputs[0])
    axis = int(node.get("axis", 0)) % len(given.shape)
    keep = bool(node.get("keepdims", 1))
    if given.dtype == "int16":
        given = converter.real(given)
    given, order = converter.ordered(given)
    left = [each for each in range(len(given.shape)) if each != axis]
    shape = tuple(given.shape[each] for each in left)
    made = converter.emit(
        "ARG_MAX" if node.type == "ArgMax" else "ARG_MIN",
        [given, converter.array(np.array(order.index(axis), np.int32))],
        shape,
        dtype="int32",
        order=[left.index(each) for each in order if each != axis],
        options=options("ArgMax" if node.type == "ArgMax" else "ArgMin", outputType=2),
    )
    if keep:
        made = converter.seen(made, converter.shape(node.outputs[0]))
    converter.give(node.outputs[0], made)


def top_k(converter: Converter, node: Node) -> None:
    """TopK of the largest along one axis."""
    given = converter.take(node.inputs[0])
    rank = len(given.shape)
    axis = int(node.get("axis", -1)) % rank
    count = int(converter.known(node, 1, "how many it takes").item())
    if not node.get("largest", 1):
        raise refuse(node, "LiteRT takes the largest, not the smallest")
    given = converter.real(given)
    order = (*(each for each in range(rank) if each != axis), axis)
    given = converter.laid(given, order)
    shape = tuple(count if each == axis else size for each, size in enumerate(given.shape))
    values = converter.slot(shape, dtype=given.dtype, order=order)
    places = converter.slot(shape, dtype="int32", order=order)
    number = converter.array(np.array(count, np.int32))
    converter.add("TOPK_V2", [given, number], [values, places], options("TopKV2"))
    for name, slot in zip(node.outputs, (values, places), strict=False):
        if name:
            converter.give(name, slot)


def normalize(converter: Converter, node: Node) -> None:
    """LayerNormalization over the last axes, and InstanceNormalization over an image's places."""
    made = converter.real(converter.take(node.inputs[0]))
    rank = len(made.shape)
    if node.type == "LayerNormalization":
        if any(node.outputs[1:]):
            raise refuse(node, "its mean and deviation are asked for")
        axes = tuple(range(int(node.get("axis", -1)) % rank, rank))
        along: tuple[int, ...] | None = None
    else:
        axes, along = tuple(range(2, rank)), (-1, *[1] * (rank - 2))
    made, order = converter.ordered(made)
    mean = _reduced(converter, "MEAN", made, axes, keep=True)
    spread = converter.emit(
        "SQUARED_DIFFERENCE",
        [made, mean],
        made.shape,
        like=made,
        options=options("SquaredDifference"),
    )
    variance = _reduced(converter, "MEAN", spread, axes, keep=True)
    least = converter.array(np.array(node.get("epsilon", 1e-5), np.float32))
    held = converter.emit(
        "ADD", [variance, least], variance.shape, like=variance, options=options("Add")
    )
    root = converter.emit("RSQRT", [held], held.shape, like=held)
    made = converter.emit("SUB", [made, mean], made.shape, like=made, options=options("Sub"))
    made = converter.emit("MUL", [made, root], made.shape, like=made, options=options("Mul"))
    for name, kind, place in (("MUL", "Mul", 1), ("ADD", "Add", 2)):
        if node.input(place):
            array = converter.known(node, place, "its scale or bias")
            constant = _laid(array if along is None else array.reshape(along), rank, order)
            tensor = converter.array(constant)
            made = converter.emit(
                name, [made, tensor], made.shape, like=made, options=options(kind)
            )
    converter.give(node.outputs[0], made)


def _laid(array: Array, rank: int, order: Sequence[int]) -> Array:
    if tuple(order) == tuple(range(rank)):
        return array
    longer = array.reshape((1,) * (rank - array.ndim) + array.shape)
    return np.ascontiguousarray(longer.transpose(order))


OPERATORS: dict[str, Convert] = {
    **dict.fromkeys(_REDUCTIONS, reduce),
    "ArgMax": arg,
    "ArgMin": arg,
    "InstanceNormalization": normalize,
    "LayerNormalization": normalize,
    "LogSoftmax": softmax,
    "ReduceL1": squares,
    "ReduceL2": squares,
    "ReduceSumSquare": squares,
    "Softmax": softmax,
    "TopK": top_k,
}
