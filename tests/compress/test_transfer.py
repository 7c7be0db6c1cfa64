"""Transfer: a backbone gets the head that the data need, and what it knew is not undone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from lepton_compress.artifacts import Dataset, Model, Split
from lepton_compress.compress.head import with_head
from lepton_compress.compress.transfer import Transfer
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from tests.compress.modules import Plain, accuracy, apply, dataset, model_of

DATA = dataset()


def relabelled(change: Any) -> Dataset:
    """The data with other targets."""

    def of(split: Split) -> Split:
        return replace(split, targets=change(np.asarray(split.targets)))

    return replace(
        DATA, train=of(DATA.train), calibration=of(DATA.calibration), evaluation=of(DATA.evaluation)
    )


TWO = relabelled(lambda targets: (targets > 0).astype(np.int64))


def shape(model: Model) -> tuple[int, ...]:
    return forms.call(model, {"x": np.zeros((2, 1, 6, 6), np.float32)})["scores"].shape


class TestStep:
    def test_it_learns_labels_of_another_number(self) -> None:
        outcome = apply(
            "transfer", model_of(Plain), TWO, epochs=6, learning_rate=0.005, batch_size=16
        )
        assert shape(outcome.model) == (2, 2)
        assert accuracy(outcome.model, TWO.evaluation) > 0.9
        told = outcome.statistics
        assert (told["head"], told["outputs"]) == ("scores", 2)
        assert told["head_training"]["epochs"] == 3
        assert told["training"]["epochs"] == 6

    def test_the_backbone_stays_while_the_head_is_trained(self) -> None:
        model = model_of(Plain)
        made = apply("transfer", model, TWO, epochs=0, head_epochs=2).model.value.state_dict()
        for name, tensor in model.value.state_dict().items():
            if not name.startswith("scores"):
                assert torch.equal(made[name], tensor), name

    def test_twice_is_the_same(self) -> None:
        marks = {
            forms.fingerprint(apply("transfer", model_of(Plain), TWO, epochs=1).model) for _ in "ab"
        }
        assert len(marks) == 1

    def test_what_it_made_is_loaded_again(self, tmp_path: Any) -> None:
        made = apply("transfer", model_of(Plain), TWO, epochs=1).model
        forms.save(made, model_of(Plain), tmp_path)
        assert forms.fingerprint(forms.load(tmp_path, lambda: model_of(Plain))) == (
            forms.fingerprint(made)
        )

    def test_an_untrained_head_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="an untrained head says nothing"):
            Transfer(head_epochs=0, epochs=0)


class Early(nn.Module):
    """Its last layer in the order of definition is not the last that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(4, 3, 1)
        self.first = nn.Conv2d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.scores(torch.relu(self.first(x))).mean((2, 3))
        return made


class Tied(nn.Module):
    """The head shares its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(36, 3, bias=False)
        self.scores = nn.Linear(36, 3, bias=False)
        self.scores.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.scores(x.flatten(1)) + self.table(x.flatten(1))
        return made


class Single(nn.Module):
    """Gives one probability."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(36, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.score(x.flatten(1)))


class TestHead:
    def test_the_last_layer_that_is_called_is_found(self) -> None:
        made, name, count = with_head(model_of(Early), "auto", "auto", TWO)
        assert (name, count) == ("scores", 2)
        assert shape(made) == (2, 2)

    @pytest.mark.parametrize(
        ("module", "data", "count"),
        [
            (Plain, DATA, 3),
            (Single, TWO, 1),
            (Single, DATA, 3),
            (Plain, relabelled(lambda targets: np.eye(3, dtype=np.float32)[targets]), 3),
            (Plain, relabelled(lambda targets: targets.astype(np.float32)), 1),
        ],
    )
    def test_it_is_as_wide_as_the_labels_need(self, module: Any, data: Dataset, count: int) -> None:
        assert with_head(model_of(module), "auto", "auto", data)[2] == count

    def test_the_model_given_is_left_alone(self) -> None:
        model = model_of(Plain)
        before = forms.fingerprint(model)
        with_head(model, "auto", 7, DATA)
        assert forms.fingerprint(model) == before

    @pytest.mark.parametrize(
        ("module", "name", "data", "says"),
        [
            (Plain, "score", DATA, "head score: no such layer: a head is a Linear"),
            (Plain, "norm", DATA, "head norm: norm is a BatchNorm2d: a head is"),
            (Plain, "hidden", TWO, "head hidden: with 2 outputs the model does not run"),
            (Tied, "scores", TWO, "its weights are also another layer's"),
            (Plain, "auto", dataset(labels=False), None),
            (Plain, "auto", relabelled(np.zeros_like), "the data have one class alone"),
        ],
    )
    def test_what_cannot_be_is_told(
        self, module: Any, name: str, data: Dataset, says: str | None
    ) -> None:
        if says is None:  # the evaluation data have labels
            assert with_head(model_of(module), name, "auto", data)[2] == 3
            return
        with pytest.raises(InputError, match=says):
            with_head(model_of(module), name, "auto", data)
