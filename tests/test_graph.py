"""Facts of ONNX graphs against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.graph import multiply_accumulates, operators, parameter_count, value_specs

FLOAT = TensorProto.FLOAT
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("acme", 1)]


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, Any],
    shape: Sequence[int | str],
    *,
    output: str = "y",
    dtype: int = FLOAT,
) -> onnx.ModelProto:
    """A graph from `x` of a shape, its weights ones in the shapes given or the arrays given."""
    arrays = {
        name: np.ones(held, np.float32) if isinstance(held, tuple) else held
        for name, held in weights.items()
    }
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=OPSETS)


def node(kind: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)


IMAGE = ("batch", 3, 8, 8)

CASES = {
    # 16 channels of 8x8 pixels, each from 3 channels of 3x3
    "convolution": (
        model([node("Conv", "x", "w", "b", pads=[1] * 4)], {"w": (16, 3, 3, 3), "b": (16,)}, IMAGE),
        16 * 8 * 8 * 3 * 9,
        16 * 3 * 9 + 16,
    ),
    # of stride 2: a quarter of the pixels
    "strided convolution": (
        model([node("Conv", "x", "w", pads=[1] * 4, strides=[2, 2])], {"w": (16, 3, 3, 3)}, IMAGE),
        16 * 4 * 4 * 3 * 9,
        16 * 3 * 9,
    ),
    "depthwise convolution": (
        model([node("Conv", "x", "w", pads=[1] * 4, group=3)], {"w": (3, 1, 3, 3)}, IMAGE),
        3 * 8 * 8 * 9,
        3 * 9,
    ),
    # every input pixel meets every weight of its channel
    "transposed convolution": (
        model([node("ConvTranspose", "x", "w", strides=[2, 2])], {"w": (3, 5, 2, 2)}, IMAGE),
        3 * 8 * 8 * 5 * 4,
        3 * 5 * 4,
    ),
    "dense layer": (
        model([node("Gemm", "x", "w", "b", transB=1)], {"w": (10, 20), "b": (10,)}, ("n", 20)),
        10 * 20,
        10 * 20 + 10,
    ),
    "dense layer, weights the other way": (
        model([node("Gemm", "x", "w")], {"w": (20, 10)}, ("n", 20)),
        10 * 20,
        200,
    ),
    "dense layer on a sequence": (
        model([node("MatMul", "x", "w")], {"w": (20, 10)}, ("n", 7, 20)),
        7 * 10 * 20,
        200,
    ),
    # two products of (4 heads, 7, 5) by (4 heads, 5, 7) and back
    "attention": (
        model(
            [
                node("Transpose", "x", output="t", perm=[0, 1, 3, 2]),
                node("MatMul", "x", "t", output="s"),
                node("MatMul", "s", "x"),
            ],
            {},
            ("n", 4, 7, 5),
        ),
        2 * 4 * 7 * 7 * 5,
        0,
    ),
    # 9 steps of 3 gates of 6 units, from 4 inputs and 6 states
    "recurrent layer": (
        model(
            [
                node("Transpose", "x", output="t", perm=[1, 0, 2]),
                node("GRU", "t", "w", "r", hidden_size=6),
            ],
            {"w": (1, 18, 4), "r": (1, 18, 6)},
            ("n", 9, 4),
        ),
        9 * (18 * 4 + 18 * 6),
        18 * 4 + 18 * 6,
    ),
    # the batch is folded into the rows of the product: 8 a sample
    "rows that hold the batch": (
        model(
            [node("Reshape", "x", "s", output="r"), node("MatMul", "r", "w")],
            {"s": np.array([-1, 5]), "w": (5, 2)},
            ("n", 8, 5),
        ),
        8 * 5 * 2,
        10,
    ),
    "no product at all": (model([node("Relu", "x")], {}, IMAGE), 0, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_multiply_accumulates_and_parameters(name: str) -> None:
    held, macs, parameters = CASES[name]
    assert multiply_accumulates(held) == macs
    assert parameter_count(held) == parameters


def quantised() -> onnx.ModelProto:
    """A convolution between QDQ nodes, its weights per channel."""
    scales = {name: np.float32(0.1) for name in ("xs", "ys")}
    zeros = {name: np.uint8(0) for name in ("xz", "yz")}
    arrays = {name: np.asarray(held) for name, held in {**scales, **zeros}.items()}
    weights = {
        "w": np.ones((16, 3, 3, 3), np.int8),
        "ws": np.ones(16, np.float32),
        "wz": np.zeros(16, np.int8),
        "b": np.ones(16, np.int32),
        "bs": np.ones(16, np.float32),
    }
    nodes = [
        node("QuantizeLinear", "x", "xs", "xz", output="xq"),
        node("DequantizeLinear", "xq", "xs", "xz", output="xd"),
        node("DequantizeLinear", "w", "ws", "wz", output="wd", axis=0),
        node("DequantizeLinear", "b", "bs", output="bd", axis=0),
        node("Conv", "xd", "wd", "bd", output="c", pads=[1] * 4),
        node("QuantizeLinear", "c", "ys", "yz", output="cq"),
        node("DequantizeLinear", "cq", "ys", "yz"),
    ]
    return model(nodes, {**arrays, **weights}, IMAGE)


def test_scales_and_zero_points_are_no_parameters() -> None:
    assert parameter_count(quantised()) == 16 * 3 * 9 + 16


def test_a_quantised_convolution_has_as_many_products_as_a_float_one() -> None:
    assert multiply_accumulates(quantised()) == 16 * 8 * 8 * 3 * 9


def test_operators_are_counted_by_their_outputs_type() -> None:
    assert operators(quantised()) == {
        "Conv": {"float32": 1},
        "DequantizeLinear": {"float32": 4},
        "QuantizeLinear": {"uint8": 2},
    }


def test_operators_of_other_domains_keep_their_name() -> None:
    own = node("Gelu", "x", output="h", domain="acme")
    held = model([own, node("Relu", "h")], {}, ("n", 4))
    assert operators(held) == {"Relu": {"float32": 1}, "acme:Gelu": {"?": 1}}


def test_a_length_that_is_not_known_gives_no_count() -> None:
    held = model([node("MatMul", "x", "w")], {"w": (20, 10)}, ("n", "length", 20))
    assert multiply_accumulates(held) is None
    assert parameter_count(held) == 200


def test_shapes_are_known_as_far_as_inference_reaches() -> None:
    held, *_ = CASES["strided convolution"]
    specs = value_specs(held)
    assert specs["x"].shape == ("batch", 3, 8, 8)
    assert specs["y"].shape == ("batch", 16, 4, 4)
    assert (specs["w"].shape, specs["w"].dtype) == ((16, 3, 3, 3), "float32")


def test_counting_leaves_the_graph_alone() -> None:
    held, *_ = CASES["convolution"]
    before = held.SerializeToString(deterministic=True)
    multiply_accumulates(held)
    operators(held)
    assert held.SerializeToString(deterministic=True) == before
