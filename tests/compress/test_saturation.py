"""The emulated `vpmaddubsw` against a literal loop, and what it does to a graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress import products, saturation
from lepton_compress.compress.quantize import Quantize
from lepton_compress.compress.stages import Stages
from lepton_compress.compress.static_int8 import insert
from tests.compress.nets import Silent, apply, cnn, decibels, mlp, outputs, recurrent, transformer


def literal(given: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Pair by pair, in numpy's 16-bit integers' range."""
    made = np.zeros((len(given), weights.shape[1]), np.int32)
    saturated = 0
    for row in range(made.shape[0]):
        for column in range(made.shape[1]):
            for start in range(0, given.shape[1], 2):
                total = 0
                for place in range(start, min(start + 2, given.shape[1])):
                    total += int(given[row, place]) * int(weights[place, column])
                kept = np.int16(max(-(2**15), min(2**15 - 1, total)))
                saturated += int(kept) != total
                made[row, column] += int(kept)
    return made, saturated


class TestMatmul:
    @given(
        rows=st.integers(1, 4),
        inner=st.integers(1, 9),
        columns=st.integers(1, 4),
        seed=st.integers(0, 2**16),
        extreme=st.booleans(),
    )
    def test_it_is_the_literal_loop(
        self, rows: int, inner: int, columns: int, seed: int, extreme: bool
    ) -> None:
        rng = np.random.default_rng(seed)
        low = 200 if extreme else 0
        given = rng.integers(low, 256, size=(rows, inner)).astype(np.uint8)
        weights = rng.choice([-128, -127, -64, 0, 64, 65, 127], size=(inner, columns))
        if not extreme:
            weights = rng.integers(-128, 128, size=(inner, columns))
        weights = weights.astype(np.int8)
        made, saturated = saturation.saturating_matmul(given, weights)
        wanted, count = literal(given, weights)
        assert np.array_equal(made, wanted)
        assert saturated == count

    def test_both_ends_saturate(self) -> None:
        given = np.full((1, 2), 255, np.uint8)
        weights = np.array([[127, -128], [127, -128]], np.int8)
        made, saturated = saturation.saturating_matmul(given, weights)
        assert made.tolist() == [[32767, -32768]]
        assert saturated == 2

    @given(seed=st.integers(0, 2**16))
    def test_seven_bits_never_saturate(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        given = rng.choice([0, 254, 255], size=(8, 12)).astype(np.uint8)
        weights = rng.choice([-64, 63, 64], size=(12, 5)).astype(np.int8)
        made, saturated = saturation.saturating_matmul(given, weights)
        assert saturated == 0
        assert np.array_equal(made, given.astype(int) @ weights.astype(int))

    def test_many_candidates_are_taken_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(0)
        given = rng.integers(0, 256, size=(6, 40)).astype(np.uint8)
        weights = rng.integers(-128, 128, size=(40, 7)).astype(np.int8)
        whole = saturation.saturating_matmul(given, weights)
        monkeypatch.setattr(saturation, "_HELD", 13)
        parts = saturation.saturating_matmul(given, weights)
        assert np.array_equal(whole[0], parts[0])
        assert whole[1] == parts[1] > 0


def quantised(model: Model, split: Split, activations: str = "uint8") -> Model:
    return apply("quantize", model, split, activations=activations, weight_bits=8).model


class TestProducts:
    @pytest.mark.parametrize("activations", ["uint8", "int8"])
    @pytest.mark.parametrize("net", [cnn, mlp])
    def test_exact_arithmetic_gives_what_the_runtime_gives(
        self, net: object, activations: str
    ) -> None:
        model, split = net()  # type: ignore[operator]
        made = quantised(model, split, activations)
        found = products.find_products(made.value)
        assert len(found) == (4 if net is cnn else 2)
        stages = Stages(made, found)
        given = stages.run(
            next(split.batches(16)), lambda _, rows, weights: saturation.exact_matmul(rows, weights)
        )
        wanted = outputs(made, split, 16)
        # Equal up to one rounding step of the output, where float sums lie on an edge.
        step = np.diff(np.unique(wanted)).min()
        assert np.abs(given["scores"] - wanted).max() <= 1.01 * step

    def test_depthwise_is_told_from_grouped(self) -> None:
        model, split = cnn()
        found = {each.name: each for each in products.find_products(quantised(model, split).value)}
        assert [name for name, each in found.items() if each.depthwise] == ["depthwise"]
        assert found["grouped"].weights.shape == (2, 36, 8)

    def test_a_float_graph_has_none(self) -> None:
        assert products.find_products(cnn()[0].value) == []

    @pytest.mark.parametrize(
        ("pads", "strides", "dilations", "groups"),
        [
            ((0, 0, 0, 0), (1, 1), (1, 1), 1),
            ((1, 2, 0, 1), (2, 1), (1, 2), 1),
            ((2, 2, 2, 2), (3, 2), (2, 2), 2),
        ],
    )
    def test_windows_are_those_of_a_convolution(
        self,
        pads: tuple[int, ...],
        strides: tuple[int, int],
        dilations: tuple[int, int],
        groups: int,
    ) -> None:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 9, size=(2, 4, 9, 8)).astype(np.uint8)
        w = rng.integers(-5, 6, size=(6, 4 // groups, 3, 2)).astype(np.int8)
        window = products.Window(
            (3, 2), strides, dilations, ((pads[0], pads[2]), (pads[1], pads[3]))
        )
        parts, shape = window.rows(x, 0, groups)
        weights = np.moveaxis(w, 1, -1).reshape(groups, 6 // groups, -1).transpose(0, 2, 1)
        sums = [rows.astype(int) @ each for rows, each in zip(parts, weights, strict=True)]
        made = np.moveaxis(np.concatenate(sums, axis=1).reshape(*shape, 6), -1, 1)
        node = onnx.helper.make_node(
            "Conv",
            ["x", "w"],
            ["y"],
            pads=pads,
            strides=strides,
            dilations=dilations,
            group=groups,
        )
        reference = onnx.reference.ReferenceEvaluator(node)
        feeds = {"x": x.astype(np.float32), "w": w.astype(np.float32)}
        (wanted,) = list(reference.run(None, feeds))
        assert np.array_equal(made, wanted)


class TestCheck:
    def test_a_clipping_layer_is_found_and_its_flips_counted(self) -> None:
        model, split = mlp()
        # All weights of a column alike: every pair of them sums up beyond 16 bits.
        bad = Model(model.form, onnx.ModelProto(), model.inputs, model.outputs)
        bad.value.CopyFrom(model.value)
        for tensor in bad.value.graph.initializer:
            if tensor.name == "w1":
                array = onnx.numpy_helper.to_array(tensor).copy()
                array[:] = np.sign(array[:1]) * 0.2
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, "w1"))
        positive = Split({"x": np.abs(split.inputs["x"]) + 1})
        found = saturation.check(quantised(bad, positive), positive, 32, Silent())
        assert found.nodes["hidden"] > 0.05
        assert found.output_sqnr_db is not None
        assert found.output_sqnr_db < 35
        assert found.flips is not None
        assert "saturates in up to" in found.told(7)

    @pytest.mark.parametrize("fused", [True, False])
    def test_transformers_run(self, fused: bool) -> None:
        model, split = transformer(fused=fused)
        found = saturation.check(quantised(model, split), split, 8, Silent())
        assert {"up", "down", "head"} <= set(found.nodes)
        assert found.samples == 8

    def test_recurrent_networks_run(self) -> None:
        model, split = recurrent("LSTM")
        found = saturation.check(quantised(model, split), split, 8, Silent())
        assert set(found.nodes) == {"scores"}

    def test_seven_bits_do_not_saturate(self) -> None:
        model, split = cnn()
        made = apply("quantize", model, split, weight_bits=7).model
        found = saturation.check(made, split, 8, Silent())
        assert set(found.nodes.values()) == {0.0}
        assert found.flips == 0
        assert found.output_sqnr_db is None
        assert found.exact == ("depthwise",)


class TestInTheStep:
    def test_a_saturating_target_gets_seven_bits_and_the_reason(self) -> None:
        model, split = cnn()
        made = apply("quantize", model, split, saturating=True, saturation_samples=4)
        assert made.statistics["weight_bits"]["value"] == 7
        assert made.statistics["saturation"]["samples"] == 4
        assert any("hence 7 bits" in note for note in made.notes)
        integers = [
            onnx.numpy_helper.to_array(tensor)
            for tensor in made.model.value.graph.initializer
            if tensor.data_type == tensor.INT8 and len(tensor.dims) > 1
        ]
        assert max(int(np.abs(each.astype(int)).max()) for each in integers) in (63, 64)

    def test_eight_bits_asked_for_are_checked_too(self) -> None:
        model, split = cnn()
        made = apply("quantize", model, split, saturating=True, weight_bits=8)
        assert made.statistics["weight_bits"] == {"value": 8, "why": "asked for"}
        assert made.statistics["saturation"]["nodes"]["conv1"] >= 0

    @pytest.mark.parametrize(
        "parameters",
        [
            {"saturating": False},
            {"saturating": True, "weight_bits": 7},
            {"saturating": True, "activations": "uint16"},
        ],
    )
    def test_where_nothing_can_saturate_nothing_is_checked(
        self, parameters: dict[str, object]
    ) -> None:
        model, split = mlp()
        assert "saturation" not in apply("quantize", model, split, **parameters).statistics

    def test_seven_bits_cost_less_than_saturating(self) -> None:
        model, split = transformer(fused=False)
        made = apply("quantize", model, split, saturating=True)
        eight = made.statistics["saturation"]["output_sqnr_db"]
        assert decibels(outputs(model, split), outputs(made.model, split)) > eight


def test_insert_is_what_the_step_writes() -> None:
    model, split = mlp()
    made = apply(
        "quantize", model, split, activations="uint8", saturating=False, rounding="nearest"
    )
    ranges = {name: tuple(pair) for name, pair in made.statistics["ranges"].items()}
    again = insert(model, ranges, Quantize(), "uint8", 8)
    assert again.value.SerializeToString() == made.model.value.SerializeToString()
