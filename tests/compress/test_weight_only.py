"""Weights in blocks: what is packed is bit for bit what ONNX Runtime multiplies with."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress import blocks, weight_only
from lepton_compress.compress.block_graph import Layer, find_layers
from lepton_compress.compress.block_rounding import round_blocks
from lepton_compress.compress.blocks import Blocks
from lepton_compress.compress.quantize_weights import QuantizeWeights
from tests.compress.nets import Silent, apply, mlp, model_of, outputs, recurrent, transformer

WIDTHS = {"whole": 64, "not a multiple": 50, "odd number of blocks": 48, "one block": 16}
"""Inputs of a layer, in blocks of 16."""


def linear(
    width: int, columns: int = 7, *, operator: str = "MatMul", bias: bool = False, seed: int = 0
) -> tuple[Model, Split]:
    """One product, fed with the identity matrix, so that its output is its weight."""
    rng = np.random.default_rng(seed)
    turned = operator == "Gemm"
    shape = (columns, width) if turned else (width, columns)
    weights = {"w": rng.normal(size=shape).astype(np.float32)}
    if bias:
        weights["b"] = rng.normal(size=columns).astype(np.float32)
    node = helper.make_node(operator, ["x", *weights], ["y"], "layer")
    if turned:
        node.attribute.append(helper.make_attribute("transB", 1))
    given = ("x", TensorProto.FLOAT, ["batch", width])
    model = model_of([node], weights, given, ("y", ["batch", columns]))
    return model, Split({"x": np.eye(width, dtype=np.float32)})


def blocks_of(model: Model, params: QuantizeWeights) -> tuple[Layer, Blocks]:
    (layer,) = find_layers(model)
    moment = torch.eye(layer.shape[1])
    return layer, round_blocks(layer.weight, params.algorithm, params, moment)


def moments(model: Model, split: Split, samples: int = 128) -> dict[str, weight_only.Inputs]:
    groups = {layer.input: [layer] for layer in find_layers(model)}
    return weight_only.observe_inputs(model, groups, split, samples)


class TestPacking:
    @pytest.mark.parametrize("bits", [4, 8])
    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
    @pytest.mark.parametrize("algorithm", ["rtn", "gptq", "hqq"])
    def test_the_runtime_multiplies_with_exactly_these_weights(
        self,
        bits: Literal[4, 8],
        symmetric: bool,
        width: int,
        algorithm: Literal["rtn", "gptq", "hqq"],
    ) -> None:
        symmetric = symmetric and algorithm != "hqq"
        model, split = linear(width)
        params = QuantizeWeights(
            bits=bits, symmetric=symmetric, block_size=16, algorithm=algorithm, compute="float32"
        )
        made = apply("quantize_weights", model, split, **params.model_dump())
        moment = moments(model, split)["x"].moment
        (layer,) = find_layers(model)
        given = round_blocks(layer.weight, algorithm, params, moment)
        assert np.array_equal(outputs(made.model, split), blocks.dequantize(given, 16).T)

    @pytest.mark.parametrize("bits", [4, 8])
    @pytest.mark.parametrize("bias", [True, False])
    def test_a_gemm_keeps_its_bias(self, bits: int, bias: bool) -> None:
        model, split = linear(32, operator="Gemm", bias=bias)
        made = apply(
            "quantize_weights",
            model,
            split,
            bits=bits,
            block_size=16,
            compute="float32",
            algorithm="rtn",
        )
        reference = outputs(model, split)
        apart = np.abs(outputs(made.model, split) - reference).max()
        assert apart < (0.3 if bits == 4 else 0.02)
        types = [node.op_type for node in made.model.value.graph.node]
        assert types == (["MatMulNBits", "Add"] if bias else ["MatMulNBits"])

    @settings(max_examples=40)
    @given(
        bits=st.sampled_from([4, 8]),
        outputs=st.integers(1, 4),
        width=st.integers(1, 70),
        seed=st.integers(0, 999),
    )
    def test_unpacking_gives_back_what_was_packed(
        self, bits: int, outputs: int, width: int, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        count = -(-width // 16)
        integers = rng.integers(0, 2**bits, size=(outputs, width)).astype(np.uint8)
        zeros = rng.integers(0, 2**bits, size=(outputs, count)).astype(np.uint8)
        scales = np.ones((outputs, count), np.float32)
        packed, points = blocks.pack(Blocks(integers, scales, zeros, bits), 16)
        assert packed.shape == (outputs, count, 16 * bits // 8)
        if bits == 4:
            packed = np.stack([packed & 15, packed >> 4], axis=-1)
            points = np.stack([points & 15, points >> 4], axis=-1)
        flat = packed.reshape(outputs, -1)
        assert np.array_equal(flat[:, :width], integers)
        assert not flat[:, width:].any()
        assert np.array_equal(points.reshape(outputs, -1)[:, :count], zeros)

    @pytest.mark.parametrize("bits", [4, 8])
    def test_no_weight_is_off_by_more_than_half_a_step(self, bits: Literal[4, 8]) -> None:
        model, _ = linear(64)
        params = QuantizeWeights(bits=bits, block_size=16, algorithm="rtn")
        layer, made = blocks_of(model, params)
        apart = np.abs(layer.weight - blocks.dequantize(made, 16))
        # Zero points are whole numbers, which costs the ends of a block up to half a step more.
        assert (apart <= 1.01 * np.repeat(made.scales, 16, axis=1)).all()

    def test_a_symmetric_block_has_its_zero_in_the_middle(self) -> None:
        model, _ = linear(64)
        _, made = blocks_of(model, QuantizeWeights(block_size=16, symmetric=True, algorithm="rtn"))
        assert set(made.zeros.reshape(-1)) == {8}


def correlated(width: int = 64) -> tuple[Model, Split]:
    """A layer whose inputs depend on each other, as activations do."""
    model, _ = linear(width, 24)
    rng = np.random.default_rng(3)
    basis = rng.normal(size=(8, width))
    x = rng.normal(size=(256, 8)) @ basis + 0.1 * rng.normal(size=(256, width))
    return model, Split({"x": x.astype(np.float32)})


class TestAlgorithms:
    @pytest.mark.parametrize("bits", [4, 8])
    def test_gptq_beats_nearest_in_the_output(self, bits: int) -> None:
        model, split = correlated()
        noise = {
            algorithm: apply(
                "quantize_weights",
                model,
                split,
                bits=bits,
                algorithm=algorithm,
                compute="float32",
                samples=256,
            ).statistics
            for algorithm in ("gptq", "rtn")
        }
        assert noise["gptq"]["output_sqnr_db"] > noise["rtn"]["output_sqnr_db"] + 3
        assert noise["gptq"]["sqnr_db"]["layer"] > noise["rtn"]["sqnr_db"]["layer"] + 3

    def test_the_layers_noise_is_that_of_its_output(self) -> None:
        model, split = correlated()
        made = apply(
            "quantize_weights", model, split, algorithm="rtn", compute="float32", samples=256
        )
        wanted, given = outputs(model, split), outputs(made.model, split)
        noise = 10 * np.log10(np.square(wanted).sum() / np.square(wanted - given).sum())
        assert made.statistics["sqnr_db"]["layer"] == pytest.approx(noise, abs=0.05)

    def test_moments_are_those_of_the_rows(self) -> None:
        model, split = correlated()
        x = split.inputs["x"][:100].astype(np.float64)
        found = moments(model, split, 100)["x"]
        assert np.allclose(found.moment.numpy(), x.T @ x, rtol=1e-4, atol=1e-2)
        assert np.allclose(found.magnitude.numpy(), np.abs(x).sum(0), rtol=1e-4)

    def test_moments_are_held_for_some_layers_at_a_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, split = transformer(fused=False)
        params = QuantizeWeights(block_size=16)
        whole = weight_only.quantize(model, split, params, Silent())
        monkeypatch.setattr(weight_only, "_HESSIANS", 1)
        parts = weight_only.quantize(model, split, params, Silent())
        assert whole.model.value == parts.model.value


class TestAccount:
    def test_what_became_blocks_and_what_stayed(self) -> None:
        made = apply("quantize_weights", *transformer(fused=False), block_size=32)
        weighted = made.statistics["weighted"]
        assert weighted["blocks"] == ["project", "up", "down", "head"]
        assert set(weighted["float"]) == {"match", "mix"}
        assert made.statistics["output_sqnr_db"] > 10

    def test_narrow_layers_are_left_and_named(self) -> None:
        made = apply("quantize_weights", *mlp(24), block_size=32)
        assert made.statistics["weighted"]["float"] == {"hidden": "narrower than a block"}
        assert "left in float: hidden (narrower than a block)" in made.notes

    def test_recurrent_layers_are_left_and_named(self) -> None:
        made = apply("quantize_weights", *recurrent("LSTM"), block_size=16)
        assert set(made.statistics["weighted"]["float"]) == {"layer"}

    def test_tied_products_are_written_once_each(self) -> None:
        rng = np.random.default_rng(0)
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"], "one"),
            helper.make_node("MatMul", ["h", "w"], ["y"], "two"),
        ]
        size = ["batch", 32]
        weights = {"w": (rng.normal(size=(32, 32)) / 6).astype(np.float32)}
        model = model_of(nodes, weights, ("x", TensorProto.FLOAT, size), ("y", size))
        split = Split({"x": rng.normal(size=(40, 32)).astype(np.float32)})
        made = apply("quantize_weights", model, split, bits=8)
        assert made.statistics["layers"] == 2
        assert made.statistics["output_sqnr_db"] > 35


class TestChoice:
    def test_auto_errs_at_most_as_much_as_each_alone(self) -> None:
        model, split = transformer(fused=False)
        noise = {
            algorithm: apply(
                "quantize_weights", model, split, algorithm=algorithm, block_size=16
            ).statistics["sqnr_db"]
            for algorithm in ("auto", "gptq", "hqq", "rtn")
        }
        for name, found in noise["auto"].items():
            assert found >= max(noise[each][name] for each in ("gptq", "hqq", "rtn")) - 0.01

    @pytest.mark.parametrize("algorithm", ["auto", "awq"])
    def test_layers_that_cost_most_get_eight_bits(self, algorithm: str) -> None:
        model, split = transformer(fused=False)
        given = {"block_size": 16, "algorithm": algorithm, "compute": "float32"}
        plain = apply("quantize_weights", model, split, **given).statistics
        made = apply("quantize_weights", model, split, mean_bits=6, **given)
        told = made.statistics
        sizes = {layer.node: layer.size for layer in find_layers(model)}
        bits = {name: count for name, count in told["bits"].items() if name in sizes}
        mean = sum(bits[name] * size for name, size in sizes.items()) / sum(sizes.values())
        assert 4 < mean <= 6
        costs = {name: cost / sizes[name] for name, cost in told["output_cost"].items()}
        assert bits[max(costs, key=lambda each: costs[each])] == 8
        assert told["output_sqnr_db"] > plain["output_sqnr_db"] + 0.5
        raised = [name for name, count in bits.items() if count == 8]
        assert all(told["sqnr_db"][name] > plain["sqnr_db"][name] + 10 for name in raised)
        found = {
            node.name: onnx.helper.get_node_attr_value(node, "bits")
            for node in made.model.value.graph.node
            if node.op_type == "MatMulNBits"
        }
        assert found == bits

    def test_what_a_layer_costs_is_measured_with_it_alone(self) -> None:
        model, split = transformer(fused=False)
        given = {"block_size": 16, "algorithm": "rtn", "compute": "float32"}
        told = apply("quantize_weights", model, split, mean_bits=4.01, **given).statistics
        others = [name for name in told["output_cost"] if name != "head"]
        alone = apply("quantize_weights", model, split, keep=others, **given).statistics
        assert alone["output_sqnr_db"] == pytest.approx(
            -10 * np.log10(told["output_cost"]["head"]), abs=0.1
        )
