"""Which channels each weight of a layer meets and makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from lepton_compress.compress.facts import attributes


def weight_channels(node: onnx.NodeProto, weight: np.ndarray) -> tuple[Any, Any]:
    """Of a Conv, ConvTranspose, Gemm or MatMul: which channel of the input, and which of the
    output, each weight belongs to; integers that broadcast with the weight."""
    return _CHANNELS[node.op_type](node, weight)


def _gemm_labels(node: onnx.NodeProto, weight: np.ndarray) -> tuple[Any, Any]:
    turned = attributes(node).get("transB", 0)
    inner, outer = np.arange(weight.shape[turned]), np.arange(weight.shape[1 - turned])
    return (inner[None], outer[:, None]) if turned else (inner[:, None], outer[None])


def _conv_labels(node: onnx.NodeProto, weight: np.ndarray) -> tuple[Any, Any]:
    """(outputs, inputs of a group, taps)."""
    outputs, width = weight.shape[:2]
    groups = attributes(node).get("group", 1)
    rows, columns = np.arange(outputs)[:, None], np.arange(width)[None]
    ones = [1] * (weight.ndim - 2)
    inner = rows // (outputs // groups) * width + columns if groups > 1 else columns
    return inner.reshape(*inner.shape, *ones), rows.reshape(outputs, 1, *ones)


def _turned_conv_labels(node: onnx.NodeProto, weight: np.ndarray) -> tuple[Any, Any]:
    """(inputs, outputs of a group, taps)."""
    outer, inner = _conv_labels(node, weight)
    return inner, outer


_CHANNELS = {
    "Conv": _conv_labels,
    "ConvTranspose": _turned_conv_labels,
    "Gemm": _gemm_labels,
    "MatMul": _gemm_labels,
}
