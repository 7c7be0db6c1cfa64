"""Adaptive rounding: closer outputs than rounding to the nearest, with the same scales."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress import rounding
from lepton_compress.compress.quantize import Quantize
from lepton_compress.compress.static_int8 import quantize
from lepton_compress.load.forms import call, signature
from lepton_compress.report.silent import Silent


def correlated(count: int, width: int, seed: int) -> np.ndarray:
    """(count, width) float32 in which few directions hold most of the energy."""
    draw = np.random.default_rng(seed)
    mixed = draw.normal(size=(count, 4)) @ draw.normal(size=(4, width))
    return (mixed + 0.05 * draw.normal(size=(count, width))).astype(np.float32)


def convolutions(groups: int, *, shared: bool = False) -> tuple[Model, Split]:
    """A 3x3 convolution in groups and a 1x1 one behind it, on correlated channels."""
    draw = np.random.default_rng(1)
    grid = correlated(24 * 36, 8, 2).reshape(24, 6, 6, 8).transpose(0, 3, 1, 2)
    first = draw.normal(size=(8, 8 // groups, 3, 3)).astype(np.float32)
    second = draw.normal(size=(8, 8, 1, 1)).astype(np.float32)
    bias = draw.normal(size=8).astype(np.float32)
    held = [("w1", first), ("b1", bias), ("w2", second), ("b2", bias)]
    names = ["b1", "b2"] if not shared else ["b1", "b1"]
    nodes = [
        helper.make_node(
            "Conv", ["x", "w1", names[0]], ["h"], "first", group=groups, pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2", names[1]], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 6, 6])],
        [
            numpy_helper.from_array(array, name)
            for name, array in held
            if name in {"w1", "w2", *names}
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Model("graph", model, *signature(model)), Split({"x": np.ascontiguousarray(grid)})


def noise(model: Model, split: Split, how: str) -> float:
    """Energy of the error of the quantised graph on the data."""
    # With 16-bit activations the error left is that of the weights.
    params = Quantize.model_validate({"rounding": how, "activations": "uint16", "weight_bits": 8})
    made = quantize(model, split, params, threads=1, observer=Silent()).model
    wanted, got = call(model, split.inputs), call(made, split.inputs)
    return float(np.square(wanted["y"] - got["y"], dtype=np.float64).sum())


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_outputs_are_closer_than_with_the_nearest(groups: int) -> None:
    model, split = convolutions(groups)
    assert noise(model, split, "adaptive") < noise(model, split, "nearest")


def test_scales_nodes_and_other_constants_stay() -> None:
    model, split = convolutions(1)
    made = {
        how: quantize(
            model,
            split,
            Quantize.model_validate({"rounding": how}),
            threads=1,
            observer=Silent(),
        ).model.value
        for how in ("nearest", "adaptive")
    }
    assert list(made["nearest"].graph.node) == list(made["adaptive"].graph.node)
    arrays = {
        how: {each.name: numpy_helper.to_array(each) for each in graph.graph.initializer}
        for how, graph in made.items()
    }
    differ = {
        name
        for name, array in arrays["nearest"].items()
        if not np.array_equal(array, arrays["adaptive"][name])
    }
    assert {"w1_quantized", "w2_quantized"} <= differ
    assert differ <= {"w1_quantized", "w2_quantized", "b1_quantized", "b2_quantized"}


def test_the_same_bytes_twice() -> None:
    model, split = convolutions(2)
    twice = [
        quantize(model, split, Quantize(), threads=1, observer=Silent()).model.value
        for _ in range(2)
    ]
    assert twice[0].SerializeToString() == twice[1].SerializeToString()


def test_the_float_graph_stays() -> None:
    model, split = convolutions(1)
    before = model.value.SerializeToString()
    quantize(model, split, Quantize(), threads=1, observer=Silent())
    assert model.value.SerializeToString() == before


def test_a_weight_of_two_nodes_is_left_alone() -> None:
    model, split = convolutions(1)
    graph = onnx.ModelProto()
    graph.CopyFrom(model.value)
    graph.graph.node[0].input[1] = "w2"
    graph.graph.node[0].ClearField("attribute")
    tied = model.replace(value=graph)
    params = {how: Quantize.model_validate({"rounding": how}) for how in ("nearest", "adaptive")}
    made = [
        quantize(tied, split, each, threads=1, observer=Silent()).model.value
        for each in params.values()
    ]
    assert made[0].SerializeToString() == made[1].SerializeToString()


def test_patches_are_what_the_convolution_sees() -> None:
    model, split = convolutions(2)
    (first, _) = rounding.find_layers(model.value)
    moments = rounding.measure(model, [first], split, 24, 1, Silent())["first"]
    images = torch.from_numpy(np.array(split.inputs["x"]))
    patches = torch.nn.functional.unfold(images, (3, 3), padding=1)
    wanted = patches.reshape(24, 2, 36, 36).permute(1, 2, 0, 3).reshape(2, 36, -1)
    assert moments.count == wanted.shape[2]
    assert torch.allclose(moments.second, wanted @ wanted.transpose(1, 2), rtol=1e-4, atol=1e-2)
    assert torch.allclose(moments.total, wanted.sum(2), rtol=1e-4, atol=1e-2)


@given(
    outputs=st.integers(1, 5),
    width=st.integers(1, 12),
    groups=st.integers(1, 3),
    largest=st.sampled_from([63, 127]),
    seed=st.integers(0, 2**16),
)
def test_integers_stay_within_the_limit(
    outputs: int, width: int, groups: int, largest: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, outputs, width, generator=draw)
    inputs = torch.randn(groups, width, 3, generator=draw)
    scale = weight.abs().amax(2, keepdim=True) / largest
    made = rounding.round_weights(weight, scale, inputs @ inputs.transpose(1, 2), largest)
    assert torch.equal(made, made.round())
    assert float(made.abs().max()) <= largest


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight = torch.tensor([[[0.5, -1.0, 0.25]]])
    second = torch.zeros(1, 3, 3)
    made = rounding.round_weights(weight, torch.full((1, 1, 1), 1 / 127), second, 127)
    assert torch.equal(made, (weight * 127).round())
