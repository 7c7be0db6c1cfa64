"""Convolutions, products, pooling and normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lepton_compress.export.aten.network import Convert, Network, refuse
from lepton_compress.export.flatbuffer.graph import Node

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d}
_MAXIMA = {1: functional.max_pool1d, 2: functional.max_pool2d}


def _as_is(array: np.ndarray) -> np.ndarray:
    return array


def _turned(array: np.ndarray) -> np.ndarray:
    return np.swapaxes(array, -1, -2)


def _bias(net: Network, name: str) -> torch.Tensor | None:
    return net.value(name) if name else None


def _window(net: Network, node: Node, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Strides, and padding as all beginnings before all ends."""
    rank = len(kernel)
    strides = list(node.get("strides", [1] * rank))
    auto = node.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        return strides, list(node.get("pads", [0] * 2 * rank))
    shape = net.graph.shapes[node.inputs[0]][2:]
    dilations = node.get("dilations", [1] * rank)
    early, late = [], []
    for size, width, stride, dilation in zip(shape, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        missing = max(0, (-(-size // stride) - 1) * stride + reach - size)
        early.append(missing - missing // 2 if auto == "SAME_LOWER" else missing // 2)
        late.append(missing - early[-1])
    return strides, early + late


def _padded(x: torch.Tensor, pads: Sequence[int], value: float) -> tuple[torch.Tensor, list[int]]:
    """The value with what is not the same on both sides already around it, and the rest."""
    rank = len(pads) // 2
    if list(pads[:rank]) == list(pads[rank:]):
        return x, list(pads[:rank])
    around = [pads[place + side] for place in reversed(range(rank)) for side in (0, rank)]
    return functional.pad(x, around, value=value), [0] * rank


def convolution(net: Network, node: Node) -> torch.Tensor:
    """Conv over one or two axes."""
    kernel = net.graph.shapes[node.inputs[1]][2:]
    if len(kernel) not in _CONVOLUTIONS:
        raise refuse(node, f"XNNPACK has no convolution over {len(kernel)} axes")
    strides, pads = _window(net, node, kernel)
    x, rest = _padded(net.value(node.inputs[0]), pads, 0.0)
    weight = net.weight(node.inputs[1], "", _as_is, 0)
    dilations = list(node.get("dilations", [1] * len(kernel)))
    return _CONVOLUTIONS[len(kernel)](
        x, weight, _bias(net, node.input(2)), strides, rest, dilations, node.get("group", 1)
    )


def transposed_convolution(net: Network, node: Node) -> torch.Tensor:
    """ConvTranspose over one or two axes."""
    kernel = net.graph.shapes[node.inputs[1]][2:]
    rank = len(kernel)
    pads = list(node.get("pads", [0] * 2 * rank))
    odd = pads[:rank] != pads[rank:] or node.get("auto_pad", "NOTSET") != "NOTSET"
    if rank not in _TRANSPOSED or odd or "output_shape" in node.attributes:
        raise refuse(node, "only one or two axes padded alike on both sides are known there")
    return _TRANSPOSED[rank](
        net.value(node.inputs[0]),
        net.value(node.inputs[1]),
        _bias(net, node.input(2)),
        list(node.get("strides", [1] * rank)),
        pads[:rank],
        list(node.get("output_padding", [0] * rank)),
        node.get("group", 1),
        list(node.get("dilations", [1] * rank)),
    )


def gemm(net: Network, node: Node) -> torch.Tensor:
    """Gemm, as a dense layer where its factors are one."""
    x, (_, name) = net.value(node.inputs[0]), node.inputs[:2]
    if node.get("transA", 0):
        x = torch.transpose(x, 0, 1)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    change: tuple[str, Any, int] = (
        ("", _as_is, 0) if node.get("transB", 0) else ("turned", _turned, 1)
    )
    weight = net.weight(name, *change)
    bias = _bias(net, node.input(2))
    if alpha == 1.0 and (bias is None or (beta == 1.0 and bias.ndim == 1)):
        return functional.linear(x, weight, bias)
    made: torch.Tensor = functional.linear(x, weight) * alpha
    return made if bias is None else made + bias * beta


def product(net: Network, node: Node) -> torch.Tensor:
    """MatMul; with a constant matrix behind it, a dense layer."""
    one, other = node.inputs[:2]
    if other in net.graph.constants and net.graph.constants[other].ndim == 2:
        weight = net.weight(other, "turned", _turned, 1)
        return functional.linear(net.value(one), weight)
    return torch.matmul(net.value(one), net.value(other))


def maximum_pool(net: Network, node: Node) -> torch.Tensor:
    """MaxPool, of which the places are not asked for."""
    kernel = list(node.attributes["kernel_shape"])
    if len(kernel) not in _MAXIMA or (len(node.outputs) > 1 and node.outputs[1]):
        raise refuse(node, "only one or two axes, and no places, are known there")
    strides, pads = _window(net, node, kernel)
    x, rest = _padded(net.value(node.inputs[0]), pads, float("-inf"))
    dilations = list(node.get("dilations", [1] * len(kernel)))
    ceil = bool(node.get("ceil_mode", 0))
    return _MAXIMA[len(kernel)](x, kernel, strides, rest, dilations, ceil)


def average_pool(net: Network, node: Node) -> torch.Tensor:
    """AveragePool."""
    kernel = list(node.attributes["kernel_shape"])
    strides, pads = _window(net, node, kernel)
    counted = bool(node.get("count_include_pad", 0))
    rank = len(kernel)
    if rank not in (1, 2) or (not counted and pads[:rank] != pads[rank:]):
        raise refuse(node, "only one or two axes padded alike on both sides are known there")
    x, rest = _padded(net.value(node.inputs[0]), pads, 0.0)
    ceil = bool(node.get("ceil_mode", 0))
    if rank == 1:
        return functional.avg_pool1d(x, kernel, strides, rest, ceil, counted)
    return functional.avg_pool2d(x, kernel, strides, rest, ceil, counted)


def global_average(net: Network, node: Node) -> torch.Tensor:
    """GlobalAveragePool."""
    x = net.value(node.inputs[0])
    return torch.mean(x, list(range(2, x.ndim)), keepdim=True)


def global_maximum(net: Network, node: Node) -> torch.Tensor:
    """GlobalMaxPool."""
    x = net.value(node.inputs[0])
    return torch.amax(x, list(range(2, x.ndim)), keepdim=True)


def batch_normalization(net: Network, node: Node) -> torch.Tensor:
    """BatchNormalization at inference, as a product and a sum."""
    scale, bias, mean, variance = (
        net.constant(node, place, "normalisation") for place in range(1, 5)
    )
    factor = scale / np.sqrt(variance + np.float32(node.get("epsilon", 1e-5)))
    shape = [-1, *[1] * (len(net.graph.shapes[node.inputs[0]]) - 2)]

    def product(array: np.ndarray) -> np.ndarray:
        return factor.reshape(shape).astype(np.float32)

    def rest(array: np.ndarray) -> np.ndarray:
        return (bias - mean * factor).reshape(shape).astype(np.float32)

    scaled = net.value(node.inputs[0]) * net.buffer(node.inputs[1], node.name, product)
    return scaled + net.buffer(node.inputs[2], f"{node.name}, rest", rest)


def layer_normalization(net: Network, node: Node) -> torch.Tensor:
    """LayerNormalization, without the means that only training takes."""
    if any(node.outputs[1:]):
        raise refuse(node, "its mean and deviation are no outputs there")
    x = net.value(node.inputs[0])
    axis = node.get("axis", -1) % x.ndim
    bias = _bias(net, node.input(2))
    shape, scale = list(x.shape[axis:]), net.value(node.inputs[1])
    return functional.layer_norm(x, shape, scale, bias, node.get("epsilon", 1e-5))


OPERATORS: dict[str, Convert] = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": gemm,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_maximum,
    "LayerNormalization": layer_normalization,
    "MatMul": product,
    "MaxPool": maximum_pool,
}
