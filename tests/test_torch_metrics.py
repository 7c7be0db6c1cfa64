"""Metrics by torchmetrics and pycocotools, against numbers by hand or by scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compress import evaluate, registry
from lepton_compress.artifacts import MetricOutcome, Score
from lepton_compress.errors import InputError

LABELS = np.array([0, 0, 1, 1, 2, 2])
SCORES = np.array(
    [[9, 1, 0], [1, 9, 0], [0, 9, 1], [0, 8, 1], [5, 0, 4], [0, 1, 9]], dtype=np.float32
)
"""Predicted 0, 1, 1, 1, 0, 2."""


def measure(name: str, outputs: Any, targets: Any, **given: Any) -> MetricOutcome:
    plugin = registry.get("metric", name)
    params = plugin.params.model_validate(given)
    made: MetricOutcome = plugin.call(
        {"y": np.asarray(outputs)}, np.asarray(targets), params, Path()
    )
    return made


@pytest.mark.parametrize(
    ("name", "average", "value"),
    [
        ("precision", "macro", (1 / 2 + 2 / 3 + 1) / 3),
        ("recall", "macro", (1 / 2 + 1 + 1 / 2) / 3),
        ("f1", "macro", (1 / 2 + 4 / 5 + 2 / 3) / 3),
        ("f1", "micro", 4 / 6),
    ],
)
def test_by_class(name: str, average: str, value: float) -> None:
    made = measure(name, SCORES, LABELS, average=average)
    assert made.value == pytest.approx(value)
    assert made.outcomes is None
    assert made.resamples == 500


def test_one_score_is_of_class_1() -> None:
    assert measure("recall", [0.9, 0.4, 0.8, 0.1], [1, 1, 0, 0]).value == 0.5


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    # Of the pairs (0.9, 0.4) x (0.8, 0.1) three are in order.
    assert measure("auroc", [0.9, 0.4, 0.8, 0.1], [1, 1, 0, 0]).value == 0.75
    # Large logits must not be made alike by a sigmoid.
    assert measure("auroc", [900.0, 400.0, 800.0, 100.0], [1, 1, 0, 0]).value == 0.75
    two = np.array([[0.0, 900], [0, 400], [0, 800], [0, 100]])
    assert measure("auroc", two, [1, 1, 0, 0]).value == 0.75


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_several_classes_as_scikit_learn_has_them(name: str) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    labels = draw.integers(3, size=200)
    scores = draw.dirichlet([1, 1, 1], size=200) + 0.3 * np.eye(3)[labels]
    scores /= scores.sum(axis=1, keepdims=True)
    function = {"auroc": "roc_auc_score", "average_precision": "average_precision_score"}[name]
    wanted = getattr(sklearn, function)(np.eye(3)[labels], scores)
    assert measure(name, scores, labels).value == pytest.approx(wanted, abs=1e-6)
    assert measure(name, scores, np.eye(3, dtype=int)[labels]).value == pytest.approx(
        wanted, abs=1e-6
    )


def test_a_class_alone_has_no_ranking() -> None:
    assert math.isnan(measure("auroc", [0.9, 0.4], [1, 1]).value)


@pytest.mark.parametrize("name", ["f1", "auroc"])
def test_scores_that_are_no_numbers_give_none(name: str) -> None:
    broken = SCORES.copy()
    broken[0, 0] = np.nan
    assert math.isnan(measure(name, broken, LABELS).value)


def test_r2() -> None:
    assert measure("r2", [1.0, 2.0, 4.0], [1.0, 2.0, 3.0]).value == pytest.approx(0.5)
    assert math.isnan(measure("r2", [1.0, 2.0], [3.0, 3.0]).value)


class TestWords:
    def test_edits_over_words(self) -> None:
        # One mistaken of three, one left out of two: 2 edits, 5 words.
        said = [[1, 9, 3], [4, -1, -1]]
        meant = [[1, 2, 3], [4, 5, -1]]
        made = measure("word_error_rate", said, meant)
        assert made.value == pytest.approx(0.4)
        assert made.higher_is_better is False

    def test_ctc_merges_repeats_and_drops_the_blank(self) -> None:
        said = np.eye(4)[[[1, 1, 0, 2, 2], [3, 0, 3, 3, 0]]]
        assert measure("word_error_rate", said, [[1, 2], [3, 3]], blank=0).value == 0

    def test_targets_that_are_no_sequences_are_refused(self) -> None:
        with pytest.raises(InputError, match="needs word numbers"):
            measure("word_error_rate", [[1, 2]], [1])


class TestBoxes:
    pytest.importorskip("pycocotools")
    TRUE = np.array([[[0, 0, 10, 10, 0], [0, 0, 0, 0, -1]], [[5, 5, 25, 25, 1], [0, 0, 4, 4, 0]]])

    def found(self, *, shift: float) -> np.ndarray:
        boxes = self.TRUE[:, :, :4] + np.array([shift, 0, shift, 0])
        scores = np.full((2, 2, 1), 0.9)
        return np.concatenate([boxes, scores, self.TRUE[:, :, 4:]], axis=2)

    def test_the_boxes_themselves_are_all_right(self) -> None:
        assert measure("mean_average_precision", self.found(shift=0), self.TRUE).value == 1

    def test_a_shift_counts_by_the_overlap(self) -> None:
        # Shifted by 2: overlaps are 8/12, 18/22 and 2/6, so that one of class 0 is missed at 50.
        found = self.found(shift=2)
        made = measure("mean_average_precision", found, self.TRUE, iou="50")
        assert 0.5 < made.value < 1
        assert measure("mean_average_precision", found, self.TRUE).value < made.value

    def test_no_box_to_find_is_no_value(self) -> None:
        none = np.full((2, 1, 5), -1.0)
        assert math.isnan(measure("mean_average_precision", self.found(shift=0), none).value)


def score(name: str, outputs: Any, targets: Any, **given: Any) -> Score:
    return evaluate.score(
        lambda o, t: measure(name, o["y"], t, **given),
        {"y": np.asarray(outputs)},
        np.asarray(targets),
        candidate="a",
        format="onnx",
        metric=name,
    )


class TestResampling:
    """Metrics that are no mean get their intervals from the same resamples."""

    draw = np.random.default_rng(1)
    labels = draw.integers(2, size=120)
    good = labels + draw.normal(0, 0.4, size=120)
    bad = labels + draw.normal(0, 1.5, size=120)

    def test_the_interval_holds_the_value(self) -> None:
        made = score("auroc", self.good, self.labels, resamples=100)
        assert made.replicates is not None
        assert len(made.replicates) == 100
        assert made.interval[0] < made.value < made.interval[1]

    def test_drops_are_paired(self) -> None:
        one = score("auroc", self.good, self.labels, resamples=100)
        other = score("auroc", self.bad, self.labels, resamples=100)
        compared = evaluate.compare(one, other)
        assert compared.drop_interval is not None
        assert 0 < compared.drop_interval[0] < (compared.drop or 0) < compared.drop_interval[1]
        same = evaluate.compare(one, score("auroc", self.good, self.labels, resamples=100))
        assert same.drop_interval == (0, 0)

    def test_resamples_without_a_value_leave_no_interval(self) -> None:
        # Among three samples many a resample has one class alone.
        made = score("auroc", [0.1, 0.2, 0.9], [0, 0, 1], resamples=200)
        assert made.value == 1
        assert all(map(math.isnan, made.interval))

    def test_none_are_made_unasked(self) -> None:
        assert score("auroc", self.good, self.labels, resamples=0).replicates is None
