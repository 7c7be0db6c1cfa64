"""SmoothQuant on a transformer as torch makes it, and on small graphs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from lepton_compress.artifacts import Model, Split
from lepton_compress.export.lower import lower
from lepton_compress.load.forms import duplicate, input_specs
from tests.compress.nets import (
    apply,
    decibels,
    mlp,
    model_of,
    normal,
    outputs,
    recurrent,
    transformer,
)

OUTLIER = 3


class Encoder(nn.Module):
    """Takes x (batch, 10, 12), gives scores (batch, 5). Each layer normalisation has one channel
    far larger than the others, as large trained transformers do."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 32)
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, 0.0, activation, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)
        for each in self.parameters():  # the layers are copies of each other before
            if each.ndim > 1:
                nn.init.xavier_uniform_(each)
            else:
                nn.init.normal_(each, each.mean().item(), 0.1)
        with torch.no_grad():
            for block in self.encoder.layers:
                for norm in (block.norm1, block.norm2):
                    norm.weight[OUTLIER], norm.bias[OUTLIER] = 40.0, 20.0
                block.self_attn.in_proj_weight[:, OUTLIER] /= 30
                block.linear1.weight[:, OUTLIER] /= 30

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.head(self.encoder(self.embed(x)).mean(1))
        return made


@functools.cache
def _encoder(activation: str) -> tuple[Model, Split]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Encoder(activation).eval()
    split = Split({"x": np.random.default_rng(0).normal(size=(48, 10, 12)).astype("f4")})
    model = Model("module", net, input_specs(split.inputs, ["x"]), ("scores",))
    return lower(model, split), split


def encoder(activation: str) -> tuple[Model, Split]:
    model, split = _encoder(activation)
    return duplicate(model), split


def quality(model: Model, split: Split, **parameters: Any) -> float:
    made = apply("quantize", model, split, saturating=False, **parameters)
    assert made.statistics["weighted"]["float"] == {}
    noise: float = made.statistics["output_sqnr_db"]
    return noise


class TestTransformer:
    @pytest.mark.parametrize("activation", ["relu", "gelu"])
    def test_static_int8_gains_and_float_stays(self, activation: str) -> None:
        model, split = encoder(activation)
        made = apply("smooth", model, split)
        assert made.changed
        assert decibels(outputs(model, split), outputs(made.model, split)) > 110
        assert quality(made.model, split) > quality(model, split) + 8

    def test_what_took_the_factors_up_is_told(self) -> None:
        model, split = encoder("gelu")
        told = apply("smooth", model, split).statistics
        norms = [each for each in told["smoothed"].values() if "LayerNormalization" in str(each)]
        assert len(norms) == 4
        for each in norms:
            assert each["outlier"]["channel"] == OUTLIER
            assert each["outlier"]["before"] > 20 > each["outlier"]["after"]
            assert each["layers_sqnr_db"]["after"] > each["layers_sqnr_db"]["before"] + 10
        held = [why for why in told["held"].values() if "Gelu" in why]
        assert len(held) == 2

    @pytest.mark.parametrize("alpha", [0.3, 0.5, 0.9])
    def test_a_given_share_is_taken_everywhere(self, alpha: float) -> None:
        model, split = encoder("relu")
        made = apply("smooth", model, split, alpha=alpha)
        assert {each["alpha"] for each in made.statistics["smoothed"].values()} == {alpha}
        assert decibels(outputs(model, split), outputs(made.model, split)) > 110
        # Through attention into the projection of the values, and through Relu.
        into = [name for each in made.statistics["smoothed"].values() for name in each["into"]]
        assert sum("Gemm" in name for name in into) == 4

    def test_behind_gelu_a_multiplication_only_if_asked(self) -> None:
        model, split = encoder("gelu")
        plain, more = (apply("smooth", model, split, alpha=0.5, insert=x) for x in (False, True))
        count = [[n.op_type for n in m.model.value.graph.node].count("Mul") for m in (plain, more)]
        assert count[1] - count[0] == 4  # behind the input, two Gelus and the residual sum
        assert decibels(outputs(model, split), outputs(more.model, split)) > 110
        assert not any("Gelu" in why for why in more.statistics["held"].values())

    def test_kept_layers_are_left(self) -> None:
        model, split = encoder("relu")
        named = [node.name for node in model.value.graph.node if node.op_type == "Gemm"][:3]
        made = apply("smooth", model, split, alpha=0.5, keep=named)
        layers = {name for each in made.statistics["smoothed"].values() for name in each["layers"]}
        assert not layers & set(named)
        assert layers


