"""Pairs and their ranges, as they stand in a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from lepton_compress.explain.wiring import Wiring, channel_axis, output_axis, title
from tests.explain import planting
from tests.explain.planting import Array, Weights


@pytest.fixture
def wiring(trained: Weights, digits: dict[str, tuple[Array, Array]]) -> Wiring:
    graph = planting.cnn_graph(trained)
    return Wiring(planting.quantised(graph, {"image": digits["calibration"][0]}))


def test_pairs_of_activations_alone(wiring: Wiring) -> None:
    assert set(wiring.pairs) == {
        "image",
        "first_active",
        "deep_active",
        "point_active",
        "pooled",
        "flat",
        "scores_QuantizeLinear_Input",
    }
    pair = wiring.pairs["image"]
    assert pair.dtype == "uint8"
    assert pair.range == pytest.approx((0.0, 1.0), abs=0.005)


def test_what_follows_a_pair_is_its_dequantised_form(wiring: Wiring) -> None:
    assert wiring.after("image") == "image_DequantizeLinear_Output"
    assert wiring.origin(wiring.after("image")) == "image"
    assert wiring.after("no such tensor") == "no such tensor"


def test_computing_nodes_are_no_borders(wiring: Wiring) -> None:
    names = [title(node) for node in wiring.computing()]
    assert names[:3] == ["first/Conv", "deep/Conv", "point/Conv"]
    assert all("QuantizeLinear" not in name for name in names)


@pytest.mark.parametrize(("axes", "axis"), [(4, 1), (3, 2), (2, 1), (1, 0)])
def test_axis_of_channels(axes: int, axis: int) -> None:
    assert channel_axis(axes) == axis


@pytest.mark.parametrize(
    ("node", "axis"),
    [
        (planting.node("Conv", ["x", "w"], "y"), 0),
        (planting.node("Gemm", ["x", "w"], "y", transB=1), 0),
        (planting.node("Gemm", ["x", "w"], "y"), 1),
        (planting.node("MatMul", ["x", "w"], "y"), 1),
    ],
)
def test_axis_of_a_weights_outputs(node: Any, axis: int) -> None:
    assert output_axis(node, 2) == axis


def test_constants_include_constant_nodes() -> None:
    held = numpy_helper.from_array(np.ones(3, np.float32), "")
    nodes = [
        helper.make_node("Constant", [], ["one"], value=held),
        planting.node("Add", ["x", "one"], "y"),
    ]
    model = planting.model_of(nodes, {}, inputs={"x": [3]}, output=("y", [3]))
    assert Wiring(model).array("one").tolist() == [1, 1, 1]
