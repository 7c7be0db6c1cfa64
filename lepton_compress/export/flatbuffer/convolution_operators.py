"""Convolutions: channels last, weights as CONV_2D, DEPTHWISE_CONV_2D and TRANSPOSE_CONV take
them. One of one dimension is one over images of height 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lepton_compress.export.flatbuffer import layouts
from lepton_compress.export.flatbuffer.builder import options
from lepton_compress.export.flatbuffer.converter import Convert, Converter, Slot
from lepton_compress.export.flatbuffer.graph import Array, Node, refuse
from lepton_compress.export.flatbuffer.quantization import Integers
from lepton_compress.export.flatbuffer.weights import (
    Arrange,
    float_weight,
    integer_bias,
    integer_weight,
)

SAME, VALID = 0, 1


def image(converter: Converter, slot: Slot) -> Slot:
    """(samples, channels, length) as (samples, channels, 1, length)."""
    if len(slot.shape) == 4:
        return slot
    samples, channels, length = slot.shape
    return converter.seen(slot, (samples, channels, 1, length))


def pads_of(
    node: Node, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Places added before and behind each spatial axis.

    Args:
        sizes: of the input; `reach` is how far a kernel reaches, dilation included.
    """
    kind, rank = node.get("auto_pad", "NOTSET"), len(sizes)
    if kind == "NOTSET":
        given = list(node.get("pads", [0] * 2 * rank))
        return list(zip(given[:rank], given[rank:], strict=True))
    if kind == "VALID":
        return [(0, 0)] * rank
    found = []
    for size, far, step in zip(sizes, reach, strides, strict=True):
        total = max((math.ceil(size / step) - 1) * step + far - size, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if kind == "SAME_UPPER" else (large, small))
    return found


