"""A graph without the rounding of its activations, for comparisons.

The last bits of a sum, which depend on how much is computed at once, can turn the rounding of an
integer model; dynamic quantisation rounds each call by its own range; and where float16 is computed
in float32, what is rounded is the runtime's choice. Weights stay what they are, in float32.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Model
from lepton_compress.export.rewriting import attributes, copied, put
from lepton_compress.load import forms
from lepton_compress.targets.frames import METADATA

ROUNDING = {"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "QuantizeLinear"}
_HEAD = 8
"""Inputs of an LSTM; those behind them are scales and zero points of weights."""


def rounds(graph: onnx.ModelProto) -> bool:
    """Whether a graph rounds activations."""
    return any(node.op_type in ROUNDING or _halves(node) for node in graph.graph.node)


def unrounded(model: Model) -> Model:
    """A copy of a graph that computes in float with its quantised weights; the model itself if it
    rounds nothing."""
    if not rounds(model.value):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model.value)
    graph = made.graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    passed: dict[str, str] = {}  # what a quantiser gives to the float value behind it
    dynamic = set[str]()
    nodes, added = list[onnx.NodeProto](), dict[str, Any]()
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in held:
            passed[node.output[0]] = f"{node.output[0]}/clipped"
            nodes.append(_clip(node, held, added))
        elif node.op_type == "DequantizeLinear" and node.input[0] in passed:
            nodes.append(_identity(passed[node.input[0]], node))
        elif node.op_type == "DynamicQuantizeLinear":
            dynamic.add(node.output[0])
            nodes.append(_identity(node.input[0], node))
            added[node.output[1]] = np.array(1, np.float32)
            added[node.output[2]] = np.array(0, np.uint8)
        elif node.op_type == "MatMulInteger" and node.input[0] in dynamic and node.input[1] in held:
            weight = held[node.input[1]].astype(np.float32)
            zero = held[node.input[3]].astype(np.float32) if len(node.input) > 3 else np.float32(0)
            added[f"{node.output[0]}/weight"] = weight - zero
            inputs = [node.input[0], f"{node.output[0]}/weight"]
            nodes.append(helper.make_node("MatMul", inputs, node.output, node.name))
        elif node.op_type == "DynamicQuantizeLSTM":
            nodes.append(_float_lstm(node, held, added))
        else:
            nodes.append(node)
    left = [copied(each) for each in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(left)
    graph.initializer.extend(numpy_helper.from_array(each, name) for name, each in added.items())
    _widen(made)
    return Model("graph", made, *forms.signature(made))


def _identity(name: str, node: onnx.NodeProto) -> onnx.NodeProto:
    return helper.make_node("Identity", [name], node.output[:1], node.name)


def _clip(node: onnx.NodeProto, held: Any, added: Any) -> onnx.NodeProto:
    """To the range that a quantiser can tell, which may stand for a Relu."""
    name = f"{node.output[0]}/clipped"
    scale = held.get(node.input[1])
    zero = held.get(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size != 1:
        return helper.make_node("Identity", node.input[:1], [name], node.name)
    ends = np.iinfo(zero.dtype)
    bounds = []
    for end in (ends.min, ends.max):
        bounds.append(f"{name}/{end}")
        added[bounds[-1]] = (
            ((end - zero.astype(np.float32)) * scale).reshape(()).astype(scale.dtype)
        )
    return helper.make_node("Clip", [node.input[0], *bounds], [name], node.name)


def _float_lstm(node: onnx.NodeProto, held: Any, added: Any) -> onnx.NodeProto:
    """Its weights lie (directions, inputs, 4 hidden), an LSTM's the other way round; there is a
    scale for each direction, or for each column too."""
    made = copied(node)
    made.op_type, made.domain = "LSTM", ""
    for place, name in enumerate(("W", "R")):
        weight, scale, zero = (
            held[node.input[index]].astype(np.float32)
            for index in (1 + place, _HEAD + 2 * place, _HEAD + 1 + 2 * place)
        )
        scale, zero = (each.reshape(len(weight), 1, -1) for each in (scale, zero))
        added[f"{node.name}/{name}"] = ((weight - zero) * scale).transpose(0, 2, 1).copy()
        made.input[1 + place] = f"{node.name}/{name}"
    del made.input[_HEAD:]
    return made


def _halves(node: onnx.NodeProto) -> bool:
    """Whether a node brings what it takes to float16."""
    return node.op_type == "Cast" and attributes(node)["to"] == TensorProto.FLOAT16


def _widen(model: onnx.ModelProto) -> None:
    """Compute in float32 what is computed in float16, states included; other inputs of that type
    would have to be fed otherwise, so that such a graph is left as it is."""
    graph, half = model.graph, TensorProto.FLOAT16
    held = next((each for each in model.metadata_props if each.key == METADATA), None)
    about = json.loads(held.value) if held else {"states": [], "outputs": []}
    states = {each["input"] for each in about["states"]}
    own = [value for value in graph.input if value.name not in states]
    if any(value.type.tensor_type.elem_type == half for value in own):
        return
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type == half:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for node in graph.node:
        if _halves(node):
            put(node, "to", TensorProto.FLOAT)
    for each in [*about["states"], *about["outputs"]]:
        each["dtype"] = "float32" if each["dtype"] == "float16" else each["dtype"]
    if held is not None:
        held.value = json.dumps(about, sort_keys=True)
