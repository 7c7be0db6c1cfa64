"""Losses by name: what they compute, and what they refuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.artifacts import Split
from lepton_compress.compress import losses
from lepton_compress.compress.losses import named, task_loss
from lepton_compress.compress.params import LOSSES, Supervised
from lepton_compress.errors import InputError
from tests.compress.modules import CLASSES, accuracy, apply, dataset, model_of

SCORES = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
DRAW = torch.Generator().manual_seed(0)


def of(name: str, scores: Tensor, targets: Tensor | None, smoothing: float = 0.0) -> float:
    return named(name, smoothing, ("y",), Path())([scores], {}, targets).item()


def test_the_names_that_a_recipe_may_give_are_those_that_are_there() -> None:
    assert set(LOSSES) == set(losses.LOSSES)


class TestAuto:
    def test_of_labels_is_cross_entropy(self) -> None:
        made = task_loss([SCORES], torch.tensor([0, 1]))
        assert torch.equal(made, functional.cross_entropy(SCORES, torch.tensor([0, 1])))

    def test_of_values_is_the_squared_error(self) -> None:
        made = task_loss([SCORES], torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        assert made.item() == pytest.approx(0.25)

    def test_of_one_probability_is_binary(self) -> None:
        made = task_loss([torch.tensor([[0.9], [0.2]])], torch.tensor([1, 0]))
        assert made.item() == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)

    def test_of_one_score_that_is_no_probability_is_refused(self) -> None:
        says = "single score is no probability; end its forward.* or set loss: binary_logits"
        with pytest.raises(InputError, match=says):
            task_loss([torch.tensor([[3.0], [0.2]])], torch.tensor([1, 0]))


class TestNamed:
    def test_logits_and_probabilities_agree(self) -> None:
        scores, labels = torch.tensor([[1.5], [-0.3]]), torch.tensor([1, 0])
        given = of("binary_logits", scores, labels)
        assert given == pytest.approx(of("binary", scores.sigmoid(), labels))
        several, marks = torch.randn(4, 3, generator=DRAW), torch.tensor([[1, 0, 1]] * 4)
        given = of("multi_label_logits", several, marks)
        assert given == pytest.approx(of("multi_label", several.sigmoid(), marks))

    def test_smoothing_spreads_labels(self) -> None:
        labels = torch.tensor([0, 1])
        wanted = functional.cross_entropy(SCORES, labels, label_smoothing=0.2).item()
        assert of("cross_entropy", SCORES, labels, 0.2) == pytest.approx(wanted)
        assert wanted != pytest.approx(of("cross_entropy", SCORES, labels))

    def test_padding_of_sequences_counts_nothing(self) -> None:
        scores = torch.randn(2, 3, 4, generator=DRAW)
        labels = torch.tensor([[1, 2, -1], [3, -100, -1]])
        kept = torch.stack([scores[0, 0], scores[0, 1], scores[1, 0]])
        wanted = functional.cross_entropy(kept, torch.tensor([1, 2, 3])).item()
        assert of("sequence", scores, labels) == pytest.approx(wanted)

    def test_ctc_sums_over_all_alignments(self) -> None:
        scores = torch.randn(1, 2, 3, generator=DRAW)
        chance = scores.softmax(2)[0]
        # Two places say the one label in three ways: twice, before the blank, and behind it.
        paths = [(2, 2), (2, 0), (0, 2)]
        total = sum(float(chance[0, first] * chance[1, second]) for first, second in paths)
        assert of("ctc", scores, torch.tensor([[2, -1]])) == pytest.approx(-np.log(total), rel=1e-5)

    @pytest.mark.parametrize(
        ("name", "scores", "targets", "says"),
        [
            ("cross_entropy", SCORES, torch.tensor([0.5, 1.0]), "takes whole numbers as labels"),
            ("binary", torch.tensor([0.5, 0.2]), torch.tensor([0, 2]), "are 0 and 1"),
            ("multi_label", SCORES * 2, torch.ones(2, 2), "no probabilities; .*multi_label_logits"),
            ("ctc", torch.zeros(1, 4, 3), torch.tensor([[0, 1]]), "0 is the blank"),
            ("ctc", torch.zeros(1, 4, 3), torch.tensor([[3, 1]]), "run from 1 to 2"),
            ("regression", SCORES, None, "the train split has no targets; use distil"),
        ],
    )
    def test_labels_that_do_not_suit_are_told(
        self, name: str, scores: Tensor, targets: Tensor | None, says: str
    ) -> None:
        with pytest.raises(InputError, match=says):
            of(name, scores, targets)

    @pytest.mark.parametrize("name", ["binary", "multi_label", "sequence", "ctc", "regression"])
    def test_shapes_that_do_not_suit_are_told(self, name: str) -> None:
        with pytest.raises(InputError, match=r"outputs \[\[15, 3\]\] against the targets \[15\]"):
            apply("finetune", model_of(Wide), epochs=1, loss=name, batch_size=15)

    def test_an_unknown_name_suggests_one(self) -> None:
        with pytest.raises(ValidationError, match="unknown loss 'cross_entropie'; did you mean"):
            Supervised(loss="cross_entropie")


class Wide(nn.Module):
    """Takes x (batch, 1, 6, 6), gives scores."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(36, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.last(x.flatten(1))
        return made


OWN = """
from torch.nn import functional

def squared(outputs, targets):
    return (1 - outputs["scores"].softmax(1)[range(len(targets)), targets]).square().mean()

def each(outputs, targets):
    return outputs["scores"].sum(1)

def aside(outputs, targets):
    return outputs["scores"].detach().mean()

def wrong(outputs, targets):
    return outputs["score"].mean()
"""


class TestOwn:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Any:
        (tmp_path / "own.py").write_text(OWN)
        return lambda name: f"{tmp_path / 'own.py'}:{name}"

    def test_a_function_of_outputs_by_name_trains(self, own: Any) -> None:
        data = dataset()
        outcome = apply(
            "finetune", model_of(Wide), data, loss=own("squared"), epochs=8, learning_rate=0.02
        )
        assert accuracy(outcome.model, data.evaluation) > 0.9

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("each", r"returned \[15\], not a scalar tensor of floats; return the mean"),
            ("aside", "no gradient leads back from"),
            ("wrong", "raised KeyError: 'score'"),
            ("lost", "has no 'lost'"),
        ],
    )
    def test_what_it_does_wrong_is_told(self, own: Any, name: str, says: str) -> None:
        with pytest.raises(InputError, match=says):
            apply("finetune", model_of(Wide), loss=own(name), epochs=1, batch_size=15)

    def test_it_may_do_without_labels(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text(
            "def f(outputs, targets):\n    return outputs['scores'].var()"
        )
        data = dataset(labels=False)
        outcome = apply("finetune", model_of(Wide), data, loss=f"{tmp_path}/own.py:f", epochs=1)
        assert outcome.statistics["judged_by"]["value"] == "loss"


def test_a_split_without_labels_is_refused_before_training() -> None:
    data = dataset(labels=False)
    with pytest.raises(InputError, match=re.escape("the train split has no targets; use distil")):
        apply("finetune", model_of(Wide), data, epochs=1)
    assert isinstance(data.train, Split)
