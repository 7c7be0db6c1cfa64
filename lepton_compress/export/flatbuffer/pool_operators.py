"""Pools, channels last."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lepton_compress.export.flatbuffer import layouts
from lepton_compress.export.flatbuffer.builder import options
from lepton_compress.export.flatbuffer.converter import Convert, Converter, Slot
from lepton_compress.export.flatbuffer.convolution_operators import (
    SAME,
    VALID,
    image,
    is_same,
    padded,
    pads_of,
)
from lepton_compress.export.flatbuffer.graph import Array, Node, refuse
from lepton_compress.export.flatbuffer.reduction_operators import mean_over

Pair = tuple[int, int]


def _window(node: Node, slot: Slot) -> tuple[list[int], list[int], list[Pair], list[Pair]]:
    """Kernel, strides, what the graph pads, and what must be padded for the last place to be
    computed, which `ceil_mode` may ask for."""
    kernel = [int(each) for each in node.attributes["kernel_shape"]]
    strides = [int(each) for each in node.get("strides", [1] * len(kernel))]
    if any(each != 1 for each in node.get("dilations", [])):
        raise refuse(node, "LiteRT's pools have no dilation")
    spatial = slot.shape[2:][-len(kernel) :]
    pads = pads_of(node, spatial, kernel, strides)
    if len(kernel) == 1:
        kernel, strides, pads = [1, *kernel], [1, *strides], [(0, 0), *pads]
    reach = []
    for size, far, step, (before, behind) in zip(
        slot.shape[2:], kernel, strides, pads, strict=True
    ):
        steps = (size + before + behind - far) / step
        count = math.floor(steps) + 1
        if node.get("ceil_mode", 0):
            count = math.ceil(steps) + 1
            # A window must not begin in what is padded behind.
            count -= (count - 1) * step >= size + before
        reach.append((before, max((count - 1) * step + far - size - before, 0)))
    return kernel, strides, pads, reach


def max_pool(converter: Converter, node: Node) -> None:
    """MaxPool; the scale of integers stays as it is."""
    if len(node.outputs) > 1 and node.outputs[1]:
        raise refuse(node, "LiteRT's pools do not tell where the maxima were")
    given = converter.laid(image(converter, converter.take(node.inputs[0])), layouts.last(4))
    kernel, strides, _, reach = _window(node, given)
    sizes = given.shape[2:]
    same = is_same(sizes, kernel, strides, reach)
    if not same and any(map(any, reach)):
        low = np.iinfo(given.dtype).min if given.integers else np.finfo(np.float32).min
        value = converter.array(np.array([low], given.dtype), given.scale)
        given = padded(converter, given, reach, value)
    converter.give(
        node.outputs[0], _pooled(converter, node, "MAX_POOL_2D", given, kernel, strides, same)
    )


def _pooled(
    converter: Converter,
    node: Node,
    name: str,
    given: Slot,
    kernel: Sequence[int],
    strides: Sequence[int],
    same: bool,
) -> Slot:
    shape = converter.shape(node.outputs[0])
    made = converter.emit(
        name,
        [given],
        shape if len(shape) == 4 else (shape[0], shape[1], 1, shape[2]),
        dtype=given.dtype,
        order=layouts.last(4),
        scale=given.scale,
        options=options(
            "Pool2D",
            padding=SAME if same else VALID,
            strideH=strides[0],
            strideW=strides[1],
            filterHeight=kernel[0],
            filterWidth=kernel[1],
        ),
    )
    return converter.seen(made, shape)


def average_pool(converter: Converter, node: Node) -> None:
    """AveragePool. Where windows hold other counts of values than LiteRT divides by, a constant
    corrects the means, in float."""
    given = converter.take(node.inputs[0])
    wanted = converter.integers(node.inputs[:1], node.outputs[0])
    given = image(converter, given)
    kernel, strides, pads, reach = _window(node, given)
    sizes = given.shape[2:]
    counted = bool(node.get("count_include_pad", 0))
    inside = not any(map(any, reach))
    same = not counted and reach == pads and is_same(sizes, kernel, strides, reach)
    even = inside or same or (counted and reach == pads)
    given = given if wanted and even else converter.real(given)
    given = converter.laid(given, layouts.last(4))
    if not inside and not same:
        given = padded(converter, given, reach)
    made = _pooled(converter, node, "AVERAGE_POOL_2D", given, kernel, strides, same)
    if not even:
        factor = _correction(sizes, kernel, strides, pads, reach, counted=counted)
        shape = converter.shape(node.outputs[0])
        made = converter.laid(image(converter, made), layouts.last(4))
        constant = converter.array(factor[None, :, :, None])
        made = converter.emit(
            "MUL", [made, constant], made.shape, like=made, options=options("Mul")
        )
        made = converter.seen(made, shape)
    converter.give(node.outputs[0], made)


def _correction(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[Pair],
    reach: Sequence[Pair],
    *,
    counted: bool,
) -> Array:
    """How much larger each mean is over the values that count, float32 (rows, columns)."""
    parts = []
    for size, far, step, (before, behind), (_, more) in zip(
        sizes, kernel, strides, pads, reach, strict=True
    ):
        held = np.zeros(size + before + max(more, behind))
        held[: size + before + behind] = 1.0
        if not counted:
            held[:before] = 0
            held[before + size :] = 0
        count = (size + before + more - far) // step + 1
        sums = np.array([held[start * step : start * step + far].sum() for start in range(count)])
        parts.append(far / np.maximum(sums, 1))
    made: Array = np.outer(*parts).astype(np.float32)
    return made


def global_pool(converter: Converter, node: Node) -> None:
    """GlobalAveragePool and GlobalMaxPool over all places of an image."""
    rank = len(converter.shape(node.inputs[0]))
    name = "MEAN" if node.type == "GlobalAveragePool" else "REDUCE_MAX"
    mean_over(converter, node, name, tuple(range(2, rank)), keep=True)


OPERATORS: dict[str, Convert] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "MaxPool": max_pool,
}
