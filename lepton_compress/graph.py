"""Facts read off an ONNX graph: operators by element type, parameters, multiply-accumulates."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from lepton_compress.artifacts import TensorSpec

if TYPE_CHECKING:
    import onnx

_RECURRENT = ("GRU", "LSTM", "RNN", "DynamicQuantizeLSTM")
_CONVOLUTIONS = ("Conv", "ConvInteger")
_COUNTED = (*_CONVOLUTIONS, "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", *_RECURRENT)
_UNCOUNTED = {"Attention", "Einsum", "GroupQueryAttention", "MultiHeadAttention", "QAttention"}
_UNCOUNTED |= {"DeformConv", "QLinearConv", "QLinearMatMul"}
"""They multiply, too, but how often is not worked out here."""
_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")
_BYTES = ("INT8", "UINT8")
_INTEGERS = (*_BYTES, "INT4", "UINT4", "INT16", "UINT16", "INT32")

_QUANTIZED: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "ConvInteger": ((1,), (2, 3)),
    "DequantizeLinear": ((0,), (1, 2)),
    "DynamicQuantizeLSTM": ((1, 2), (8, 9, 10, 11)),
    "MatMulInteger": ((1,), (2, 3)),
    "MatMulNBits": ((), (1, 2, 3, 4)),
    "QAttention": ((1,), (3, 4, 6, 7)),
    "QLinearConv": ((3, 8), (1, 2, 4, 5, 6, 7)),
    "QLinearMatMul": ((3,), (1, 2, 4, 5, 6, 7)),
    "QuantizeLinear": ((0,), (1, 2)),
}
"""Operator to the inputs that may be weights as integers, and those that are scales, zero points
or packed otherwise."""
Shape = tuple[int | str, ...]


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every value has a type, as far as shape inference reaches."""
    import onnx

    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def value_specs(model: onnx.ModelProto) -> dict[str, TensorSpec]:
    """Name to element type and shape of every value that is known, initialisers included."""
    import onnx

    from lepton_compress.load.forms import spec

    inferred = infer_shapes(model).graph
    known = [*inferred.value_info, *inferred.input, *inferred.output]
    found = {value.name: spec(value) for value in known if value.type.HasField("tensor_type")}
    for tensor in inferred.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        found[tensor.name] = TensorSpec(tensor.name, dtype, tuple(tensor.dims))
    return found


def operators(model: onnx.ModelProto) -> dict[str, dict[str, int]]:
    """Operator type to element type of its first output to how many there are."""
    specs = value_specs(model)
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for node in model.graph.node:
        name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
        known = specs.get(node.output[0]) if node.output else None
        counted[name][known.dtype if known else "?"] += 1
    return {name: dict(sorted(counts.items())) for name, counts in sorted(counted.items())}


def integers(model: onnx.ModelProto) -> bool:
    """Whether anything in it is quantised."""
    kinds = {*_QUANTIZED, "DynamicQuantizeLinear"}
    return any(node.op_type in kinds for node in model.graph.node)


def parameter_count(model: onnx.ModelProto) -> int:
    """Numbers that training found: scales, zero points and shapes are not among them."""
    import onnx

    nodes = model.graph.node
    weights, steps = set[str](), set[str]()
    for node in nodes:
        held, others = _QUANTIZED.get(node.op_type, ((), ()))
        given = dict(enumerate(node.input))
        weights |= {given[place] for place in held if place in given}
        steps |= {given[place] for place in others if place in given}
    tables = {node.input[0] for node in nodes if node.op_type == "Gather"}
    # Where activations are quantised at run time, their scale is multiplied by the weight's.
    scales = {node.output[1] for node in nodes if node.op_type == "DynamicQuantizeLinear"}
    for node in nodes:
        if node.op_type == "Mul" and scales & set(node.input):
            steps |= set(node.input)
    count = sum(_blocked_size(node) for node in nodes if node.op_type == "MatMulNBits")
    for tensor in model.graph.initializer:
        kind, name = onnx.TensorProto.DataType.Name(tensor.data_type), tensor.name
        packed = (name in weights and kind in _INTEGERS) or (name in tables and kind in _BYTES)
        if name not in steps and (packed or kind in _FLOATS):
            count += math.prod(tensor.dims)
    return count


def multiply_accumulates(model: onnx.ModelProto) -> int | None:
    """Multiply-accumulates of one sample in convolutions, matrix products and recurrent layers;
    None where a shape that is needed is not known."""
    counts = macs_by_node(model)
    return None if None in counts else sum(each for each in counts if each is not None)


def macs_by_node(model: onnx.ModelProto) -> list[int | None]:
    """Multiply-accumulates of one sample in each node, in the order of the graph; 0 for nodes that
    do not multiply, None where that is not known."""
    specs = value_specs(_one_sample(model))
    return [_macs(node, specs) for node in model.graph.node]


def _macs(node: onnx.NodeProto, specs: dict[str, TensorSpec]) -> int | None:
    if node.op_type == "MatMulNBits":
        # Shape inference does not know the operator.
        rows = _rows_of(node, specs)
        return None if rows is None else rows * _blocked_size(node)
    if node.op_type in _UNCOUNTED:
        return None
    if node.op_type not in _COUNTED:
        return 0
    needed = node.input[: 3 if node.op_type in _RECURRENT else 2]
    given = [specs[name].shape for name in needed if name in specs]
    made = next((specs[name].shape for name in node.output if name in specs), None)
    if len(given) < len(needed) or (made is None and node.op_type not in _RECURRENT):
        return None
    return _node_macs(node, given, made or ())


def _one_sample(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose batch, the first dimension of its inputs, is one; then every shape that only
    depends on the batch is a number."""
    copy = type(model)()
    copy.CopyFrom(model)
    graph = copy.graph
    constant = {tensor.name for tensor in graph.initializer}
    dims = [value.type.tensor_type.shape.dim for value in graph.input if value.name not in constant]
    batch = {each[0].dim_param for each in dims if each and each[0].dim_param}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in batch:
                dim.dim_value = 1
    return copy


def _blocked_size(node: onnx.NodeProto) -> int:
    """Weights of a MatMulNBits node: its inputs by its outputs."""
    given = {each.name: int(each.i) for each in node.attribute}
    return given["K"] * given["N"]


def _rows_of(node: onnx.NodeProto, specs: dict[str, TensorSpec]) -> int | None:
    known = specs.get(node.input[0])
    return _product(list(known.shape[:-1])) if known else None


def _node_macs(node: onnx.NodeProto, given: list[Shape], made: Shape) -> int | None:
    left, right = given[:2]
    if node.op_type in _CONVOLUTIONS:
        return _product([*made, *right[1:]])  # one weight column for each output element
    if node.op_type == "ConvTranspose":
        return _product([*left, *right[1:]])
    if node.op_type in _RECURRENT:
        steps, weights = _product(list(left[:2])), [_product(list(each)) for each in given[1:3]]
        if steps is None or None in weights:
            return None
        return steps * sum(each for each in weights if each is not None)
    transposed = any(each.name == "transB" and each.i for each in node.attribute)
    inner = right[-1] if transposed else right[-2] if len(right) > 1 else right[0]
    return _product([*made, inner])


def _product(dims: list[int | str]) -> int | None:
    sizes = [dim for dim in dims if isinstance(dim, int)]
    return math.prod(sizes) if len(sizes) == len(dims) else None
