"""Teachers other than the original, students other than the model at hand, and what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.distil import Distil
from lepton_compress.errors import InputError, PluginError
from lepton_compress.export.lower import lower
from lepton_compress.load import forms
from tests.compress.modules import CLASSES, Plain, accuracy, apply, dataset, model_of

DATA = dataset()


def learned(width: int = 16, seed: int = 0) -> Model:
    """A model that is good at its task."""
    made = apply(
        "finetune", model_of(lambda: Plain(width), seed), DATA, epochs=6, learning_rate=5e-3
    )
    assert accuracy(made.model, DATA.evaluation) > 0.95
    return made.model


@pytest.fixture(scope="module")
def teacher() -> Model:
    return learned()


def opening(**models: Model) -> Any:
    """Gives the model whose name is the spec's factory."""

    def give(spec: Mapping[str, Any]) -> Model:
        return forms.duplicate(models[spec.get("factory") or spec.get("onnx") or "own"])

    return give


class TestStudent:
    @pytest.mark.parametrize("labels", [True, False])
    def test_a_narrower_one_takes_the_place(self, teacher: Model, labels: bool) -> None:
        fresh = model_of(lambda: Plain(4), seed=7)
        before = accuracy(fresh, DATA.evaluation)
        outcome = apply(
            "distil",
            teacher,
            dataset(labels=labels),
            open=opening(own=fresh),
            student={"args": {"width": 4}},
            epochs=12,
            validation="0 %",
            batch_size=16,
            learning_rate=0.02,
        )
        assert outcome.model.value.first.out_channels == 4
        assert accuracy(outcome.model, DATA.evaluation) > max(0.9, before)
        assert outcome.model.outputs == teacher.outputs
        assert outcome.model.built == {"args": {"width": 4}, "outputs": ["scores"]}

    def test_it_is_read_back_by_what_built_it(self, teacher: Model, tmp_path: Path) -> None:
        give = opening(own=model_of(lambda: Plain(4)))
        made = apply(
            "distil", teacher, DATA, open=give, student={"args": {"width": 4}}, epochs=1
        ).model
        assert made.built is not None
        forms.save(made, give(made.built), tmp_path)
        asked = []

        def other(spec: Mapping[str, Any]) -> Model:
            asked.append(spec)
            built: Model = give(spec)
            return built

        read = forms.load(tmp_path, lambda: teacher, other)
        assert asked == [made.built] == [read.built]
        assert forms.fingerprint(read) == forms.fingerprint(made)
        with pytest.raises(PluginError, match="nothing was given to build the model"):
            forms.load(tmp_path, lambda: teacher)

    def test_its_outputs_must_match(self, teacher: Model) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.last = nn.Linear(36, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                made: torch.Tensor = self.last(x.flatten(1))
                return made

        says = (
            r"^distil: student: the outputs of the student do not match: it gives \[batch, 2\], "
            r"the model \[batch, 3\]; take a student with the same outputs"
        )
        with pytest.raises(InputError, match=says):
            apply("distil", teacher, open=opening(two=model_of(Two())), student={"factory": "two"})

    def test_its_inputs_must_match(self, teacher: Model) -> None:
        other = model_of(Plain)
        named = other.replace(inputs=(replace(other.inputs[0], name="picture"),))
        says = r"student: takes picture float32\[batch, 1, 6, 6\], and the model x float32"
        with pytest.raises(InputError, match=says):
            apply("distil", teacher, open=opening(other=named), student={"factory": "other"})


class TestTeacher:
    def test_an_onnx_file_teaches_as_its_module_does(self, teacher: Model) -> None:
        lowered = lower(teacher, Split({"x": DATA.calibration.inputs["input"]}))
        graph = Model("graph", lowered.value, *forms.signature(lowered.value))
        asked: dict[str, Any] = {"epochs": 8, "batch_size": 16, "learning_rate": 0.01}
        asked["validation"] = "0 %"
        student, data = model_of(lambda: Plain(4)), dataset(labels=False)
        by_file, by_module = (
            apply("distil", student, data, original=model_of(Plain), open=give, **asked, **given)
            for give, given in (
                (opening(file=graph), {"teacher": {"onnx": "file"}}),
                (opening(net=teacher), {"teacher": {"factory": "net"}}),
            )
        )
        first, second = (each.statistics["terms"]["outputs"] for each in (by_file, by_module))
        np.testing.assert_allclose(first, second, rtol=1e-3)
        assert first[1] < 0.7 * first[0]
        assert by_file.statistics["teacher"] == {"onnx": "file"}

    def test_its_outputs_must_match(self, teacher: Model) -> None:
        class Wide(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.last = nn.Linear(36, CLASSES + 1)

            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                made: torch.Tensor = self.last(x.flatten(1))
                return made, made

        says = (
            r"^distil: teacher: the outputs of the teacher do not match: it gives \[batch, 4\] and "
            r"\[batch, 4\], the student \[batch, 3\]"
        )
        wide = model_of(Wide()).replace(outputs=("one", "two"))
        with pytest.raises(InputError, match=says):
            apply("distil", teacher, open=opening(wide=wide), teacher={"factory": "wide"})

    def test_it_is_adapted_first(self, teacher: Model) -> None:
        strange = model_of(Plain, seed=3)  # it knows nothing of these data
        pupil = model_of(lambda: Plain(4), seed=7)
        whole = {"epochs": 16, "batch_size": 16, "learning_rate": 0.01, "validation": "0 %"}
        asked: dict[str, Any] = {"labels": "0 %", **whole}
        plain, adapted = (
            apply("distil", pupil, DATA, original=strange, teacher=given, **asked)
            for given in ({}, {"adapt": whole})
        )
        assert accuracy(adapted.model, DATA.evaluation) > accuracy(plain.model, DATA.evaluation)
        losses = adapted.statistics["adapted"]["loss"]
        assert losses[1] < losses[0]

    def test_one_that_does_not_fit_the_data_is_told(self, teacher: Model) -> None:
        strange = model_of(Plain, seed=3)
        outcome = apply("distil", teacher, DATA, original=strange, epochs=1)
        assert any("adapt the teacher to these data" in each for each in outcome.notes)
        held = outcome.statistics["label_loss"]
        assert held["teacher"] > held["student"]
        assert apply("distil", strange, DATA, original=teacher, epochs=1).notes == ()

    def test_it_cannot_be_adapted_without_labels(self, teacher: Model) -> None:
        with pytest.raises(InputError, match="cannot be adapted: the train split has no targets"):
            apply(
                "distil", teacher, dataset(labels=False), teacher={"adapt": {"epochs": 1}}, epochs=1
            )

    def test_one_that_cannot_be_opened_is_named(self, teacher: Model) -> None:
        def missing(_: Mapping[str, Any]) -> Model:
            raise InputError("no such file", where="big.py", mend="check it")

        with pytest.raises(InputError, match=r"^distil: teacher: big\.py: no such file; check it"):
            apply("distil", teacher, open=missing, teacher={"factory": "big.py:Net"})


class TestParams:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"teacher": {"onnx": "a.onnx", "factory": "a:b"}}, "give either onnx, or a factory"),
            ({"teacher": {"onnx": "a.onnx", "adapt": {}}}, "an ONNX file cannot be trained"),
            ({"teacher": {"onnx": "a.onnx"}, "features": "auto"}, "shows its outputs alone"),
            ({"weights": {"outputs": 0}}, "leave nothing to learn from the teacher"),
            ({"features": "most"}, "auto"),
            ({"features": {}}, "at least 1"),
        ],
    )
    def test_contradictions_are_refused(self, given: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            Distil.model_validate(given)

    def test_models_are_told_as_a_recipe_says_them(self) -> None:
        assert Distil().models() == ()
        held = Distil.model_validate(
            {"teacher": {"onnx": "big.onnx"}, "student": {"args": {"width": 4}}}
        )
        assert held.models() == ({"onnx": "big.onnx"}, {"args": {"width": 4}})
        assert held.replaces
        assert not Distil().replaces
        assert Distil.model_validate({"teacher": {"adapt": {"epochs": 2}}}).models() == ()
