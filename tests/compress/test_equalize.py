"""Cross-layer equalisation: the float function stays, per-tensor int8 gains."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.errors import InputError
from tests.compress.nets import apply, cnn, decibels, mlp, model_of, normal, outputs, recurrent

FLAT = {"per_channel": False, "saturating": False}


def planted(*names: str, decades: float = 1.5) -> tuple[Model, Split]:
    """The small CNN with the channels behind some layers scaled at random and back by the next
    layer, as training with batch normalisation leaves them: no channel matters more for it."""
    model, split = cnn()
    rng = np.random.default_rng(5)
    held = {each.name: each for each in model.value.graph.initializer}
    for number in names:
        factors = 10 ** rng.uniform(-decades, decades, held[f"w{number}"].dims[0])
        for name in (f"w{number}", f"b{number}"):
            if name in held:
                array = numpy_helper.to_array(held[name])
                shape = [-1] + [1] * (array.ndim - 1)
                made = (array * factors.reshape(shape)).astype(np.float32)
                held[name].CopyFrom(numpy_helper.from_array(made, name))
        after = held[f"w{int(number) + 1}"]
        array = numpy_helper.to_array(after)
        turned = factors.reshape(-1, 1, 1, 1) if number == "1" else factors.reshape(2, 1, 4, 1, 1)
        back = array.reshape(2, -1, *array.shape[1:]) / turned if number == "2" else array / turned
        made = back.reshape(array.shape).astype(np.float32)
        after.CopyFrom(numpy_helper.from_array(made, after.name))
    return model, split


def weights(model: Model) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in model.value.graph.initializer}


class TestFunction:
    @pytest.mark.parametrize("step", ["equalize", "smooth"])
    @given(data=st.data())
    @settings(max_examples=8, deadline=None)
    def test_random_chains_compute_the_same(self, step: str, data: st.DataObject) -> None:
        model, split = chain(data.draw)
        made = apply(step, model, split)
        for batch in (1, 5):
            wanted, given = outputs(model, split, batch), outputs(made.model, split, batch)
            assert np.abs(wanted - given).max() <= 2e-5 * np.abs(wanted).max()
        if made.changed:
            assert made.statistics["difference"] <= 2e-5
        else:
            assert made.notes

    def test_it_gains_where_one_scale_serves_a_tensor(self) -> None:
        model, split = planted("1")
        made = apply("equalize", model, split)
        before, after = (
            apply("quantize", each, split, **FLAT).statistics["output_sqnr_db"]
            for each in (model, made.model)
        )
        assert after > before + 5
        assert decibels(outputs(model, split), outputs(made.model, split)) > 110
        noise = made.statistics["weights_sqnr_db"]["conv1"]
        assert noise[1] > noise[0] + 3
        assert any("the worst of the weights keeps" in note for note in made.notes)

    def test_ranges_of_a_pair_meet(self) -> None:
        model, split = planted("1")
        made = weights(apply("equalize", model, split).model)
        one = np.abs(made["w1"]).max(axis=(1, 2, 3))
        other = np.abs(made["w2"]).max(axis=(1, 2, 3))
        np.testing.assert_allclose(one, other, rtol=1e-2)

    def test_what_is_even_stays(self) -> None:
        once = apply("equalize", *mlp())
        again = apply("equalize", once.model, mlp()[1])
        assert not again.changed
        assert again.notes[0] == "the channels are even already"

    def test_a_dead_channel_is_not_blown_up(self) -> None:
        model, split = cnn()
        for tensor in model.value.graph.initializer:
            if tensor.name in ("w1", "b1"):
                array = numpy_helper.to_array(tensor).copy()
                array[2] = 0
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        made = apply("equalize", model, split)
        assert all(np.isfinite(array).all() for array in weights(made.model).values())
        np.testing.assert_array_equal(weights(made.model)["w2"][2], weights(model)["w2"][2])


class TestAccount:
    def test_pairs_and_obstacles_are_named(self) -> None:
        made = apply("equalize", *cnn())
        ends = [(each["from"], each["to"]) for each in made.statistics["pairs"]]
        assert ends == [(["conv1"], ["depthwise"]), (["grouped"], ["scores"])]
        assert made.statistics["held"] == {"r2": "relu6 (Clip from 0 to 6)"}
        assert "not equalised: r2, held by relu6 (Clip from 0 to 6)" in made.notes
        for each in made.statistics["pairs"]:
            assert each["spread"]["after"] <= each["spread"]["before"]

    def test_kept_nodes_stay(self) -> None:
        model, split = cnn()
        made = apply("equalize", model, split, keep=["conv1"])
        assert [each["from"] for each in made.statistics["pairs"]] == [["grouped"]]
        np.testing.assert_array_equal(weights(made.model)["w1"], weights(model)["w1"])
        assert "conv1 (named in `keep`)" in made.statistics["held"]["r1"]

    def test_no_pair_says_why(self) -> None:
        made = apply("equalize", *recurrent("GRU"))
        assert not made.changed
        assert "no two layers" in made.notes[0]
        assert "layer (GRU)" in made.notes[0]

    @pytest.mark.parametrize("step", ["equalize", "smooth"])
    def test_bad_input(self, step: str) -> None:
        model, split = cnn()
        with pytest.raises(InputError, match=r"there is no node 'conv'.*did you mean 'conv1'"):
            apply(step, model, split, keep=["conv"])
        wrong = split.inputs["x"].copy()
        wrong[3] = np.nan
        with pytest.raises(InputError, match="NaN or infinite"):
            apply(step, model, Split({"x": wrong}))
        with pytest.raises(InputError, match="quantised already"):
            apply(step, apply("quantize", model, split).model, split)


class TestClips:
    def test_an_unreached_bound_becomes_a_relu(self) -> None:
        model, split = planted("2", decades=0.7)
        low = Split({"x": 0.02 * split.inputs["x"]})
        made = apply("equalize", model, low, clips="unreached")
        assert "relu6 is a Relu now: on calibration data nothing comes near its bound" in made.notes
        assert "Clip" not in {node.op_type for node in made.model.value.graph.node}
        assert ["depthwise"] in [each["from"] for each in made.statistics["pairs"]]
        assert decibels(outputs(model, low), outputs(made.model, low)) > 100

    def test_a_reached_one_stays(self) -> None:
        model, split = planted("2", decades=0.7)
        made = apply("equalize", model, Split({"x": 9 * split.inputs["x"]}), clips="unreached")
        assert "relu6" in made.statistics["held"]["r2"]


class TestBiases:
    def test_high_ones_move_on(self) -> None:
        rng = np.random.default_rng(0)
        held = {"w1": normal(rng, 8, 12), "w2": normal(rng, 4, 8), "b2": normal(rng, 4)}
        held["b1"] = np.where(np.arange(8) < 3, 30, 0).astype(np.float32)
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
            helper.make_node("Relu", ["h"], ["r"], "relu"),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], "second", transB=1),
        ]
        model = model_of(nodes, held, ("x", TensorProto.FLOAT, ["batch", 12]), ("y", ["batch", 4]))
        split = Split({"x": rng.normal(size=(32, 12)).astype(np.float32)})
        made = apply("equalize", model, split, absorb_biases=True)
        assert made.statistics["absorbed"] == {"first": 3}
        assert weights(made.model)["b1"][:3].max() < 10
        assert decibels(outputs(model, split), outputs(made.model, split)) > 100
        plain = apply("equalize", model, split)
        before, after = (
            apply("quantize", each.model, split, saturating=False).statistics["output_sqnr_db"]
            for each in (plain, made)
        )
        assert after > before + 1

    def test_padded_convolutions_are_left_out(self) -> None:
        model, split = cnn()
        made = apply("equalize", model, split, absorb_biases=True)
        assert made.statistics["absorbed"] == {}


def chain(draw: Any) -> tuple[Model, Split]:
    """A few convolutions with what may stand between them, then a Gemm."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    held: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    value, width = "x", 4
    for index in range(draw(st.integers(2, 4))):
        kind = draw(st.sampled_from(["dense", "depthwise", "grouped", "residual"]))
        groups = {"dense": 1, "depthwise": width, "grouped": 2, "residual": 1}[kind]
        made = width if kind in ("depthwise", "residual") else 2 * draw(st.integers(1, 4))
        uneven = 10 ** rng.uniform(-2, 2, (made, 1, 1, 1))
        held[f"w{index}"] = (normal(rng, made, width // groups, 3, 3) * uneven).astype("f4")
        held[f"b{index}"] = normal(rng, made)
        given = [value, f"w{index}", f"b{index}"][: draw(st.integers(2, 3))]
        pads = [1, 1, 1, 1]
        nodes.append(
            helper.make_node("Conv", given, [f"c{index}"], f"conv{index}", group=groups, pads=pads)
        )
        out = f"c{index}"
        if kind == "residual" and index:
            nodes.append(helper.make_node("Add", [out, value], [f"s{index}"], f"add{index}"))
            out = f"s{index}"
        between = draw(st.sampled_from(["Relu", "LeakyRelu", "PRelu", "Sigmoid", "Clip", "none"]))
        if between != "none":
            more = []
            if between == "PRelu":
                held[f"p{index}"] = rng.uniform(0, 1, (made, 1, 1)).astype("f4")
                more = [f"p{index}"]
            if between == "Clip":
                held |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
                more = ["low", "high"]
            nodes.append(
                helper.make_node(between, [out, *more], [f"a{index}"], f"{between}{index}")
            )
            out = f"a{index}"
        value, width = out, made
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "v", "u"], ["y"], "scores", transB=1),
    ]
    held |= {"v": normal(rng, 3, width), "u": normal(rng, 3)}
    used = {name for node in nodes for name in node.input}
    held = {name: np.asarray(array) for name, array in held.items() if name in used}
    size = ["batch", 4, 5, 5]
    model = model_of(nodes, held, ("x", TensorProto.FLOAT, size), ("y", ["batch", 3]))
    return model, Split({"x": rng.normal(size=(12, 4, 5, 5)).astype(np.float32)})
