"""Rewrites that let ONNX Runtime's integer kernels run faster and compute the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lepton_compress.artifacts import Model, TensorSpec
from lepton_compress.graph import value_specs
from lepton_compress.load.forms import duplicate, signature

ALIGNMENT = 4
"""Channels that ONNX Runtime's direct int8 convolution on x86 takes at a time. A convolution over
another number of channels copies its patches first, which may take longer than the products."""


def align_channels(quantized: onnx.ModelProto) -> list[str]:
    """Pad the input channels of ungrouped QDQ convolutions to a multiple of `ALIGNMENT`, in place.

    The padding holds the zero point and meets weights of zero, so that every output stays the
    same bit for bit.

    Returns:
        The names of the convolutions.
    """
    graph = quantized.graph
    made = {name: node for node in graph.node for name in node.output}
    held = {tensor.name: tensor for tensor in graph.initializer}
    used = Counter(name for node in graph.node for name in node.input)
    found = []
    for node in [each for each in graph.node if each.op_type == "Conv"]:
        taken, weights = (made.get(name) for name in node.input[:2])
        if not (_dequantizes(taken) and _dequantizes(weights)):
            continue
        tensor = held.get(weights.input[0])  # type: ignore[union-attr]
        if tensor is None or used[tensor.name] > 1 or used[node.input[1]] > 1:
            continue
        values = numpy_helper.to_array(tensor)
        missing = -values.shape[1] % ALIGNMENT
        groups = next((each.i for each in node.attribute if each.name == "group"), 1)
        if groups != 1 or not missing or values.dtype != np.int8:
            continue
        assert taken is not None  # noqa: S101 - it dequantises, as was just seen
        wider = [(0, missing if axis == 1 else 0) for axis in range(values.ndim)]
        tensor.CopyFrom(numpy_helper.from_array(np.pad(values, wider), tensor.name))
        _pad(graph, node, taken, missing, values.ndim)
        found.append(node.name)
    if found:
        # The shapes of the widened weights are others now.
        del graph.value_info[:]
    return found


def _dequantizes(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear" and len(node.input) == 3


def _pad(
    graph: onnx.GraphProto, node: onnx.NodeProto, taken: onnx.NodeProto, missing: int, rank: int
) -> None:
    """Put `missing` channels of the zero point behind those that a convolution takes."""
    pads = np.zeros(2 * rank, np.int64)
    pads[rank + 1] = missing
    name = f"{node.name}/align"
    graph.initializer.append(numpy_helper.from_array(pads, f"{name}_pads"))
    integers, scale, zero = taken.input
    nodes = [
        helper.make_node("Pad", [integers, f"{name}_pads", zero], [f"{name}_integers"], name),
        helper.make_node(
            "DequantizeLinear",
            [f"{name}_integers", scale, zero],
            [f"{name}_values"],
            f"{name}_DequantizeLinear",
        ),
    ]
    node.input[0] = f"{name}_values"
    place = list(graph.node).index(node)
    for each in reversed(nodes):
        graph.node.insert(place, each)


def pool_means(model: Model) -> Model:
    """The graph with GlobalAveragePool in place of means over all of an image, which have no
    integer kernel."""
    specs = value_specs(model.value)
    constants = {each.name: each for each in model.value.graph.initializer}
    if not any(_is_pooling(node, specs, constants) for node in model.value.graph.node):
        return model
    made = duplicate(model).value
    nodes = []
    for node in made.graph.node:
        if not _is_pooling(node, specs, constants):
            nodes.append(node)
            continue
        if _attribute(node, "keepdims", 1):
            nodes.append(
                helper.make_node("GlobalAveragePool", node.input[:1], node.output, node.name)
            )
            continue
        name = f"{node.name}/pooled"
        shape = numpy_helper.from_array(np.array([0, -1], np.int64), f"{name}_shape")
        made.graph.initializer.append(shape)
        nodes.append(helper.make_node("GlobalAveragePool", node.input[:1], [name], node.name))
        nodes.append(helper.make_node("Reshape", [name, shape.name], node.output, name))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return Model("graph", made, *signature(made))


def _is_pooling(
    node: onnx.NodeProto, specs: Mapping[str, TensorSpec], constants: Mapping[str, onnx.TensorProto]
) -> bool:
    """Whether a node is the mean over rows and columns of (batch, channels, rows, columns)."""
    if node.op_type != "ReduceMean":
        return False
    spec = specs.get(node.input[0])
    axes = _attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    if spec is None or axes is None:
        return False
    return len(spec.shape) == 4 and {axis % 4 for axis in axes} == {2, 3}


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for each in node.attribute:
        if each.name == name:
            return helper.get_attribute_value(each)
    return default
