"""Whether a kernel computes in integers, and why a node does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_compress.accounts import FOLDED, INT8, WeightAccount
from lepton_compress.explain.wiring import (
    BORDERS,
    DEQUANTIZE,
    QUANTIZE,
    RECURRENT,
    WEIGHTED,
    Wiring,
    output_of,
)

if TYPE_CHECKING:
    import onnx

_INTEGER = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
    }
)
_STORES = ("int8", "uint8")
_POINTWISE = (
    "Add",
    "Clip",
    "LeakyRelu",
    "Max",
    "Min",
    "Mul",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Where",
)
_POOLING = ("AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMean", "Resize")
_MOVING = ("Concat", "Flatten", "Gather", "Pad", "Reshape", "Slice", "Split", "Squeeze")
_KERNELS = frozenset(
    (*WEIGHTED, *_POINTWISE, *_POOLING, *_MOVING, "Transpose", "Unsqueeze", "Where")
)
"""Operators that the runtime can compute on int8, or pass int8 through unchanged."""


def is_integer(operator: str, takes: str) -> bool:
    """Whether a kernel computes in integers.

    Args:
        operator: the runtime's name of it.
        takes: the element type of its first input.
    """
    if operator in BORDERS:
        return False
    return operator in _INTEGER or operator.startswith("QLinear") or takes in _STORES


def why_not(
    wiring: Wiring, node: onnx.NodeProto, precision: str, weight: WeightAccount | None
) -> str:
    """Why a node does not run in int8; empty where it does."""
    if precision == INT8:
        return ""
    if precision == FOLDED:
        return "folded away when the model is loaded"
    if node.op_type in RECURRENT:
        return f"there is no static int8 kernel for {node.op_type}"
    if node.op_type == "BatchNormalization":
        return "not folded into the node before it, and no int8 kernel"
    if node.op_type == "MatMulNBits":
        return "weights alone are quantised, the product is computed from float activations"
    if node.op_type not in _KERNELS:
        return f"there is no int8 kernel for {node.op_type}"
    return _unwrapped(wiring, node, weight)


def _unwrapped(wiring: Wiring, node: onnx.NodeProto, weight: WeightAccount | None) -> str:
    """Of a node that could run in int8: which of its borders is missing."""
    if weight is not None and weight.dtype.startswith("float"):
        return "its weight is float in the file"
    before = wiring.producer.get(node.input[0])
    if before is None or before.op_type != DEQUANTIZE:
        return "its input is not quantised in the file"
    after = wiring.users.get(output_of(node), [])
    if not any(user.op_type == QUANTIZE for user in after):
        return "its output is not quantised in the file"
    pair = wiring.pairs.get(wiring.origin(node.input[0]))
    if pair is not None and pair.dtype.endswith("int16"):
        return "its activations have 16 bits, which CPUs compute in float"
    if pair is not None and pair.dtype == "int8":
        return "its activations are int8, which x86 kernels do not take"
    return "the runtime did not fuse it with its quantise nodes"
