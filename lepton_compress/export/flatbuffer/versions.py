"""The version of an operator that a file must ask for: the first one whose kernel computes it.

From TensorFlow's table of operator versions (`tools/versioning/op_version.cc`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INT8_AND_INT16 = {
    "ADD",
    "AVERAGE_POOL_2D",
    "BATCH_MATMUL",
    "CONCATENATION",
    "GREATER_EQUAL",
    "LESS",
    "LOGISTIC",
    "MAX_POOL_2D",
    "MEAN",
    "MIRROR_PAD",
    "PACK",
    "PAD",
    "PADV2",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "RELU",
    "RELU6",
    "RSQRT",
    "SOFTMAX",
    "TANH",
}
_INT8 = {
    "ABS",
    "ARG_MAX",
    "ARG_MIN",
    "DEPTH_TO_SPACE",
    "EQUAL",
    "EXP",
    "GATHER",
    "GELU",
    "GREATER",
    "L2_NORMALIZATION",
    "LESS_EQUAL",
    "LOG",
    "LOG_SOFTMAX",
    "MAXIMUM",
    "MINIMUM",
    "MUL",
    "NOT_EQUAL",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "SLICE",
    "SPACE_TO_DEPTH",
    "SPLIT",
    "SPLIT_V",
    "SQRT",
    "SQUARED_DIFFERENCE",
    "STRIDED_SLICE",
    "SUB",
    "SUM",
    "TOPK_V2",
    "TRANSPOSE",
    "TRANSPOSE_CONV",
}
_INT16 = {"GATHER": 4, "SLICE": 4, "SUB": 5, "TRANSPOSE": 5, "RESIZE_BILINEAR": 4, "SPLIT": 4}
_INT16 |= {"RESIZE_NEAREST_NEIGHBOR": 4, "MAXIMUM": 4, "MINIMUM": 4, "MUL": 4, "ABS": 3}
_INT16 |= {"LEAKY_RELU": 2, "EQUAL": 5, "NOT_EQUAL": 4, "TOPK_V2": 3, "EXP": 2, "LOG": 2}
_BASE = {"BROADCAST_TO": 2}
_BOOL = {"GATHER": 3, "TRANSPOSE": 3, "STRIDED_SLICE": 3, "PAD": 5, "PADV2": 5}
_WIDE = {"SUB": 3, "MAXIMUM": 3, "MINIMUM": 3, "DIV": 2, "SLICE": 5, "TRANSPOSE": 4, "PAD": 4}
_WIDE |= {"PADV2": 4, "STRIDED_SLICE": 4}
"""With more than four axes."""


def version(
    name: str,
    dtypes: Sequence[str],
    made: Sequence[str],
    *,
    rank: int = 0,
    per_channel: bool = False,
    options: Any = None,
) -> int:
    """The version of an operator.

    Args:
        name: as LiteRT's schema has it.
        dtypes, made: element types of its inputs and outputs, empty for one that is not given.
        rank: most axes that an input has.
        per_channel: whether its second input has a scale for each channel.
        options: its options.
    """
    special = _WEIGHTED.get(name)
    if special is not None:
        return int(special(dtypes, per_channel, options))
    first = dtypes[1] if name == "SPLIT" else dtypes[0] if dtypes else ""
    found = _BASE.get(name, 1)
    if first == "int8" and name in _INT8 | _INT8_AND_INT16:
        found = 2
    if first == "int16":
        found = 3 if name in _INT8_AND_INT16 else _INT16.get(name, found)
    if first == "int32":
        found = {"SPLIT": 3, "ABS": 5, "SIGN": 2}.get(name, found)
    if first == "bool":
        found = _BOOL.get(name, found)
    if rank > 4:
        found = max(found, _WIDE.get(name, 1))
    return max(found, _further(name, dtypes, made, options))


def _further(name: str, dtypes: Sequence[str], made: Sequence[str], options: Any) -> int:
    """What some operators need beside."""
    if name == "TILE" and dtypes[0] == "int8":
        return 3
    if name == "BROADCAST_TO" and dtypes[0] in ("int8", "int16"):
        return 3
    if name in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR") and options.halfPixelCenters:
        return 3
    if name == "CAST":
        return {"uint32": 2, "int8": 3, "uint16": 4, "float16": 5}.get(
            dtypes[0], {"int8": 3, "uint16": 4}.get(made[0], 1)
        )
    if name == "QUANTIZE" and made[0] == "int16":
        return 2
    return 1


def _convolution(dtypes: Sequence[str], per_channel: bool, options: Any) -> int:
    if dtypes[0] == dtypes[1] == "int8":
        return 3
    if dtypes[0] == "float32" and dtypes[1] == "int8":
        return 5 if per_channel else 2
    return 4 if dtypes[0] == "int16" else 1


def _depthwise(dtypes: Sequence[str], per_channel: bool, options: Any) -> int:
    if dtypes[0] == dtypes[1] == "int8":
        return 3
    if dtypes[0] == "float32" and dtypes[1] == "int8":
        return 6 if per_channel else 4
    dilated = (options.dilationWFactor, options.dilationHFactor) != (1, 1)
    return 5 if dtypes[0] == "int16" else 2 if dilated else 1


def _dense(dtypes: Sequence[str], per_channel: bool, options: Any) -> int:
    if dtypes[0] == "float32" and dtypes[1] == "int8":
        return 12 if per_channel else 9 if options.asymmetricQuantizeInputs else 3
    if dtypes[0] == "int16":
        return 7
    if len(dtypes) < 3 or not dtypes[2]:
        return 6
    return 5 if options.keepNumDims else 4 if dtypes[0] == "int8" else 1


def _recurrent(dtypes: Sequence[str], per_channel: bool, options: Any) -> int:
    return 2 if dtypes[2] == "int8" else 1


def _transposed(dtypes: Sequence[str], per_channel: bool, options: Any) -> int:
    if options.fusedActivationFunction:
        return 4
    return 3 if len(dtypes) > 3 else 2 if dtypes[1] == "int8" else 1


def _dequantize(dtypes: Sequence[str], per_channel: bool, options: Any) -> int:
    if dtypes[0] in ("int16", "float16"):
        return 3
    return (5 if per_channel else 2) if dtypes[0] == "int8" else 1


_WEIGHTED = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _dequantize,
    "FULLY_CONNECTED": _dense,
    "TRANSPOSE_CONV": _transposed,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent,
}
