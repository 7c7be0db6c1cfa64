"""The operators of an artifact with the element types that they compute in, whatever its format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress.errors import InputError, MissingExtraError
from lepton_compress.targets import flatbuffer
from lepton_compress.targets.flatbuffer import Operator

if TYPE_CHECKING:
    import onnx

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_ROUNDED_LATER = ("Clip", "LeakyRelu", "Relu")
"""What runtimes compute together with the operator before it."""


def operators(path: Path) -> list[Operator]:
    """The operators of an .onnx or .tflite file, in order.

    Raises:
        InputError: it is neither, or damaged.
        MissingExtraError: LiteRT's schema is not installed.
    """
    if path.suffix == ".onnx":
        return list(_of_graph(path))
    try:
        from ai_edge_litert.schema_py_generated import BuiltinOperator, Model
    except ImportError as error:
        raise MissingExtraError(
            f"reading LiteRT artifacts needs ai-edge-litert ({error})",
            mend="pip install 'lepton-compress[litert]'",
        ) from error
    return flatbuffer.operators(path, Model, BuiltinOperator)


def _of_graph(path: Path) -> list[Operator]:
    """Of a graph; what converts between its integers and floats belongs to its neighbours."""
    import onnx

    from lepton_compress.graph import value_specs

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's exceptions share no base class
        raise InputError("is no ONNX model, or is damaged", where=str(path)) from error
    specs, users = value_specs(model), dict[str, list[onnx.NodeProto]]()
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        if node.op_type not in _CONVERSIONS and node.output:
            spec = specs.get(_rounded(node.output[0], users))
            found.append(Operator(node.op_type, node.name, dtype=spec.dtype if spec else ""))
    return found


def _rounded(value: str, users: dict[str, list[onnx.NodeProto]]) -> str:
    """The value itself, or what it is rounded to by all that take it."""
    taking = users.get(value, [])
    if len(taking) == 1 and taking[0].op_type in _ROUNDED_LATER:
        later = _rounded(taking[0].output[0], users)
        return value if later == taking[0].output[0] else later
    rounds = bool(taking) and all(each.op_type == "QuantizeLinear" for each in taking)
    return taking[0].output[0] if rounds else value
