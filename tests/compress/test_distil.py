"""Distillation and fine-tuning: a damaged student learns again, with labels and without."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lepton_compress.artifacts import Model
from lepton_compress.compress.training import Schedule, deterministic, task_loss, train
from lepton_compress.errors import InputError, LeptonError
from lepton_compress.load import forms
from lepton_compress.report.silent import Silent
from tests.compress.modules import CLASSES, Plain, accuracy, apply, dataset, model_of

DATA = dataset()


@pytest.fixture(scope="module")
def teacher() -> Model:
    """A model that is good at its task."""
    model = model_of(Plain)
    with deterministic(0, 1):
        train(
            model.value,
            DATA.train.named(["x"]),
            lambda outputs, _, targets: task_loss(outputs, targets),
            Schedule(epochs=6, batch_size=16, learning_rate=5e-3),
            observer=Silent(),
            label="training",
        )
    assert accuracy(model, DATA.evaluation) > 0.95
    return model


@pytest.fixture(scope="module")
def student(teacher: Model) -> Model:
    """The teacher with half of its channels gone."""
    made = apply("prune", teacher, ratio="75 %", scope="local", round_to=1).model
    assert accuracy(made, DATA.evaluation) < 0.95
    return made


class TestDistil:
    def test_the_student_gets_close_to_the_teacher(self, teacher: Model, student: Model) -> None:
        outcome = apply("distil", student, original=teacher, epochs=6, learning_rate=0.01)
        assert accuracy(outcome.model, DATA.evaluation) > accuracy(student, DATA.evaluation)
        assert outcome.statistics["loss"][1] < outcome.statistics["loss"][0]
        assert outcome.notes == ()
        assert not outcome.model.value.training

    @pytest.mark.parametrize("share", ["0 %", "30 %"])
    def test_needs_no_labels(self, teacher: Model, student: Model, share: str) -> None:
        data = dataset(labels=False)
        outcome = apply(
            "distil", student, data, original=teacher, epochs=6, learning_rate=0.01, labels=share
        )
        assert accuracy(outcome.model, DATA.evaluation) > accuracy(student, DATA.evaluation)
        # The share was asked for and cannot be had: that is said, not passed over.
        said = "the train split has no targets: distilled from the teacher alone"
        assert outcome.notes == ((said,) if share != "0 %" else ())

    def test_the_teacher_is_left_alone(self, teacher: Model, student: Model) -> None:
        before = forms.fingerprint(teacher)
        apply("distil", student, original=teacher, epochs=1)
        assert forms.fingerprint(teacher) == before

    def test_twice_is_the_same_and_another_seed_is_not(
        self, teacher: Model, student: Model
    ) -> None:
        marks = [
            forms.fingerprint(apply("distil", student, original=teacher, epochs=1, seed=seed).model)
            for seed in (0, 0, 1)
        ]
        assert marks[0] == marks[1] != marks[2]

    def test_a_loss_that_is_not_finite_ends_it(self, teacher: Model, student: Model) -> None:
        broken = forms.duplicate(teacher)
        broken.value.scores.weight.data.fill_(float("inf"))
        with pytest.raises(LeptonError, match="training: the loss became"):
            apply("distil", student, original=broken, epochs=1)

    def test_values_are_learnt_by_their_squared_difference(self) -> None:
        class Value(nn.Module):
            def __init__(self, seed: int = 0) -> None:
                super().__init__()
                torch.manual_seed(seed)
                self.last = nn.Linear(36, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                made: torch.Tensor = self.last(x.flatten(1))
                return made

        taught, learnt = model_of(Value(0)), model_of(Value(1))
        data = dataset(labels=False)
        outcome = apply("distil", learnt, data, original=taught, epochs=40, learning_rate=0.05)
        assert outcome.statistics["loss"][1] < 0.05 * outcome.statistics["loss"][0]

    def test_a_teacher_of_another_form_is_refused(self, student: Model) -> None:
        original = student.replace(form="program")
        with pytest.raises(InputError, match="distil: the teacher is not a torch module"):
            apply("distil", student, original=original, epochs=1)


class TestFinetune:
    def test_learns_from_the_labels(self) -> None:
        fresh = model_of(Plain)
        outcome = apply("finetune", fresh, epochs=6, learning_rate=0.005)
        assert accuracy(outcome.model, DATA.evaluation) > 0.9
        assert outcome.statistics["epochs"] == 6

    def test_needs_labels(self) -> None:
        with pytest.raises(InputError, match="the train split has no targets; use distil"):
            apply("finetune", model_of(Plain), dataset(labels=False), epochs=1)

    def test_twice_is_the_same(self) -> None:
        marks = {
            forms.fingerprint(apply("finetune", model_of(Plain), epochs=1).model) for _ in "ab"
        }
        assert len(marks) == 1

    def test_dropout_is_on_while_it_trains_and_off_after(self) -> None:
        seen: list[bool] = []

        class Drops(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.last = nn.Linear(36, CLASSES)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                seen.append(self.training)
                made: torch.Tensor = self.last(x.flatten(1))
                return made

        outcome = apply("finetune", model_of(Drops), epochs=1, validation="0 %")
        assert seen
        assert all(seen)
        assert not outcome.model.value.training
