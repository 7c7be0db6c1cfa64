"""Rewrites that let ONNX Runtime's integer kernels run faster and compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lepton_compress.artifacts import Model, TensorSpec
from lepton_compress.graph import value_specs
from lepton_compress.load.forms import duplicate, signature


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
