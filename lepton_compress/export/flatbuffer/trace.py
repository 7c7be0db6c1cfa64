"""An ONNX model at a fixed batch, by running it once: every shape is what came out, and what only
depends on constants and shapes is a constant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from lepton_compress.errors import InputError
from lepton_compress.export.flatbuffer.graph import Graph, Node, Quantized, refuse

_SHAPES = {"Shape", "Size"}
_WIDE = {"float16": "float32", "bfloat16": "float32", "float64": "float32"}
_HALVES = ("float16", "bfloat16")
_DOMAINS = {"", "ai.onnx", "com.microsoft"}


def trace(model: onnx.ModelProto, batch: int, format: str = "LiteRT") -> Graph:
    """The graph at a batch, for a format that errors name.

    Raises:
        InputError: another dimension than the batch is open, an operator works on more than
            tensors, or ONNX Runtime cannot run the graph.
    """
    fixed = _fixed(model, batch, format)
    graph = fixed.graph
    nodes = [_node(each, format) for each in graph.node]
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    inputs = tuple(each.name for each in graph.input if each.name not in constants)
    values = _run(fixed, nodes, inputs) | constants
    made = Graph(
        nodes,
        inputs,
        tuple(each.name for each in model.graph.output),
        {name: tuple(value.shape) for name, value in values.items()},
        {name: _WIDE.get(value.dtype.name, value.dtype.name) for name, value in values.items()},
        {name: _widened(value) for name, value in constants.items()},
    )
    made.halves = {name for name, value in constants.items() if value.dtype.name in _HALVES}
    made.borders = {name: values[name].dtype.name for name in (*made.inputs, *made.outputs)}
    _fold(made, values)
    return made


def _node(given: onnx.NodeProto, format: str) -> Node:
    name = given.name or (given.output[0] if given.output else given.op_type)
    made = Node(given.op_type, name, tuple(given.input), tuple(given.output))
    if given.domain not in _DOMAINS:
        raise refuse(made, f"it belongs to the domain {given.domain}", format=format)
    attributes: dict[str, Any] = {}
    for each in given.attribute:
        value = helper.get_attribute_value(each)
        if isinstance(value, onnx.GraphProto):
            raise refuse(made, "it holds graphs of its own", format=format)
        if isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        attributes[each.name] = value.decode() if isinstance(value, bytes) else value
    return replace(made, attributes=attributes)


def _fixed(model: onnx.ModelProto, batch: int, format: str) -> onnx.ModelProto:
    """A copy whose inputs have that batch, and whose values all come out."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    constant = {each.name for each in made.graph.initializer}
    given = [value for value in made.graph.input if value.name not in constant]
    shapes = [value.type.tensor_type.shape.dim for value in given]
    batches = {shape[0].dim_param for shape in shapes if shape} - {""}
    for value in given:
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                continue
            if place and dim.dim_param not in batches:
                raise InputError(
                    f"axis {place} of input {value.name} has no fixed size"
                    f" ({dim.dim_param or 'unnamed'}), which {format}'s shapes need",
                    where="model",
                    mend="export the model with that size fixed; only the batch may be open",
                )
            dim.dim_value = batch
    del made.graph.value_info[:]
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    known = {value.name for value in made.graph.output}
    names = [name for node in made.graph.node for name in node.output if name and name not in known]
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return made


def _run(model: onnx.ModelProto, nodes: list[Node], inputs: tuple[str, ...]) -> dict[str, Any]:
    """Every value of the graph for zeros."""
    feeds = {}
    for value in model.graph.input:
        if value.name in inputs:
            kind = value.type.tensor_type
            shape = [dim.dim_value for dim in kind.shape.dim]
            feeds[value.name] = np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in session.get_outputs()]
        made = session.run(names, feeds)
    except Exception as error:  # the runtime raises what its C++ side gives it
        raise InputError(
            f"ONNX Runtime cannot run it at this batch: {error}", where="model"
        ) from error
    for name, value in zip(names, made, strict=True):
        if not isinstance(value, np.ndarray):
            node = next(each for each in nodes if name in each.outputs)
            raise InputError(f"{node.type} gives no tensor", where=f"node {node.name}")
    return feeds | dict(zip(names, made, strict=True))


def _fold(graph: Graph, values: dict[str, Any]) -> None:
    """Take out nodes whose outputs are known; integers that stand for constants stay integers."""
    kept = []
    for node in graph.nodes:
        given = [name for name in node.inputs if name]
        known = all(name in graph.constants for name in given)
        if node.type in _SHAPES or (known and not node.type.startswith("Random")):
            for name in filter(None, node.outputs):
                graph.constants[name] = _widened(values[name])
            if node.type == "Cast" and node.inputs[0] in graph.halves:
                graph.halves.add(node.outputs[0])
            if node.type == "DequantizeLinear" and known:
                held = _integers(node, graph)
                if held is not None:
                    graph.quantized[node.outputs[0]] = held
        else:
            kept.append(node)
    graph.keep(kept)


def _integers(node: Node, graph: Graph) -> Quantized | None:
    """The integers behind a constant, unless they come in blocks."""
    integers, scale = (graph.constants[name] for name in node.inputs[:2])
    if node.get("block_size", 0):
        return None
    zero = graph.constants.get(node.input(2), np.zeros(scale.shape, integers.dtype))
    axis = None if scale.size == 1 else int(node.get("axis", 1)) % integers.ndim
    if axis is None:
        scale, zero = scale.reshape(()), zero.reshape(())
    return Quantized(integers, scale.astype(np.float32), zero, axis)


def _widened(value: np.ndarray) -> np.ndarray:
    return value.astype(_WIDE.get(value.dtype.name, value.dtype))
