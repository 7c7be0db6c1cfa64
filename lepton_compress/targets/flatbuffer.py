"""The operators of a .tflite file, read with the accessors that a runtime's package brings.

Source: the LiteRT schema, `schema.fbs`; every package generates the same accessors from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lepton_compress import layers
from lepton_compress.errors import InputError

_MARK = b"TFL3"
_CUSTOM = 32
"""The number of an operator that is named by its custom code."""
_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16"}
_TYPES |= {9: "int8", 10: "float64", 15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16"}
"""Element types by their numbers in the schema."""
_PLACEHOLDER = 127
"""Numbers from here on stand in the wider field alone."""


@dataclass(frozen=True)
class Operator:
    """An operator of the main graph.

    Attributes:
        type: its name in the schema, or its custom code.
        name: of the tensor that it gives.
        edge: whether it does nothing but convert a model's input or output.
        layer: the node of the user's model that it computes; empty where that is not known.
        dtype: element type of the tensor that it gives.
    """

    type: str
    name: str
    edge: bool = False
    layer: str = ""
    dtype: str = ""

    @property
    def place(self) -> str:
        """What to call the place where it stands."""
        return self.layer or self.name


def operators(path: Path, model: Any, builtin: Any) -> list[Operator]:
    """The operators of a file's main graph, in order.

    Args:
        path: the file.
        model: the accessor class `Model`.
        builtin: the class `BuiltinOperator`, whose attributes are numbers.

    Raises:
        InputError: it is no LiteRT model, or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if data[4:8] != _MARK:
        raise InputError("is no LiteRT model", where=str(path), mend="give a .tflite file")
    try:
        found: list[Operator] = list(_operators(model.GetRootAs(data, 0), builtin))
    except Exception as error:  # accessors run into whatever stands there
        raise InputError("is a damaged LiteRT model", where=str(path)) from error
    if not found:
        raise InputError("holds no operators", where=str(path))
    nodes = layers.named(path, ((each.type, each.name) for each in found))
    return [replace(each, layer=nodes.get(each.name, "")) for each in found]


def _operators(model: Any, builtin: Any) -> Any:
    names = {number: name for name, number in vars(builtin).items() if isinstance(number, int)}
    graph = model.Subgraphs(0)
    takes = {graph.Inputs(each) for each in range(graph.InputsLength())}
    gives = {graph.Outputs(each) for each in range(graph.OutputsLength())}
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        number = code.DeprecatedBuiltinCode()
        number = max(number, code.BuiltinCode()) if number in (0, _PLACEHOLDER) else number
        kind = names.get(number, str(number))
        if number == _CUSTOM:
            kind = (code.CustomCode() or b"CUSTOM").decode(errors="replace")
        out = operator.Outputs(0)
        outer = operator.Inputs(0) in takes if kind == "QUANTIZE" else out in gives
        yield Operator(
            kind,
            (graph.Tensors(out).Name() or b"").decode(errors="replace"),
            edge=kind in ("QUANTIZE", "DEQUANTIZE") and outer,
            dtype=_TYPES.get(graph.Tensors(out).Type(), ""),
        )
