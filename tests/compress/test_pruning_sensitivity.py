"""Which groups matter, and that pruning by it beats pruning evenly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lepton_compress.artifacts import Dataset, MetricOutcome, Model
from lepton_compress.compress.pruning_sensitivity import Curve
from lepton_compress.load import forms
from tests.compress.modules import CLASSES, accuracy, apply, dataset, model_of

WIDE = 32


class Planted(nn.Module):
    """Two branches of equally strong weights: one tells the classes, the other is taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.matters = nn.Linear(36, WIDE)
        self.idle = nn.Linear(36, WIDE)
        self.scores = nn.Linear(2 * WIDE, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        held = [torch.relu(self.matters(x)), torch.relu(self.idle(x))]
        made: torch.Tensor = self.scores(torch.cat(held, 1))
        return made


def planted(data: Dataset) -> Model:
    """Every channel of `matters` is a direction that the classes differ in; those of `idle` say the
    same of every class."""
    model = model_of(Planted)
    net, draw = model.value, torch.Generator().manual_seed(0)
    x = torch.from_numpy(np.array(data.train.named(["x"]).inputs["x"])).flatten(1)
    labels = torch.from_numpy(np.array(data.train.targets))
    means = torch.stack([x[labels == each].mean(0) for each in range(CLASSES)])
    with torch.no_grad():
        rows = torch.arange(WIDE) % CLASSES
        net.matters.weight.copy_(means[rows] + 0.6 * torch.randn(WIDE, 36, generator=draw))
        net.idle.weight.copy_(net.matters.weight.flip(1))
        net.matters.bias.zero_()
        net.idle.bias.zero_()
        reads = torch.zeros(CLASSES, WIDE)
        reads[rows, torch.arange(WIDE)] = 1.0
        # The same for each class: it moves all scores alike.
        net.scores.weight.copy_(torch.cat([reads, torch.full((CLASSES, WIDE), 0.57735)], 1))
        net.scores.bias.zero_()
    return model


def share_right(outputs: dict[str, np.ndarray], targets: np.ndarray) -> MetricOutcome:
    right = (outputs["scores"].argmax(1) == targets).astype(float)
    return MetricOutcome(float(right.mean()), higher_is_better=True, outcomes=right)


@pytest.mark.parametrize("scope", ["sensitivity", "local"])
def test_a_layer_that_matters_is_known(scope: str) -> None:
    data = dataset()
    model = planted(data)
    whole = accuracy(model, data.evaluation)
    given = {"ratio": "50 %", "scope": scope, "round_to": 1, "metric": share_right}
    outcome = apply("prune", model, data, **given)
    widths = outcome.statistics["channels"]
    assert sum(kept for _, kept in widths.values()) <= WIDE
    lost = whole - accuracy(outcome.model, data.evaluation)
    if scope == "local":
        assert widths == {"matters": [32, 16], "idle": [32, 16]}
        return
    assert widths["matters"][1] > 2 * widths["idle"][1]
    even = apply("prune", model, data, **{**given, "scope": "local"})
    # What is taken evenly costs something here, or the test would say nothing.
    assert lost < whole - accuracy(even.model, data.evaluation)
    drops = outcome.statistics["sensitivity"]["drops"]
    assert max(drops["idle"].values()) <= 0.02 < max(drops["matters"].values())
    assert outcome.notes[0].endswith("96 samples of the train split")


def test_a_budget_is_met_by_it() -> None:
    data = dataset()
    outcome = apply(
        "prune", planted(data), data, to={"macs": "0.6x"}, scope="sensitivity", round_to=1
    )
    before, after = outcome.statistics["macs"]
    assert 0.5 < after / before <= 0.6
    # Without a metric, predictions that change are what is lost.
    assert outcome.statistics["sensitivity"]["judged_by"] == "the first metric" or (
        "changed predictions" in outcome.statistics["sensitivity"]["judged_by"]
    )


def test_the_model_that_was_judged_is_left_alone() -> None:
    data = dataset()
    model = planted(data)
    mark = forms.fingerprint(model)
    apply("prune", model, data, ratio="30 %", scope="sensitivity", metric=share_right)
    assert forms.fingerprint(model) == mark


class TestCurve:
    def test_is_straight_between_what_was_tried(self) -> None:
        curve = Curve("a", 16, (12, 8, 4), (0.0, 0.1, 0.3))
        assert [curve.drop(width) for width in (16, 12, 10, 8, 4)] == pytest.approx(
            [0, 0, 0.05, 0.1, 0.3]
        )
        assert curve.drop(2) == pytest.approx(0.4)

    def test_a_group_that_cannot_be_narrower_loses_nothing(self) -> None:
        assert Curve("a", 8, (), ()).drop(8) == 0

    @given(st.lists(st.floats(-1, 1), min_size=1, max_size=5), st.data())
    def test_never_falls_as_the_width_does(self, drops: list[float], data: st.DataObject) -> None:
        widths = tuple(range(len(drops), 0, -1))
        curve = Curve("a", len(drops) + 1, widths, tuple(drops))
        asked = sorted(data.draw(st.lists(st.integers(0, len(drops) + 1), min_size=2)))
        lost = [curve.drop(width) for width in asked]
        assert lost == sorted(lost, reverse=True)
        assert lost[-1] >= 0
