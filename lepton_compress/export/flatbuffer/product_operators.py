"""Matrix products: FULLY_CONNECTED where one side is constant, else BATCH_MATMUL."""

from __future__ import annotations

import numpy as np

from lepton_compress.export.flatbuffer.arithmetic import arithmetic
from lepton_compress.export.flatbuffer.builder import options
from lepton_compress.export.flatbuffer.converter import Convert, Converter, Slot
from lepton_compress.export.flatbuffer.graph import Array, Node, refuse
from lepton_compress.export.flatbuffer.weights import (
    float_weight,
    integer_bias,
    integer_weight,
)


def gemm(converter: Converter, node: Node) -> None:
    """Gemm: the weight's factor alpha and the bias's beta are multiplied in."""
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    weight, bias = node.inputs[1], node.input(2)
    turned = bool(node.get("transB", 0))
    left = converter.take(node.inputs[0])
    if node.get("transA", 0):
        left = converter.turned(left, (1, 0))
    known = converter.constant(weight) is not None
    count = converter.shape(node.outputs[0])[1]
    simple = not bias or (
        converter.constant(bias) is not None
        and converter.shape(bias) in ((count,), (1, count), (1,), ())
    )
    if known and simple:
        if (alpha, beta) != (1.0, 1.0):
            weight, bias = _scaled(converter, weight, alpha), _scaled(converter, bias, beta)
        _dense(converter, node, left, weight, bias, turned=turned)
        return
    if (alpha, beta) != (1.0, 1.0) or converter.graph.quantized.get(bias) is not None:
        raise refuse(node, "alpha and beta are not 1, or its bias is no vector")
    right = converter.take(weight)
    right = converter.turned(right, (1, 0)) if turned else right
    product = f"{node.outputs[0]}/product" if bias else node.outputs[0]
    made = _batch(converter, node, left, right, product)
    converter.give(product, made)
    if bias:
        arithmetic(converter, "ADD", "Add", node.outputs[0], (product, bias))


def _scaled(converter: Converter, name: str, factor: float) -> str:
    if not name or factor == 1:
        return name
    array = converter.graph.constants[name] * np.float32(factor)
    return converter.graph.add_constant(f"{name}/scaled{factor}", array)


def matmul(converter: Converter, node: Node) -> None:
    """MatMul, and the bias that may follow it."""
    left, right = node.inputs
    if len(converter.shape(left)) < 2 or len(converter.shape(right)) < 2:
        raise refuse(node, "LiteRT multiplies matrices, not vectors", "add an axis of one")
    given = converter.constant(right)
    if given is not None and given.ndim == 2 and converter.constant(left) is None:
        _dense(converter, node, converter.take(left), right, "", turned=False)
        return
    made = _batch(converter, node, converter.take(left), converter.take(right), node.outputs[0])
    converter.give(node.outputs[0], made)


def _following_bias(converter: Converter, value: str) -> tuple[str, str]:
    """The value behind an addition of a constant vector that alone follows, and that vector."""
    node = converter.only_user(value)
    if node is None or node.type != "Add":
        return value, ""
    other = node.inputs[1] if node.inputs[0] == value else node.inputs[0]
    count = converter.shape(value)[-1]
    array = converter.constant(other)
    same = converter.shape(node.outputs[0]) == converter.shape(value)
    if array is None or not same or array.ndim == 0 or array.size != array.shape[-1] != count:
        return value, ""
    if array.size != count or other in converter.graph.quantized:
        return value, ""
    converter.absorb(node)
    return node.outputs[0], other


def _dense(
    converter: Converter, node: Node, left: Slot, weight: str, bias: str, *, turned: bool
) -> None:
    """The product with a constant matrix, (outputs, inputs) if `turned`."""
    value = node.outputs[0]
    if not bias:
        value, bias = _following_bias(converter, value)
    value, fused = converter.fused(value)
    wanted = converter.wanted(value) if left.integers else None
    if wanted is not None and (
        weight not in converter.graph.quantized or left.dtype != wanted.dtype
    ):
        wanted = None
    left = left if wanted else converter.real(left)
    left, places = _rows(converter, left)

    def arrange(array: Array) -> Array:
        held = array if turned else array.T
        return held if places is None else held[:, places]

    channel = 0 if turned else 1
    count = converter.shape(node.outputs[0])[-1]
    if wanted is not None:
        tensor, scales = integer_weight(converter, node, weight, arrange, channel=channel, axis=0)
        last = integer_bias(converter, node, bias, left, scales, count)
    else:
        tensor = float_weight(converter, weight, arrange, channel=channel, axis=0, hybrid=True)
        last = -1
        if bias:
            held = converter.graph.constants[bias].reshape(-1)
            last = converter.array(np.ascontiguousarray(np.broadcast_to(held, (count,))))
    made = converter.emit(
        "FULLY_CONNECTED",
        [left, tensor, last],
        converter.shape(node.outputs[0]),
        dtype=wanted.dtype if wanted else "float32",
        scale=wanted.scale if wanted else None,
        options=options(
            "FullyConnected",
            fusedActivationFunction=fused,
            keepNumDims=len(left.shape) > 2,
            asymmetricQuantizeInputs=weight in converter.graph.hybrid
            or converter.params.weights == "dynamic",
        ),
    )
    converter.give(value, made)


def _rows(converter: Converter, slot: Slot) -> tuple[Slot, Array | None]:
    """A value whose last axis is last in memory, and the order in which that lies there."""
    shape, plain = slot.shape, tuple(range(len(slot.shape)))
    fitted = slot.layout.fitted(shape)
    if fitted is None or slot.layout.storage(shape, shuffled=True) != plain:
        return converter.plain(slot), None
    inner = (fitted.axes(shape) or [[]])[-1]
    places = [each for each in fitted.order if each in inner]
    others = [each for each in fitted.order if each not in inner]
    if places == inner or others != sorted(others):
        return converter.plain(slot), None
    numbers = np.arange(shape[-1]).reshape([fitted.factors[each] for each in inner])
    turn = [inner.index(each) for each in places]
    return converter.reshaped(slot, shape), numbers.transpose(turn).reshape(-1)


def _batch(converter: Converter, node: Node, left: Slot, right: Slot, value: str) -> Slot:
    """The product of two matrices, or of as many as their first axes say."""
    wanted = converter.wanted(value) if value == node.outputs[0] else None
    if wanted is not None:
        dtypes = {each.dtype if each.integers else "" for each in (left, right)}
        wanted = wanted if dtypes == {wanted.dtype} else None
    if wanted is None:
        left, right = converter.real(left), converter.real(right)
    shape = converter.shape(node.outputs[0])
    left, left_turned = _matrix(converter, left)
    right, right_turned = _matrix(converter, right)
    return converter.emit(
        "BATCH_MATMUL",
        [left, right],
        shape,
        dtype=wanted.dtype if wanted else "float32",
        scale=wanted.scale if wanted else None,
        options=options("BatchMatMul", adjX=left_turned, adjY=right_turned),
    )


def _matrix(converter: Converter, slot: Slot) -> tuple[Slot, bool]:
    """A value whose last two axes are last in memory, and whether they are the other way round."""
    rank = len(slot.shape)
    turned = (*range(rank - 2), rank - 1, rank - 2)
    if slot.layout.storage(slot.shape) == turned and 1 not in slot.shape[-2:]:
        return converter.laid(slot, turned), True
    return converter.plain(slot), False


OPERATORS: dict[str, Convert] = {"Gemm": gemm, "MatMul": matmul}
