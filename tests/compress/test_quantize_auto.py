"""The search for the fastest int8 graph within a budget: what it takes, declines and tells."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import (
    Dataset,
    MetricOutcome,
    Model,
    Place,
    Split,
    StepContext,
    StepOutcome,
)
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call, duplicate
from lepton_compress.registry import get
from tests.compress.nets import Silent, apply, mlp, model_of, normal, recurrent

HERE = Place("here", "onnxruntime-cpu", 1, 1)


def accuracy(outputs: Any, targets: Any) -> MetricOutcome:
    hits = (outputs["scores"].argmax(1) == targets).astype(float)
    return MetricOutcome(float(hits.mean()), True, hits)


def search(
    model: Model, split: Split, /, untimed: tuple[str, ...] = (), **parameters: Any
) -> StepOutcome:
    plugin = get("step", "quantize_auto")
    context = StepContext(
        data=Dataset(split, split, split, "none"),
        original=lambda: duplicate(model),
        seed=0,
        threads=1,
        observer=Silent(),
        targets=() if untimed and "target" not in parameters else (HERE,),
        metric=accuracy,
        untimed=untimed,
    )
    given = {"patience": "200 ms"} | parameters
    outcome: StepOutcome = plugin.function(model, plugin.params(**given), context)
    json.dumps(outcome.statistics, allow_nan=False)
    return outcome


def images(*, outlier: bool = False, between: str = "Relu") -> tuple[Model, Split]:
    """Four 3x3 convolutions over 64 channels, wide enough to gain much from int8. With `outlier`
    one value in 64 that the third convolution takes is a thousand times the others, and is met by
    weights of nearly zero: eight bits for all of them leave nothing of the others. `between` is the
    activation function before it."""
    rng = np.random.default_rng(0)
    weights = {"w0": normal(rng, 64, 4, 3, 3)}
    nodes, last = [], "x"
    for place in range(4):
        weights.setdefault(f"w{place}", normal(rng, 64, 64, 3, 3) * 1.5)
        kind = between if place == 1 else "Relu"
        nodes += [
            helper.make_node(
                "Conv", [last, f"w{place}"], [f"c{place}"], f"conv{place}", pads=[1] * 4
            ),
            helper.make_node(kind, [f"c{place}"], [f"r{place}"], f"relu{place}"),
        ]
        last = f"r{place}"
    if outlier:
        weights["w1"][0] *= 1000
        weights["w2"][:, 0] *= 1e-4
    weights |= {"v": normal(rng, 5, 64)}
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "v"], ["scores"], "scores", transB=1),
    ]
    size = ["batch", 4, 24, 24]
    model = model_of(nodes, weights, ("x", TensorProto.FLOAT, size), ("scores", ["batch", 5]))
    made = Split({"x": rng.normal(size=(48, 4, 24, 24)).astype(np.float32)})
    labels = call(model, dict(made.inputs))["scores"].argmax(1)
    return model, Split(made.inputs, labels)


class TestChoice:
    def test_what_is_faster_and_within_the_budget_is_taken(self) -> None:
        model, split = images()
        made = search(model, split, drop="20 %")
        assert made.changed
        assert not made.unmet
        held = made.statistics
        (written,) = held["recipe"]
        ((step, parameters),) = ({written: {}} if isinstance(written, str) else written).items()
        # What was found is a plain step, and that makes the same graph.
        again = apply(step, model, split, **parameters) if step == "quantize" else made
        assert again.model.value.SerializeToString(deterministic=True) == (
            made.model.value.SerializeToString(deterministic=True)
        )
        raced = [each for each in held["tried"] if each.get("against") == "float"]
        assert min(each["ratio_interval"][1] for each in raced) < 1
        assert held["judged_by"] == "the first metric"
        assert held["judged_on"] == "48 samples of the train split"
        assert "of float's time on here" in made.notes[0]

    def test_float_stays_where_nothing_is_faster(self) -> None:
        rng = np.random.default_rng(0)
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv", group=4),
            helper.make_node("Flatten", ["c"], ["scores"], "flatten"),
        ]
        model = model_of(
            nodes,
            {"w": normal(rng, 4, 1, 1, 1)},
            ("x", TensorProto.FLOAT, ["batch", 4, 1, 1]),
            ("scores", ["batch", 4]),
        )
        inputs = {"x": rng.normal(size=(48, 4, 1, 1)).astype(np.float32)}
        labels = call(model, inputs)["scores"].argmax(1)
        made = search(model, Split(inputs, labels), drop="50 %")
        assert not made.changed
        assert made.model is model
        assert made.declined.startswith("float stays: the fastest int8 graph")
        assert "of its time on here" in made.declined
        assert made.statistics["tried"]

    @pytest.mark.parametrize(("between", "repaired"), [("Relu", True), ("Elu", False)])
    def test_what_costs_accuracy_is_repaired_or_left_in_float(
        self, between: str, repaired: bool
    ) -> None:
        model, split = images(outlier=True, between=between)
        plain = apply("quantize", model, split)
        wanted, given = (call(each, dict(split.inputs))["scores"] for each in (model, plain.model))
        lost = float((wanted.argmax(1) != given.argmax(1)).mean())
        assert lost > 0.1, "the planted fault does no harm"
        made = search(model, split, drop="5 %")
        assert made.changed
        assert not made.unmet
        *repairs, quantize = made.statistics["recipe"]
        if repaired:
            # A factor for each channel passes a Relu, and no Elu.
            assert repairs
        else:
            # The tensor between them stays float only if both do.
            kept = set(quantize["quantize"]["keep"])
            assert {"conv1", "conv2"} <= kept
            assert not {"conv0", "conv3"} & kept

    def test_a_budget_that_cannot_be_met_keeps_the_best_attempt(self) -> None:
        model, split = images()
        # Without labels and classes every rounding shows, and none is allowed.
        made = search(single(model), Split(split.inputs), drop=0, evaluations=4)
        assert made.changed
        assert "the budget of 0.00 % is not met" in made.unmet
        assert made.statistics["judged_by"] == "the relative error of the outputs"


class TestWhereNothingCanBeTimed:
    """A target without ONNX Runtime on this machine, as an NPU is one."""

    @pytest.fixture(autouse=True)
    def _no_race(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def race(*given: Any, **more: Any) -> Any:
            raise AssertionError("raced on this machine")

        module = importlib.import_module("lepton_compress.compress.auto_int8")
        monkeypatch.setattr(module, "race", race)

    @pytest.mark.parametrize("target", [None, "npu"])
    def test_int8_is_chosen_by_accuracy_alone(self, target: str | None) -> None:
        model, split = images()
        asked = {"target": target} if target else {}
        made = search(model, split, ("npu",), drop="20 %", **asked)
        assert made.changed
        assert not made.unmet
        assert made.notes[0].startswith("static int8: ")
        assert "by accuracy alone, as npu cannot be timed on this machine" in made.notes[0]
        assert made.statistics["target"] == "npu"
        assert not any("ratio" in each for each in made.statistics["tried"])
        ((step, parameters),) = _written(made)
        again = apply(step, model, split, **parameters)
        assert again.model.value.SerializeToString(deterministic=True) == (
            made.model.value.SerializeToString(deterministic=True)
        )

    def test_what_costs_accuracy_is_left_in_float(self) -> None:
        model, split = images(outlier=True, between="Elu")
        made = search(model, split, ("npu",), drop="5 %")
        assert not made.unmet
        kept = set(made.statistics["recipe"][-1]["quantize"]["keep"])
        assert {"conv1", "conv2"} <= kept
        assert not {"conv0", "conv3"} & kept

    @pytest.mark.slow
    def test_a_budget_that_cannot_be_met_is_told(self) -> None:
        model, split = images()
        made = search(single(model), Split(split.inputs), ("npu",), drop=0, evaluations=4)
        assert "the budget of 0.00 % is not met" in made.unmet

    def test_what_cannot_be_static_is_dynamic(self) -> None:
        model, split = recurrent("LSTM")
        made = search(model, split, ("npu",), drop="50 %")
        assert made.changed


def _written(made: StepOutcome) -> list[tuple[str, dict[str, Any]]]:
    """The steps that the statistics name."""
    return [
        (each, {}) if isinstance(each, str) else next(iter(each.items()))
        for each in made.statistics["recipe"]
    ]


def single(model: Model) -> Model:
    """The model with one score a sample, which no class can be read off."""
    made = duplicate(model).value
    weight = next(each for each in made.graph.initializer if each.name == "v")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:1].copy(), "v"))
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    return Model("graph", made, model.inputs, model.outputs)


class TestInput:
    def test_without_labels_changed_predictions_count(self) -> None:
        model, split = images()
        made = search(model, Split(split.inputs), drop="20 %")
        assert made.statistics["judged_by"] == "the share of changed predictions"

    def test_recurrent_models_are_tried_dynamic(self) -> None:
        model, split = recurrent("LSTM")
        made = search(model, split, drop="50 %")
        assert any("dynamic" in each["what"] for each in made.statistics["tried"])

    def test_a_node_that_is_not_there(self) -> None:
        model, split = mlp()
        with pytest.raises(InputError, match="quantize_auto: keep: there is no node 'hiden'"):
            search(model, split, keep=["hiden"])

    def test_a_quantised_model_is_refused(self) -> None:
        model, split = mlp()
        with pytest.raises(InputError, match="quantised already"):
            search(apply("quantize", model, split).model, split)

    def test_an_unknown_target_is_found_before_anything_runs(self) -> None:
        plugin = get("step", "quantize_auto")
        assert plugin.requires is not None
        params = plugin.params.model_validate
        said = plugin.requires(params({"target": "egde"}), ("edge", "cloud"))
        assert said == ["target: the recipe has no target 'egde'; did you mean 'edge'?"]
        assert plugin.requires(params({"target": "edge"}), ("edge",)) == []
