"""Facts of an ONNX file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress import graph
from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.inspect.weights_file import add
from lepton_compress.load.forms import spec
from lepton_compress.load.model import external_files, read_onnx_file
from lepton_compress.overviews import Held, Inspection, ModuleRow

if TYPE_CHECKING:
    import onnx

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_BITS = re.compile(r"(?:u?int|float)([24])(?:e\d.*)?")
"""Element types of which several share a byte."""


def inspect_onnx(path: Path) -> Inspection:
    """What an ONNX file holds and computes.

    Raises:
        InputError: it is not a valid ONNX model, or its external data is missing or elsewhere.
    """
    beside = external_files(path)
    model = read_onnx_file(path)
    constant = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in constant]
    macs = _macs(model)
    return Inspection(
        subject=str(path),
        kind="onnx",
        bytes=sum(file.stat().st_size for file in [path, *beside]),
        about=_about(model, beside),
        inputs=tuple(_spec(value) for value in given),
        outputs=tuple(_spec(value) for value in model.graph.output),
        operators=_operators(model, path),
        weights=initialisers(model),
        parameters=graph.parameter_count(model),
        macs=macs,
        modules=tuple(_nodes(model)),
        notes=tuple(_notes(given, macs)),
    )


def initialisers(model: onnx.ModelProto) -> dict[str, Held]:
    """Element type to the tensors that an ONNX graph stores; bytes are those of the numbers."""
    import onnx

    found: dict[str, Held] = {}
    for tensor in model.graph.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        packed = _BITS.fullmatch(dtype.name)
        bits = int(packed[1]) if packed else 8 * dtype.itemsize
        numbers = math.prod(tensor.dims)
        found[dtype.name] = add(found.get(dtype.name), numbers, math.ceil(numbers * bits / 8))
    return dict(sorted(found.items()))


def _nodes(model: onnx.ModelProto) -> Iterator[ModuleRow]:
    """The nodes that compute, by the names that steps know them by, with their own parameters."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    unpacked = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    for node in model.graph.node:
        if node.op_type in _QUANTIZERS:
            continue
        # Integers that nothing unpacks are shapes and indices.
        own = [
            stored[unpacked.get(name, name)]
            for name in node.input
            if unpacked.get(name, name) in stored
            and (name in unpacked or _is_float(stored[name].data_type))
        ]
        numbers = sum(math.prod(tensor.dims) for tensor in own)
        yield ModuleRow(node.name, node.op_type, numbers, None)


def _is_float(data_type: int) -> bool:
    import onnx

    return "float" in onnx.helper.tensor_dtype_to_np_dtype(data_type).name


def _about(model: onnx.ModelProto, beside: list[Path]) -> dict[str, str]:
    opsets = {each.domain or "ai.onnx": each.version for each in model.opset_import}
    about = {
        "format": f"ONNX, IR version {model.ir_version}",
        "opset": ", ".join(f"{domain} {version}" for domain, version in sorted(opsets.items())),
        "producer": f"{model.producer_name} {model.producer_version}".strip() or "not named",
    }
    if beside:
        about["external data"] = ", ".join(file.name for file in beside)
    return about


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    # Sequences, maps and optional values have neither an element type nor a shape.
    if kind != "tensor_type" or not value.type.tensor_type.elem_type:
        return TensorSpec(value.name, (kind or "unknown").removesuffix("_type"), ())
    return spec(value)


def _operators(model: onnx.ModelProto, path: Path) -> dict[str, dict[str, int]]:
    import onnx

    try:
        return graph.operators(model)
    except onnx.shape_inference.InferenceError as error:
        said = str(error).strip().split("\n")[0]
        raise InputError(
            f"its shapes contradict each other ({said})", where=str(path), mend="export it again"
        ) from error


def _macs(model: onnx.ModelProto) -> int | None:
    try:
        return graph.multiply_accumulates(model)
    except (IndexError, KeyError, ValueError):  # a malformed node; the count is only a fact less
        return None


def _notes(given: list[onnx.ValueInfoProto], macs: int | None) -> list[str]:
    notes = []
    if macs is None:
        notes.append("MACs are unknown: a shape that is needed is not known")
    for value in given:
        shape = _spec(value).shape
        if shape and isinstance(shape[0], int):
            notes.append(
                f"the input {value.name} has the fixed batch {shape[0]}: a recipe needs a dynamic "
                "first dimension"
            )
    return notes
