"""Rewrites for the integer kernels: the same outputs, on graphs of any width."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress import layout
from lepton_compress.graph import value_specs
from lepton_compress.load.forms import call, duplicate, signature
from tests.compress.nets import apply


def net(channels: int, *, groups: int = 1, keepdims: int = 1, negative: bool = False) -> Model:
    """A convolution from `channels` to 8, its mean over the image, and scores."""
    draw = np.random.default_rng(channels)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)

    axes = numpy_helper.from_array(np.array([-2, -1] if negative else [2, 3], np.int64), "axes")
    flat = numpy_helper.from_array(np.array([0, -1], np.int64), "flat")
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], "conv", group=groups, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], "mean", keepdims=keepdims),
        helper.make_node("Reshape", ["m", "flat"], ["f"], "reshape"),
        helper.make_node("Gemm", ["f", "v", "c"], ["y"], "scores"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, 6, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [
            weight("w", 12, channels // groups, 3, 3),
            weight("b", 12),
            weight("v", 12, 3),
            weight("c", 3),
            axes,
            flat,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Model("graph", model, *signature(model))


def data(channels: int) -> Split:
    draw = np.random.default_rng(7)
    return Split({"x": draw.normal(size=(12, channels, 6, 5)).astype(np.float32)})


class TestAlignChannels:
    @given(channels=st.integers(1, 9))
    @settings(max_examples=9)
    def test_outputs_are_the_same_bit_for_bit(self, channels: int) -> None:
        split = data(channels)
        plain = apply("quantize", net(channels), split, activations="uint8", layout="keep").model
        wide = duplicate(plain)
        found = layout.align_channels(wide.value)
        onnx.checker.check_model(wide.value, full_check=True)
        assert found == (["conv"] if channels % 4 else [])
        feeds = dict(split.inputs)
        assert np.array_equal(call(plain, feeds)["y"], call(wide, feeds)["y"])
        taken = next(n for n in wide.value.graph.node if n.name == "conv").input[0]
        assert value_specs(wide.value)[taken].shape[1] == -(-channels // 4) * 4

    def test_grouped_convolutions_and_float_graphs_are_left_alone(self) -> None:
        split = data(6)
        grouped = apply("quantize", net(6, groups=6), split, activations="uint8", layout="keep")
        assert layout.align_channels(duplicate(grouped.model).value) == []
        assert layout.align_channels(net(3).value) == []

    def test_a_shared_weight_is_left_alone(self) -> None:
        split = data(3)
        made = apply("quantize", net(3), split, activations="uint8", layout="keep").model.value
        weights = next(n for n in made.graph.node if n.name == "conv").input[1]
        made.graph.node.append(helper.make_node("Identity", [weights], ["other"], "other"))
        assert layout.align_channels(made) == []


class TestPoolMeans:
    @pytest.mark.parametrize("keepdims", [0, 1])
    @pytest.mark.parametrize("negative", [False, True])
    def test_a_mean_over_an_image_becomes_a_pool(self, keepdims: int, negative: bool) -> None:
        model, feeds = net(4, keepdims=keepdims, negative=negative), dict(data(4).inputs)
        made = layout.pool_means(model)
        kinds = [node.op_type for node in made.value.graph.node]
        assert "ReduceMean" not in kinds
        assert "GlobalAveragePool" in kinds
        assert np.allclose(call(model, feeds)["y"], call(made, feeds)["y"], atol=1e-6)

    def test_another_mean_stays(self) -> None:
        model = net(4)
        axes = next(each for each in model.value.graph.initializer if each.name == "axes")
        axes.CopyFrom(numpy_helper.from_array(np.array([3], np.int64), "axes"))
        assert layout.pool_means(model) is model


class TestStep:
    def test_quantize_does_both_and_says_so(self) -> None:
        made = apply("quantize", net(3), data(3), activations="uint8")
        held = made.statistics["layout"]
        if not held["value"]:
            pytest.skip(held["why"])
        assert held["aligned"] == ["conv"]
        assert made.statistics["weighted"]["integer"].keys() == {"conv", "scores"}
        kinds = {node.op_type for node in made.model.value.graph.node}
        assert {"Pad", "GlobalAveragePool"} <= kinds

    @pytest.mark.parametrize("given", [{"layout": "keep"}, {"activations": "int8"}])
    def test_otherwise_the_graph_keeps_its_layout(self, given: dict[str, str]) -> None:
        made = apply("quantize", net(3), data(3), **given)
        assert not made.statistics["layout"]["value"]
        assert "Pad" not in {node.op_type for node in made.model.value.graph.node}