def is_same(
    sizes: Sequence[int],
    reach: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
) -> bool:
    """Whether LiteRT's padding SAME adds just these places."""
    for size, far, step, pair in zip(sizes, reach, strides, pads, strict=True):
        total = max((math.ceil(size / step) - 1) * step + far - size, 0)
        if tuple(pair) != (total // 2, total - total // 2):
            return False
    return True


def padded(
    converter: Converter, slot: Slot, pads: Sequence[tuple[int, int]], value: int | None = None
) -> Slot:
    """An image, channels last, with places of zero (or of a tensor's value) around it."""
    (samples, channels, height, width), ((up, down), (left, right)) = slot.shape, pads
    shape = (samples, channels, height + up + down, width + left + right)
    amounts = converter.array(np.array([[0, 0], [up, down], [left, right], [0, 0]], np.int32))
    given: list[int | Slot] = [slot, amounts]
    name = "PAD"
    if value is not None:
        given, name = [*given, value], "PADV2"
    return converter.emit(
        name,
        given,
        shape,
        dtype=slot.dtype,
        order=layouts.last(4),
        scale=slot.scale,
        options=options("PadV2" if value is not None else "Pad"),
    )


def conv(converter: Converter, node: Node) -> None:
    """Conv with constant weights."""
    weight = converter.known(node, 1, "its weight")
    if weight.ndim not in (3, 4):
        raise refuse(node, f"LiteRT's kernels know no convolution of {weight.ndim - 2} dimensions")
    value, fused = converter.fused(node.outputs[0])
    wanted = converter.integers([node.inputs[0]], value)
    if wanted is not None and node.inputs[1] not in converter.graph.quantized:
        wanted = None
    given = converter.take(node.inputs[0])
    given = image(converter, given if wanted else converter.real(given))
    given = converter.laid(given, layouts.last(4))
    groups, channels = int(node.get("group", 1)), given.shape[1]
    depthwise = groups == channels and groups > 1
    strides, dilations = (_pair(node, key) for key in ("strides", "dilations"))
    kernel = weight.shape[2:] if weight.ndim == 4 else (1, weight.shape[2])
    reach = [(size - 1) * far + 1 for size, far in zip(kernel, dilations, strict=True)]
    sizes = given.shape[2:]
    pads = _image_pads(node, sizes, reach, strides)
    same = is_same(sizes, reach, strides, pads)
    if not same and any(map(any, pads)):
        given = padded(converter, given, pads)
    axis = 3 if depthwise else 0
    tensors = _weights(
        converter, node, given, wanted, _arranged(weight.ndim, depthwise=depthwise), axis
    )
    chosen = {
        "padding": SAME if same else VALID,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": fused,
    }
    if depthwise:
        chosen["depthMultiplier"] = weight.shape[0] // channels
    shape = converter.shape(node.outputs[0])
    made = converter.emit(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [given, *tensors],
        shape if len(shape) == 4 else (shape[0], shape[1], 1, shape[2]),
        dtype=wanted.dtype if wanted else "float32",
        order=layouts.last(4),
        scale=wanted.scale if wanted else None,
        options=options("DepthwiseConv2D" if depthwise else "Conv2D", **chosen),
    )
    converter.give(value, converter.seen(made, shape))


def _pair(node: Node, key: str) -> tuple[int, int]:
    given = [int(each) for each in node.get(key, [1, 1])]
    return (1, given[0]) if len(given) == 1 else (given[0], given[1])


def _image_pads(
    node: Node, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """`pads_of`, for what may have one dimension in the graph."""
    given = node.get("pads", None)
    if given is not None and len(given) == 2 and node.get("auto_pad", "NOTSET") == "NOTSET":
        return [(0, 0), (given[0], given[1])]
    return pads_of(node, sizes, reach, strides)


def _arranged(rank: int, *, depthwise: bool) -> Arrange:
    """From (outputs, inputs, rows, columns) to what the kernel takes."""

    def arrange(array: Array) -> Array:
        held = array if rank == 4 else array[:, :, None, :]
        return held.transpose(1, 2, 3, 0) if depthwise else held.transpose(0, 2, 3, 1)

    return arrange


def _weights(
    converter: Converter,
    node: Node,
    given: Slot,
    wanted: Integers | None,
    arrange: Arrange,
    axis: int,
    channel: int = 0,
) -> list[int]:
    """The tensors of the weight and of the bias."""
    name, bias = node.inputs[1], node.input(2)
    count = converter.shape(node.outputs[0])[1]
    if bias:
        converter.known(node, 2, "its bias")
    if wanted is not None:
        tensor, scales = integer_weight(converter, node, name, arrange, channel=channel, axis=axis)
        return [tensor, integer_bias(converter, node, bias, given, scales, count)]
    tensor = float_weight(converter, name, arrange, channel=channel, axis=axis, hybrid=True)
    held = converter.graph.constants[bias] if bias else np.zeros(count, np.float32)
    return [tensor, converter.array(held)]


def conv_transpose(converter: Converter, node: Node) -> None:
    """ConvTranspose of one group with constant weights: all of the result, then what the pads
    leave of it."""
    weight = converter.known(node, 1, "its weight")
    dilations, groups = _pair(node, "dilations"), int(node.get("group", 1))
    if weight.ndim not in (3, 4) or groups != 1 or dilations != (1, 1):
        raise refuse(node, "TRANSPOSE_CONV has two dimensions, one group and no dilation")
    out, fused = converter.fused(node.outputs[0])
    wanted = converter.integers([node.inputs[0]], out)
    if wanted is not None and node.inputs[1] not in converter.graph.quantized:
        wanted = None
    given = converter.take(node.inputs[0])
    given = image(converter, given if wanted else converter.real(given))
    given = converter.laid(given, layouts.last(4))
    strides = _pair(node, "strides")
    kernel = weight.shape[2:] if weight.ndim == 4 else (1, weight.shape[2])
    shape = converter.shape(node.outputs[0])
    wide = shape if len(shape) == 4 else (shape[0], shape[1], 1, shape[2])
    starts, full = _cut(node, given.shape[2:], kernel, strides, wide[2:])
    inner = (wide[0], wide[1], *full)

    def arrange(array: Array) -> Array:
        held = array if weight.ndim == 4 else array[:, :, None, :]
        return held.transpose(1, 2, 3, 0)

    tensor, bias = _weights(converter, node, given, wanted, arrange, 0, channel=1)
    chosen = {"strideH": strides[0], "strideW": strides[1], "padding": VALID}
    kind = {"dtype": wanted.dtype, "scale": wanted.scale} if wanted else {"dtype": "float32"}
    made = converter.emit(
        "TRANSPOSE_CONV",
        [converter.vector([inner[0], *inner[2:], inner[1]]), tensor, given, bias],
        inner,
        order=layouts.last(4),
        options=options("TransposeConv", fusedActivationFunction=fused, **chosen),
        **kind,
    )
    if inner != wide:
        begin = converter.vector([0, *starts, 0])
        size = converter.vector([wide[0], *wide[2:], wide[1]])
        made = converter.emit(
            "SLICE",
            [made, begin, size],
            wide,
            order=layouts.last(4),
            options=options("Slice"),
            **kind,
        )
    converter.give(out, converter.seen(made, shape))


def _cut(
    node: Node,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    wanted: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Where the result begins in what the kernel computes without padding, and how large that is.

    Raises:
        InputError: the result reaches beyond it.
    """
    full = [(size - 1) * step + far for size, step, far in zip(sizes, strides, kernel, strict=True)]
    given = [int(each) for each in node.get("pads", [0, 0, 0, 0])]
    pads = [0, given[0]] if len(given) == 2 else given[:2]
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or node.get("output_shape", None):
        # The pads follow from the size of the result.
        totals = [max(all_ - size, 0) for all_, size in zip(full, wanted, strict=True)]
        upper = node.get("auto_pad", "NOTSET") == "SAME_UPPER"
        pads = [total // 2 if upper else total - total // 2 for total in totals]
    if any(start + size > all_ for start, size, all_ in zip(pads, wanted, full, strict=True)):
        raise refuse(node, "its output padding reaches behind what TRANSPOSE_CONV computes")
    return pads, full


OPERATORS: dict[str, Convert] = {"Conv": conv, "ConvTranspose": conv_transpose}
