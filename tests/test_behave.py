"""Behaviour beside the baseline: predictions, flips, calibration, parts of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress import behave
from lepton_compress.artifacts import Behaviour, Score

TARGETS = np.array([0, 1, 2, 0])
BEFORE = np.array([[9, 0, 0], [0, 9, 0], [9, 0, 0], [9, 0, 0]], np.float32)
"""Right but for the third."""
AFTER = np.array([[9, 0, 0], [9, 0, 0], [0, 0, 9], [9, 0, 0]], np.float32)
"""The second is wrong now, the third right."""


def score(candidate: str, outcomes: list[float] | None, metric: str = "accuracy") -> Score:
    value = float(np.mean(outcomes)) if outcomes else 0.5
    held = tuple(outcomes) if outcomes else None
    return Score(candidate, "onnx", metric, True, value, (0, 1), 4, held)


PAIR = (score("baseline", [1, 1, 0, 1]), score("a", [1, 0, 1, 1]))


def compare(now: Any = AFTER, base: Any = BEFORE, targets: Any = TARGETS, **more: Any) -> Behaviour:
    slices = more.pop("slices", {})
    pairs = more.pop("pairs", [PAIR])
    return behave.behaviour({"y": now}, {"y": base}, targets, pairs, slices, **more)


def test_flips_and_those_for_the_worse_are_counted() -> None:
    made = compare()
    assert (made.samples, made.flips, made.negative_flips) == (4, 2, 1)
    assert made.confusion == ((2, 0, 0), (1, 0, 0), (0, 0, 1))
    assert (made.candidate, made.format) == ("a", "onnx")


def test_a_score_that_is_no_number_is_a_flip_and_no_prediction() -> None:
    broken = BEFORE.copy()
    broken[0, 1] = np.nan
    made = compare(now=broken)
    assert (made.flips, made.negative_flips) == (1, 1)
    assert made.calibration_error is None
    assert made.confusion is None


def test_classes_and_slices_are_told_one_by_one() -> None:
    slices = behave.masks(
        {"night": np.array([True, True, False, False]), "hour": np.array([1, 1, 2, 2])}
    )
    made = compare(slices=slices)
    drops = {(each.kind, each.name): (each.samples, each.drop) for each in made.groups}
    assert drops == {
        ("class", "0"): (2, 0),
        ("class", "1"): (1, 1),
        ("class", "2"): (1, -1),
        ("slice", "night"): (2, 0.5),
        ("slice", "hour=1"): (2, 0.5),
        ("slice", "hour=2"): (2, -0.5),
    }
    assert all(each.drop_interval[0] <= each.drop <= each.drop_interval[1] for each in made.groups)


def test_a_metric_that_is_no_mean_has_no_parts() -> None:
    pair = (score("baseline", None, "f1"), score("a", None, "f1"))
    assert compare(pairs=[pair]).groups == ()


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (BEFORE, np.array([0.5, 1, 2, 0])),
        (BEFORE, np.array([0, 1, 3, 0])),
        (BEFORE, np.array([[0], [1], [2], [0]])),
        (BEFORE.reshape(4, 3, 1, 1), TARGETS),
        (BEFORE.astype(np.int64), TARGETS),
    ],
)
def test_what_is_no_classifier_says_so(outputs: Any, targets: Any) -> None:
    made = compare(now=outputs, base=outputs, targets=targets)
    assert made.flips is None
    assert made.reason == behave.NO_CLASSES


def test_one_score_is_of_two_classes() -> None:
    now, base = np.array([[0.9], [0.2], [0.4]]), np.array([[0.9], [0.8], [0.4]])
    pair = (score("baseline", [1, 1, 1]), score("a", [1, 0, 1]))
    made = compare(now=now, base=base, targets=np.array([1, 1, 0]), pairs=[pair])
    assert (made.flips, made.negative_flips) == (1, 1)


class TestCalibration:
    def test_it_is_the_gap_between_confidence_and_accuracy(self) -> None:
        value, _ = behave.calibration_error(np.full(10, 0.9), np.array([True] * 7 + [False] * 3))
        assert value == pytest.approx(0.2)

    def test_logits_and_probabilities_say_the_same(self) -> None:
        logits = np.random.default_rng(0).normal(size=(50, 4))
        raised = np.exp(logits)
        shares = raised / raised.sum(axis=1, keepdims=True)
        labels = np.arange(50) % 4
        found = [behave.predictions({"y": each}, labels, None) for each in (logits, shares)]
        for each in found:
            assert each is not None
            assert each.confidence is not None
            np.testing.assert_allclose(each.confidence, shares.max(axis=1))

    def test_a_calibrated_model_has_little_and_an_overconfident_one_much(self) -> None:
        draw = np.random.default_rng(0)
        confidence = draw.uniform(0.5, 1, 5000)
        right = draw.random(5000) < confidence
        good, good_interval = behave.calibration_error(confidence, right)
        bad, bad_interval = behave.calibration_error(np.full(5000, 0.99), right)
        assert good < 0.03
        assert bad == pytest.approx(0.24, abs=0.03)
        assert good_interval is not None
        assert bad_interval is not None
        assert good_interval[1] < bad_interval[0]

    @given(st.integers(0, 2**31), st.integers(2, 80))
    def test_it_lies_in_its_interval(self, seed: int, count: int) -> None:
        draw = np.random.default_rng(seed)
        value, interval = behave.calibration_error(draw.random(count), draw.random(count) < 0.5)
        assert interval is not None
        assert 0 <= interval[0] <= value <= interval[1]


class TestClassScores:
    def test_logits_stay_and_probabilities_become_logarithms(self) -> None:
        logits = behave.class_scores({"y": AFTER}, TARGETS, None)
        assert logits is not None
        assert logits.dtype == np.float32
        np.testing.assert_array_equal(logits, AFTER)
        likely = np.exp(AFTER) / np.exp(AFTER).sum(axis=1, keepdims=True)
        made = behave.class_scores({"y": likely}, TARGETS, None)
        assert made is not None
        # Differences within a row are all that a temperature looks at.
        np.testing.assert_allclose(made - made[:, :1], AFTER - AFTER[:, :1], atol=1e-3)

    def test_one_probability_makes_two_columns(self) -> None:
        one = np.array([[0.2], [0.9], [1.0], [0.5]], np.float32)
        made = behave.class_scores({"y": one}, np.array([0, 1, 1, 0]), None)
        assert made is not None
        assert made.shape == (4, 2)
        np.testing.assert_allclose(np.exp(made[:2]), [[0.8, 0.2], [0.1, 0.9]], atol=1e-6)
        assert np.isfinite(made).all()

    def test_what_is_no_classifier_has_none(self) -> None:
        assert behave.class_scores({"y": AFTER}, TARGETS + 0.5, None) is None
        assert behave.class_scores({"y": AFTER * np.nan}, TARGETS, None) is None
