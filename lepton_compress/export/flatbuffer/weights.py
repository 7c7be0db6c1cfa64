"""Constants that activations are multiplied by, and biases, in the form that a kernel takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lepton_compress.export.flatbuffer.builder import Scale, options
from lepton_compress.export.flatbuffer.converter import Converter, Slot
from lepton_compress.export.flatbuffer.graph import Array, Node, refuse
from lepton_compress.export.flatbuffer.quantization import shifted

Arrange = Callable[[Array], Array]
LEAST = 1024
"""Elements; smaller constants stay float32, as integers would save nothing."""
_MEND = "quantise the float model by `quantize`, whose weights are symmetric"


def integer_weight(
    converter: Converter, node: Node, name: str, arrange: Arrange, *, channel: int, axis: int
) -> tuple[int, Array]:
    """A tensor of int8 weights around zero, and their scales.

    Args:
        arrange: from the constant of the graph to the order in memory.
        channel: the constant's axis that scales may belong to.
        axis: the same in memory.

    Raises:
        InputError: they are not symmetric, or the scales belong to another axis.
    """
    held = converter.graph.quantized[name]
    made = shifted(held)
    if made is None or made[1].zero or made[0].dtype != np.int8:
        raise refuse(node, "its weights are not int8 around zero", _MEND)
    integers, scale = made
    if scale.per_channel and held.axis != channel:
        raise refuse(node, f"its weights have a scale for each place of axis {held.axis}", _MEND)
    scale = Scale(scale.values, 0, axis if scale.per_channel else 0)
    tensor = converter.array(arrange(integers), scale)
    return tensor, np.array(scale.values, np.float64)


def float_weight(
    converter: Converter, name: str, arrange: Arrange, *, channel: int, axis: int, hybrid: bool
) -> int:
    """A tensor of weights for float activations: as the parameter `weights` says, or as integers
    of the graph.

    Args:
        arrange, channel, axis: as of `integer_weight`.
        hybrid: whether the kernel takes int8 weights beside float activations.
    """
    held, kind = converter.graph.quantized.get(name), converter.params.weights
    symmetric = shifted(held) if held is not None else None
    if held is not None and symmetric is not None and symmetric[1].zero == 0:
        integers, scale = symmetric
        if not scale.per_channel or held.axis == channel:
            scale = Scale(scale.values, 0, axis if scale.per_channel else 0)
            direct = hybrid and name in converter.graph.hybrid
            return stored(converter, arrange(integers), scale, direct=direct)
    array = arrange(converter.graph.constants[name])
    converter.narrows |= kind == "float16" or (kind != "float32" and array.size >= LEAST)
    if kind == "float16" or name in converter.graph.halves:
        return half(converter, array)
    if kind in ("dynamic", "int8") and array.size >= LEAST:
        integers, scale = rounded(array, axis)
        return stored(converter, integers, scale, direct=hybrid and kind == "dynamic")
    return converter.array(array)


def half(converter: Converter, array: Array) -> int:
    """Weights in 16 bits that are widened when the file is loaded; those that 16 bits cannot hold
    stay as they are."""
    with np.errstate(over="ignore"):
        narrow: Array = array.astype(np.float16)
    if not np.isfinite(narrow).all():
        return converter.array(array)
    return stored(converter, narrow, None, direct=False)


def stored(converter: Converter, array: Array, scale: Scale | None, *, direct: bool) -> int:
    """A tensor of narrow weights; made float by an operator unless the kernel takes them."""
    tensor = converter.array(array, scale)
    if direct:
        return tensor
    made = converter.subgraph.tensor(tuple(array.shape), "float32")
    converter.add("DEQUANTIZE", [tensor], [made], options("Dequantize"))
    return made


def rounded(array: Array, axis: int) -> tuple[Array, Scale]:
    """Symmetric int8 with a scale for each place along an axis."""
    others = tuple(each for each in range(array.ndim) if each != axis)
    largest = np.abs(array).max(axis=others, keepdims=True)
    # A channel of zeros has no scale of its own.
    scales = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    integers = np.clip(np.round(array / scales), -127, 127).astype(np.int8)
    return integers, Scale(tuple(float(each) for each in scales.ravel()), 0, axis)


def integer_bias(
    converter: Converter, node: Node, name: str, given: Slot, scales: Array, count: int
) -> int:
    """A bias as integers of the products' scale: int32, or int64 for 16-bit activations.

    Args:
        name: of a constant of one dimension; empty for zeros.
        given: the activation, and `scales` those of the weights.

    Raises:
        InputError: it does not fit.
    """
    steps = np.broadcast_to(given.scale.values[0] * scales, (count,)) if given.scale else scales
    integers: Array = np.zeros(count, np.float64)
    if name:
        held = converter.graph.quantized.get(name)
        values = converter.graph.constants[name].astype(np.float64)
        if held is not None:
            values = (held.integers.astype(np.float64) - held.zero) * held.scale.astype(np.float64)
        integers = np.round(np.broadcast_to(values.reshape(-1), (count,)) / steps)
    dtype = np.dtype(np.int64 if given.dtype == "int16" else np.int32)
    if np.abs(integers).max(initial=0) > np.iinfo(np.int32).max and dtype == np.int32:
        raise refuse(node, "its bias needs more than 32 bits at the scale of its products", _MEND)
    scale = Scale(tuple(float(np.float32(each)) for each in dict.fromkeys(steps.tolist())))
    if len(scale.values) > 1 or len(scales) > 1:
        scale = Scale(tuple(float(np.float32(each)) for each in steps))
    return converter.subgraph.constant(integers.astype(dtype), scale)
