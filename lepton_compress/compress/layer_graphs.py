"""A small ONNX graph of a single layer, to be timed in a runtime."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.compress.layer_shapes import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Feeds = dict[str, NDArray[np.float32]]

_OPSET, _IR = 20, 10


def nothing() -> tuple[onnx.ModelProto, Feeds]:
    """A graph that computes next to nothing: what a call costs by itself."""
    return _graph([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 1)}, {})


def graph(shape: Shape) -> tuple[onnx.ModelProto, Feeds]:
    """A layer of that shape with random weights, and inputs for it."""
    held = dict(shape.fixed)
    if shape.kind in ("conv", "depthwise"):
        return _convolution(shape, held)
    if shape.kind == "product":
        inputs, outputs = shape.dims
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        return _graph([node], {"x": (held["rows"], inputs)}, {"w": (inputs, outputs)})
    if shape.kind == "batched":
        batch, rows, inner, columns = shape.dims
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        return _graph([node], {"x": (batch, rows, inner), "w": (batch, inner, columns)}, {})
    return _recurrent(shape, held)


def _convolution(shape: Shape, held: dict[str, Any]) -> tuple[onnx.ModelProto, Feeds]:
    inputs, outputs = shape.dims[0], shape.dims[-1]
    groups = inputs if shape.kind == "depthwise" else held["groups"]
    options = {
        "kernel_shape": held["kernel"],
        "strides": held["stride"],
        "pads": held["padding"] * 2,
        "dilations": held["dilation"],
        "group": groups,
    }
    if held["transposed"]:
        weight = (inputs, outputs // groups, *held["kernel"])
        options["output_padding"] = held["extra"]
    else:
        weight = (outputs, inputs // groups, *held["kernel"])
    name = "ConvTranspose" if held["transposed"] else "Conv"
    nodes = [
        helper.make_node(name, ["x", "w", "b"], ["made"], **options),
        # Nearly every convolution is followed by one, and the runtime makes one of the two.
        helper.make_node("Relu", ["made"], ["y"]),
    ]
    given = (held["batch"], inputs, *held["size"])
    return _graph(nodes, {"x": given}, {"w": weight, "b": (outputs,)})


def _recurrent(shape: Shape, held: dict[str, Any]) -> tuple[onnx.ModelProto, Feeds]:
    inputs, units = shape.dims
    ways, rows = held["directions"], held["gates"] * units
    direction = "bidirectional" if ways == 2 else "forward"
    options: dict[str, Any] = {"hidden_size": units, "direction": direction}
    if shape.kind == "GRU":
        options["linear_before_reset"] = 1
    node = helper.make_node(shape.kind, ["x", "w", "r", "b"], ["y"], **options)
    weights = {"w": (ways, rows, inputs), "r": (ways, rows, units), "b": (ways, 2 * rows)}
    return _graph([node], {"x": (held["steps"], held["batch"], inputs)}, weights)


def _graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, ...]],
    weights: dict[str, tuple[int, ...]],
) -> tuple[onnx.ModelProto, Feeds]:
    value = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    draw = np.random.default_rng(0)

    def numbers(size: tuple[int, ...]) -> NDArray[np.float32]:
        return (0.1 * draw.standard_normal(size)).astype(np.float32)

    made = helper.make_model(
        helper.make_graph(
            nodes,
            "layer",
            [value(name, shape=size) for name, size in inputs.items()],
            [value("y", shape=None)],
            [numpy_helper.from_array(numbers(size), name) for name, size in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
    )
    return made, {name: numbers(size) for name, size in inputs.items()}
