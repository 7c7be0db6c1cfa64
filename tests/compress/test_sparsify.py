"""Zeros: how many, which, what they do to the outputs, and that they stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress import masks
from lepton_compress.compress.sparsify import Sparsify
from lepton_compress.compress.sparsity import _columns, _matrix
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from lepton_compress.registry import get
from tests.compress.modules import Plain, Separable, accuracy, apply, dataset, model_of

DATA = dataset()
METHODS = ("magnitude", "wanda", "sparsegpt")


@pytest.fixture(scope="module")
def trained() -> Model:
    asked: dict[str, Any] = {"epochs": 6, "batch_size": 16, "learning_rate": 5e-3}
    return apply("finetune", model_of(Plain), DATA, **asked).model


def zeros(model: Model, name: str) -> float:
    weight = model.value.get_submodule(name).weight
    return float((weight == 0).float().mean())


def outputs(model: Model) -> np.ndarray:
    return forms.call(model, dict(DATA.calibration.named(["x"]).inputs))["scores"]


class TestHowMany:
    @pytest.mark.parametrize("method", METHODS)
    def test_of_each_layer(self, trained: Model, method: str) -> None:
        outcome = apply("sparsify", trained, DATA, sparsity="75 %", method=method)
        for name in ("first", "second", "hidden", "scores"):
            assert zeros(outcome.model, name) == pytest.approx(0.75, abs=0.06)
            counted = outcome.statistics["layers"][name]
            assert counted[0] / counted[1] == pytest.approx(zeros(outcome.model, name))
        dense, packed = outcome.statistics["deflated_weights"]
        assert packed < 0.5 * dense
        assert any("nothing runs faster" in each for each in outcome.notes)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(("left", "of"), [(2, 4), (4, 8), (1, 4)])
    def test_of_each_group(self, trained: Model, method: str, left: int, of: int) -> None:
        outcome = apply("sparsify", trained, DATA, pattern=f"{left}:{of}", method=method)
        for name in ("second", "hidden", "scores"):
            matrix = _matrix(outcome.model.value.get_submodule(name).weight)
            assert ((matrix.reshape(len(matrix), -1, of) != 0).sum(-1) <= left).all()
        assert "first stays dense: 1 input channels are no multiple of M" in outcome.notes

    def test_what_is_kept_stays_dense(self, trained: Model) -> None:
        outcome = apply("sparsify", trained, DATA, keep=["first"])
        assert zeros(outcome.model, "first") == 0
        with pytest.raises(InputError, match="sparsify: keep: no layer 'frist'; did you mean"):
            apply("sparsify", trained, DATA, keep=["frist"])


class TestWhich:
    def test_the_smallest(self, trained: Model) -> None:
        made = apply("sparsify", trained, DATA, sparsity="50 %").model
        before, after = (each.value.second.weight.detach().abs() for each in (trained, made))
        assert before[after == 0].max() <= before[after != 0].min()
        np.testing.assert_array_equal(before[after != 0], after[after != 0])

    def test_wanda_knows_that_an_input_is_dead(self) -> None:
        # A large weight on an input that is always nought does nothing.
        model = model_of(Plain)
        with torch.no_grad():
            model.value.second.weight[:4].zero_()
            model.value.second.bias[:4] = -1  # behind the ReLU: 0
            model.value.hidden.weight[:, :16].mul_(10)
        made = apply("sparsify", model, DATA, method="wanda", sparsity="20 %").model
        assert zeros(made, "hidden") >= 0.18
        assert bool((made.value.hidden.weight[:, :12] == 0).all())

    @pytest.mark.parametrize("network", [Plain, Separable])
    def test_the_better_method_is_nearer_to_the_outputs(self, network: type[nn.Module]) -> None:
        model = model_of(network)
        wanted = outputs(model)
        apart = {
            method: np.square(
                outputs(apply("sparsify", model, DATA, sparsity="60 %", method=method).model)
                - wanted
            ).mean()
            for method in METHODS
        }
        assert apart["sparsegpt"] < apart["magnitude"]
        assert apart["sparsegpt"] < apart["wanda"]

    @pytest.mark.parametrize(
        "layer",
        [
            nn.Linear(5, 3),
            nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), bias=False),
            nn.Conv2d(4, 8, 3, padding="same", groups=2, bias=False),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", groups=4, bias=False),
            nn.Conv1d(4, 6, 3, padding=2, bias=False),
        ],
    )
    def test_columns_times_the_matrix_are_the_layer(self, layer: Any) -> None:
        shape = {nn.Linear: (2, 7, 5), nn.Conv1d: (2, 4, 9)}.get(type(layer), (2, 4, 8, 8))
        given = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        groups = getattr(layer, "groups", 1)
        with torch.no_grad():
            parts = zip(
                _columns(layer, given, groups), _matrix(layer.weight).chunk(groups), strict=True
            )
            made = torch.cat([columns @ weight.T for columns, weight in parts], -1)
            wanted = layer(given)
            wanted = wanted - layer.bias if isinstance(layer, nn.Linear) else wanted.movedim(1, -1)
        np.testing.assert_allclose(made, wanted.flatten(0, -2), atol=1e-5)


class TestTheyStay:
    @pytest.mark.parametrize("step", ["finetune", "distil"])
    def test_through_training(self, trained: Model, step: str, tmp_path: Path) -> None:
        sparse = apply("sparsify", trained, DATA, pattern="2:4").model
        forms.save(sparse, trained, tmp_path)
        read = forms.load(tmp_path, lambda: forms.duplicate(trained))  # the mask is kept as data
        made = apply(step, read, DATA, original=trained, epochs=2, learning_rate=0.01).model
        for name, weight in masks.sparse(sparse.value).items():
            after = made.value.get_parameter(name)
            assert bool((after[weight == 0] == 0).all())
            assert bool((after[weight != 0] != weight[weight != 0]).any())
            assert not after._backward_hooks

    def test_without_the_mask_they_would_not(self, trained: Model) -> None:
        sparse = apply("sparsify", trained, DATA).model
        free = forms.duplicate(sparse)
        for each in free.value.modules():
            if hasattr(each, masks.PATTERN):
                delattr(each, masks.PATTERN)
        made = apply("finetune", free, DATA, epochs=1).model
        assert zeros(made, "second") < 0.25  # what is behind a dead ReLU has no gradient

    def test_through_int8(self, trained: Model) -> None:
        from onnx import numpy_helper

        sparse = apply("sparsify", trained, DATA, sparsity="50 %").model
        aware = apply("quantize_aware", sparse, DATA, original=trained, epochs=1).model
        from lepton_compress.export.lower import lower

        lowered = lower(sparse, DATA.calibration)
        plugin = get("step", "quantize")
        from tests.compress.nets import apply as on_graph

        split = Split(dict(DATA.calibration.named(["x"]).inputs))
        quantized = on_graph("quantize", lowered, split).model
        assert plugin.quantizes
        for graph in (aware.value, quantized.value):
            held = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
            weights = [
                node.input
                for node in graph.graph.node
                if node.op_type == "DequantizeLinear" and held.get(node.input[0]) is not None
            ]
            shares = []
            for name, _, *zero in weights:
                if held[name].ndim > 1:
                    point = held[zero[0]] if zero else np.zeros(1)
                    assert not point.any()  # a float zero is the integer zero
                    shares.append((held[name] == 0).mean())
            assert len(shares) == 4
            assert min(shares) >= 0.5  # rounding for the least error moves none


class TestSchedule:
    def test_weights_go_by_and_by(self, trained: Model) -> None:
        schedule = {"epochs": 8, "batch_size": 16, "learning_rate": 5e-3, "updates": 5}
        outcome = apply(
            "sparsify", trained, DATA, original=trained, sparsity="80 %", schedule=schedule
        )
        for name in ("first", "second", "hidden", "scores"):
            assert zeros(outcome.model, name) == pytest.approx(0.8, abs=0.03)
        at_once = apply("sparsify", trained, DATA, sparsity="80 %")
        before, after = (accuracy(each.model, DATA.evaluation) for each in (at_once, outcome))
        assert after >= before
        assert after > 0.9
        assert outcome.statistics["training"]["epochs"] == 8

    def test_it_needs_no_labels(self, trained: Model) -> None:
        data = dataset(labels=False)
        outcome = apply("sparsify", trained, data, original=trained, schedule={"epochs": 1})
        assert zeros(outcome.model, "second") == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pattern": "2:2"}, "2:2 would leave every weight"),
        ({"pattern": "2:4", "sparsity": "60 %"}, "2:4 is 50 %"),
        ({"pattern": "half"}, "pattern"),
        ({"sparsity": "100 %"}, "must be above 0 % and below 100 %"),
        ({"schedule": {}, "method": "wanda"}, "goes with the unstructured pattern"),
        ({"schedule": {}, "pattern": "2:4"}, "goes with the unstructured pattern"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Sparsify.model_validate(given)
