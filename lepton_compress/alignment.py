"""The layout of a quantised graph for the integer kernels of ONNX Runtime on x86.

It belongs to the ONNX artifact and not to the model: other runtimes would compute the padding.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lepton_compress.provenance import cpu, is_x86

ALIGNMENT = 4
"""Channels that ONNX Runtime's direct int8 convolution on x86 takes at a time. A convolution over
another number of channels copies its patches first, which may take longer than the products."""


def laid_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph as ONNX Runtime on this processor computes it fastest; a copy, where that is not
    the graph as it is."""
    if not is_x86(cpu()):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made if align_channels(made) else model


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
        zero = held.get(taken.input[2]) if taken is not None else None
        groups = next((each.i for each in node.attribute if each.name == "group"), 1)
        if groups != 1 or not missing or values.dtype != np.int8:
            continue
        if zero is None or zero.data_type != onnx.TensorProto.UINT8:
            continue  # only the kernels for unsigned activations take channels in fours
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
