"""Convolutions and matrix products of a QDQ graph as products of integer matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

Multiply = Callable[["Product", np.ndarray, np.ndarray], np.ndarray]
"""From (rows, inner) uint8 and (inner, columns) int8 to (rows, columns) int32."""


@dataclass(frozen=True)
class Product:
    """A Conv, Gemm or MatMul whose input is quantised and whose weight is constant int8.

    Attributes:
        name: of the node.
        given: name of the quantised input, uint8 or int8.
        made: name of the node's output.
        scale, zero: of the input.
        weights: (groups, inner, columns) int8; of a convolution, `inner` runs over the taps and,
            within a tap, over the channels.
        steps: (groups * columns,) float32 scales of the weights.
        bias: name of the float bias, or None.
        window: how a convolution moves over its input; None for the others.
    """

    name: str
    given: str
    made: str
    scale: float
    zero: int
    weights: NDArray[np.int8]
    steps: NDArray[np.float32]
    bias: str | None
    window: Window | None

    @property
    def depthwise(self) -> bool:
        """Whether it is a convolution of each channel by itself."""
        taps = int(np.prod(self.window.kernel)) if self.window else 0
        return self.weights.shape == (len(self.weights), taps, 1) and len(self.weights) > 1

    def compute(
        self, values: NDArray[Any], bias: NDArray[np.float32] | None, multiply: Multiply
    ) -> NDArray[np.float32]:
        """The node's float output.

        Args:
            values: the quantised input, of a convolution (batch, channels, ...), else (..., inner).
            bias: (columns,) or None.
            multiply: does the integer arithmetic.
        """
        zero = self.zero
        if values.dtype == np.int8:
            # As the kernels do: the sign bit turns signed into unsigned bytes, 128 higher.
            values, zero = values.view(np.uint8) ^ np.uint8(128), zero + 128
        if self.window is None:
            parts, shape = [values.reshape(-1, values.shape[-1])], values.shape[:-1]
        else:
            parts, shape = self.window.rows(values, zero, len(self.weights))
        sums = [
            multiply(self, rows, weights) - zero * weights.sum(axis=0, dtype=np.int32)
            for rows, weights in zip(parts, self.weights, strict=True)
        ]
        made = np.concatenate(sums, axis=1) * (self.scale * self.steps)
        made = (made if bias is None else made + bias).astype(np.float32).reshape(*shape, -1)
        return np.moveaxis(made, -1, 1) if self.window else made


@dataclass(frozen=True)
class Window:
    """How a convolution moves: one number a spatial axis; `pads` are (before, after) pairs."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    def rows(
        self, values: NDArray[np.uint8], zero: int, groups: int
    ) -> tuple[list[NDArray[np.uint8]], tuple[int, ...]]:
        """For each group the patches, (batch * positions, taps * channels), and (batch, positions
        along each axis)."""
        batch, channels = values.shape[:2]
        padded = np.pad(values, ((0, 0), (0, 0), *self.pads), constant_values=zero)
        axes = len(self.kernel)
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        windows = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + axes)))
        moves = tuple(slice(None, None, stride) for stride in self.strides)
        taps = tuple(slice(None, None, dilation) for dilation in self.dilations)
        windows = windows[(slice(None), slice(None), *moves, *taps)]
        places = windows.shape[2 : 2 + axes]
        # (batch, positions, taps, channels)
        turned = np.moveaxis(windows, 1, -1)
        width = channels // groups
        return [
            np.ascontiguousarray(turned[..., index * width : (index + 1) * width]).reshape(
                batch * int(np.prod(places)), -1
            )
            for index in range(groups)
        ], (batch, *places)


def find_products(graph: onnx.ModelProto) -> list[Product]:
    """The products of a QDQ graph that its runtime may compute in 8-bit integers."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    unpacked = {
        node.output[0]: node for node in graph.graph.node if node.op_type == "DequantizeLinear"
    }
    found = (_product(node, unpacked, held) for node in graph.graph.node)
    return [each for each in found if each is not None]


def _product(
    node: onnx.NodeProto,
    unpacked: Mapping[str, onnx.NodeProto],
    held: Mapping[str, NDArray[Any]],
) -> Product | None:
    if node.op_type not in ("Conv", "Gemm", "MatMul") or not set(node.input[:2]) <= set(unpacked):
        return None
    source, weight = (unpacked[name] for name in node.input[:2])
    if source.input[0] in held or weight.input[0] not in held:
        return None
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    values, zero = held[weight.input[0]], _zero(source, held)
    plain = attributes.get("alpha", 1.0) == 1.0 == attributes.get("beta", 1.0)
    plain &= not attributes.get("transA") and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
    if values.dtype != np.int8 or _zero(weight, held).any() or zero.itemsize != 1 or not plain:
        return None
    window, weights = None, values
    if node.op_type == "Conv":
        window = _window(values.shape[2:], attributes)
        # (outputs, channels, taps) to (groups, taps * channels, outputs of a group)
        groups = attributes.get("group", 1)
        apart = np.moveaxis(values, 1, -1).reshape(groups, len(values) // groups, -1)
        weights = apart.transpose(0, 2, 1)
    elif values.ndim != 2:
        return None
    else:
        weights = (values.T if attributes.get("transB") else values)[None]
    columns = weights.shape[0] * weights.shape[2]
    return Product(
        name=node.name,
        given=source.input[0],
        made=node.output[0],
        scale=float(held[source.input[1]]),
        zero=int(zero),
        weights=weights,
        steps=np.broadcast_to(held[weight.input[1]], (columns,)).astype(np.float32),
        bias=(node.input[2] or None) if len(node.input) > 2 else None,
        window=window,
    )


def _zero(node: onnx.NodeProto, held: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The zero point of a DequantizeLinear; without one it is zero in uint8."""
    return held[node.input[2]] if len(node.input) > 2 else np.zeros((), np.uint8)


def _window(kernel: tuple[int, ...], attributes: Mapping[str, Any]) -> Window:
    axes = len(kernel)
    pads = attributes.get("pads", [0] * 2 * axes)
    return Window(
        kernel=kernel,
        strides=tuple(attributes.get("strides", [1] * axes)),
        dilations=tuple(attributes.get("dilations", [1] * axes)),
        pads=tuple(zip(pads[:axes], pads[axes:], strict=True)),
    )
