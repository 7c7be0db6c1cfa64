"""Rewrites for the integer kernels: the same outputs, on graphs of any width."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress import layout
from lepton_compress.load.forms import call, signature
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
    def test_quantize_pools_and_says_so(self) -> None:
        made = apply("quantize", net(3), data(3), activations="uint8")
        held = made.statistics["layout"]
        if not held["value"]:
            pytest.skip(held["why"])
        assert made.statistics["weighted"]["integer"].keys() == {"conv", "scores"}
        kinds = {node.op_type for node in made.model.value.graph.node}
        assert "GlobalAveragePool" in kinds

    @pytest.mark.parametrize("given", [{"layout": "keep"}, {"activations": "int8"}])
    def test_otherwise_the_graph_keeps_its_layout(self, given: dict[str, str]) -> None:
        made = apply("quantize", net(3), data(3), **given)
        assert not made.statistics["layout"]["value"]
        assert "GlobalAveragePool" not in {n.op_type for n in made.model.value.graph.node}