class TestGraphs:
    def test_three_projections_share_one_scale(self) -> None:
        model, split = projections()
        made = apply("smooth", model, split, alpha=0.5)
        told = made.statistics["smoothed"]["n"]
        assert (told["layers"], told["into"]) == (["q", "k", "v"], ["norm"])
        assert decibels(outputs(model, split), outputs(made.model, split)) > 110
        assert quality(made.model, split) > quality(model, split) + 5
        held = {t.name: numpy_helper.to_array(t) for t in made.model.value.graph.initializer}
        before = {t.name: numpy_helper.to_array(t) for t in model.value.graph.initializer}
        ratios = [held[f"w{name}"] / before[f"w{name}"] for name in "qkv"]
        for each in ratios:
            np.testing.assert_allclose(each, ratios[0][:, :1] * np.ones_like(each), rtol=1e-5)

    def test_a_residual_path_holds_the_factors(self) -> None:
        model, split = projections(residual=True)
        made = apply("smooth", model, split, alpha=0.5)
        assert not made.changed
        assert "an output of the model" in made.notes[0]

    def test_shared_constants_are_taken_apart(self) -> None:
        model, split = projections(shared=True)
        made = apply("smooth", model, split, alpha=0.5)
        assert made.changed
        assert decibels(outputs(model, split), outputs(made.model, split)) > 110
        # The copy that nothing changed is gone again.
        names = [tensor.name for tensor in made.model.value.graph.initializer]
        assert len(names) == len(set(names)) == len(model.value.graph.initializer) + 1

    def test_a_shared_weight_holds_the_factors(self) -> None:
        model, split = projections()
        for node in model.value.graph.node:
            if node.name in ("k", "v"):
                node.input[1] = "wq"
        made = apply("smooth", model, split, alpha=0.5)
        assert not made.changed
        assert "a weight that several nodes share" in made.notes[0]

    def test_even_channels_are_left(self) -> None:
        made = apply("smooth", *mlp(), gain=6.0)
        assert not made.changed
        assert "would not gain 6 dB" in made.notes[0]

    @pytest.mark.parametrize(
        "net", [lambda: transformer(fused=False), lambda: recurrent("LSTM")], ids=["bert", "lstm"]
    )
    def test_other_networks_compute_the_same(self, net: Any) -> None:
        model, split = net()
        made = apply("smooth", model, split, alpha=0.5, insert=True)
        assert made.changed
        assert decibels(outputs(model, split), outputs(made.model, split)) > 100

    def test_the_same_bytes_again(self) -> None:
        made = [apply("smooth", *projections()) for _ in range(2)]
        assert made[0].statistics == made[1].statistics
        first, second = (each.model.value.SerializeToString(deterministic=True) for each in made)
        assert first == second


def projections(*, residual: bool = False, shared: bool = False) -> tuple[Model, Split]:
    """LayerNormalization with an outlier channel, three products of what it gives, summed."""
    rng = np.random.default_rng(0)
    width = 16
    held = {f"w{name}": normal(rng, width, width) for name in "qkv"}
    held |= {"gain": np.ones(width, np.float32), "shift": np.zeros(width, np.float32)}
    held["gain"][5] = 60
    for name in "qkv":
        held[f"w{name}"][5] /= 60
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["n"], "norm"),
        *(helper.make_node("MatMul", ["n", f"w{name}"], [name], name) for name in "qkv"),
        helper.make_node("Add", ["q", "k"], ["qk"], "one"),
        helper.make_node("Add", ["qk", "v"], ["y" if not residual else "s"], "two"),
    ]
    if residual:
        nodes.append(helper.make_node("Add", ["s", "n"], ["y"], "three"))
    if shared:
        held["shift"] += 0.5
        nodes[-1].output[0] = "s"
        nodes.append(helper.make_node("Add", ["s", "shift"], ["y"], "bias"))
    size = ["batch", 6, width]
    model = model_of(nodes, held, ("x", TensorProto.FLOAT, size), ("y", size))
    return model, Split({"x": rng.normal(size=(32, 6, width)).astype(np.float32)})
