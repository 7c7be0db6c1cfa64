"""Each metric against numbers worked out by hand, and every way to be given the wrong thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton_compress import metrics
from lepton_compress.artifacts import MetricOutcome
from lepton_compress.errors import InputError
from lepton_compress.metrics import OnOutput, PythonMetric, TopK

NAN = float("nan")
SCORES = np.array([[3, 1, 2], [0, 5, 1], [1, 2, 9], [4, 4, 1]], np.float32)
"""The best are 0, 1, 2 and, of two that are equal, 0."""


def accuracy(scores: Any, labels: Any, **given: Any) -> MetricOutcome:
    outputs = {"scores": np.asarray(scores)}
    return metrics.accuracy(outputs, np.asarray(labels), OnOutput(**given), Path())


def top_k(scores: Any, labels: Any, k: int) -> MetricOutcome:
    return metrics.top_k({"scores": np.asarray(scores)}, np.asarray(labels), TopK(k=k), Path())


class TestAccuracy:
    @pytest.mark.parametrize(
        ("labels", "hits"),
        [([0, 1, 2, 0], [1, 1, 1, 1]), ([0, 0, 2, 1], [1, 0, 1, 0]), ([1, 0, 0, 2], [0, 0, 0, 0])],
    )
    def test_it_is_the_share_of_hits(self, labels: list[int], hits: list[int]) -> None:
        made = accuracy(SCORES, labels)
        assert made.value == sum(hits) / 4
        assert made.higher_is_better
        assert list(np.asarray(made.outcomes)) == hits

    @pytest.mark.parametrize("shape", [(4,), (4, 1)])
    def test_one_score_is_the_second_class_above_a_half(self, shape: tuple[int, ...]) -> None:
        scores = np.array([0.2, 0.5, 0.51, 0.9]).reshape(shape)
        assert accuracy(scores, [0, 0, 1, 1]).value == 1
        assert accuracy(scores, [1, 1, 0, 0]).value == 0

    def test_several_labels_a_sample_count_by_their_share(self) -> None:
        scores = np.stack([SCORES, SCORES])
        made = accuracy(scores, [[0, 1, 2, 0], [0, 1, 0, 1]])
        assert list(np.asarray(made.outcomes)) == [1, 0.5]
        assert made.value == 0.75

    def test_a_score_that_is_no_number_is_no_hit(self) -> None:
        # numpy's argmax of a NaN is its place, which may well be the label.
        scores = np.array([[NAN, 1, 2], [0, NAN, 0], [1, 2, 9]])
        assert accuracy(scores, [0, 1, 2]).value == pytest.approx(1 / 3)
        assert accuracy([NAN, 0.2], [0, 0]).value == 0.5
        assert top_k(scores, [0, 1, 2], 2).value == pytest.approx(1 / 3)

    @pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.float32, np.bool_])
    def test_labels_may_be_of_any_kind_of_number(self, kind: type[np.generic]) -> None:
        labels = np.array([0, 1, 0, 1]).astype(kind)
        assert accuracy(SCORES, labels).value == 0.5

    @pytest.mark.parametrize("labels", [[0, 1, 2, 3], [-1, 0, 0, 0]])
    def test_a_label_without_a_score_is_refused(self, labels: list[int]) -> None:
        with pytest.raises(InputError, match=r"labels run from .* but the model scores 3 classes"):
            accuracy(SCORES, labels)

    def test_one_score_knows_two_classes(self) -> None:
        with pytest.raises(InputError, match="the model scores 2 classes"):
            accuracy(SCORES[:, 0], [0, 1, 2, 0])

    def test_labels_that_are_no_whole_numbers_are_refused(self) -> None:
        with pytest.raises(InputError, match="labels are not whole numbers"):
            accuracy(SCORES, [0, 0.5, 1, 2])

    def test_labels_of_another_shape_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"predicts \(\) a sample but the labels are \(1,\)"):
            accuracy(SCORES, [[0], [1], [2], [0]])


OUTPUTS = {"first": SCORES, "second": SCORES[:, ::-1]}
LABELS = np.array([0, 1, 2, 0])


class TestOutput:
    def test_the_first_is_the_default(self) -> None:
        assert metrics.accuracy(OUTPUTS, LABELS, OnOutput(), Path()).value == 1

    def test_another_can_be_named(self) -> None:
        params = OnOutput(output="second")
        assert metrics.accuracy(OUTPUTS, LABELS, params, Path()).value == 0.25

    def test_an_unknown_one_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(InputError, match="no output 'secnd'; did you mean 'second'"):
            metrics.accuracy(OUTPUTS, LABELS, OnOutput(output="secnd"), Path())


class TestTopK:
    @pytest.mark.parametrize(("k", "value"), [(1, 0.25), (2, 0.75), (3, 1.0)])
    def test_the_label_may_stand_among_the_highest(self, k: int, value: float) -> None:
        made = top_k(SCORES, [2, 1, 1, 2], k)
        assert made.value == value
        assert made.higher_is_better

    def test_the_first_is_the_accuracy(self) -> None:
        labels = [0, 0, 2, 1]
        assert top_k(SCORES, labels, 1).value == accuracy(SCORES, labels).value

    @pytest.mark.parametrize("scores", [SCORES, SCORES[:, 0], SCORES[:, :, None]])
    def test_too_few_scores_are_refused(self, scores: NDArray[np.float32]) -> None:
        with pytest.raises(InputError, match="top 4 needs at least 4 scores a sample"):
            top_k(scores, [0, 0, 0, 0], 4)

    def test_labels_of_another_shape_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"the labels are \(1,\) a sample"):
            top_k(SCORES, [[0], [1], [2], [0]], 2)


class TestErrors:
    VALUES = np.array([[1.0, 2.0], [3.0, -4.0]], np.float32)
    TARGETS = np.array([[1.0, 0.0], [0.0, 0.0]])

    def test_mean_absolute_error(self) -> None:
        made = metrics.mean_absolute_error({"y": self.VALUES}, self.TARGETS, OnOutput(), Path())
        assert (made.value, made.higher_is_better) == (2.25, False)
        assert list(np.asarray(made.outcomes)) == [1.0, 3.5]

    def test_mean_squared_error(self) -> None:
        made = metrics.mean_squared_error({"y": self.VALUES}, self.TARGETS, OnOutput(), Path())
        assert (made.value, made.higher_is_better) == (7.25, False)
        assert list(np.asarray(made.outcomes)) == [2.0, 12.5]

    def test_a_last_dimension_of_one_makes_no_difference(self) -> None:
        # (n, 1) minus (n,) would be (n, n) in numpy.
        outputs = {"y": np.array([[1.0], [2.0], [4.0]])}
        made = metrics.mean_absolute_error(outputs, np.array([1, 1, 1]), OnOutput(), Path())
        assert made.value == pytest.approx(4 / 3)

    def test_other_sizes_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"outputs are \(2,\) a sample but targets \(\)"):
            metrics.mean_squared_error({"y": self.VALUES}, np.zeros(2), OnOutput(), Path())

    def test_an_output_that_is_no_number_leaves_no_value(self) -> None:
        values = np.array([1.0, NAN])
        made = metrics.mean_absolute_error({"y": values}, np.zeros(2), OnOutput(), Path())
        assert made.value != made.value


class TestPython:
    @staticmethod
    def call(function: Callable[..., Any], *, higher_is_better: bool = True) -> MetricOutcome:
        params = PythonMetric(function="own.py:metric", higher_is_better=higher_is_better)
        return metrics.call(function, params, {"scores": SCORES}, np.array([0, 1, 2, 0]))

    @pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), 1, True])
    def test_a_number_is_the_value(self, value: Any) -> None:
        made = self.call(lambda outputs, targets: value, higher_is_better=False)
        assert made == MetricOutcome(float(value), False, None)

    def test_one_a_sample_is_averaged(self) -> None:
        made = self.call(lambda outputs, targets: [1, 0, 1, 0])
        assert made.value == 0.5
        assert list(np.asarray(made.outcomes)) == [1, 0, 1, 0]

    @pytest.mark.parametrize(
        ("returned", "says"),
        [
            ([1, 0], r"returned shape \(2,\) for 4 samples; return a number, or one number"),
            (np.zeros((4, 1)), r"returned shape \(4, 1\) for 4 samples"),
            ("high", "raised ValueError: could not convert string to float"),
            (None, "raised TypeError: it returns nothing"),
            ({"a": 1}, "raised TypeError"),
        ],
    )
    def test_anything_else_is_refused(self, returned: Any, says: str) -> None:
        with pytest.raises(InputError, match=says) as caught:
            self.call(lambda outputs, targets: returned)
        assert caught.value.where == "own.py:metric"

    def test_what_it_raises_is_told(self) -> None:
        with pytest.raises(InputError, match=r"own\.py:metric: raised KeyError: 'logits'"):
            self.call(lambda outputs, targets: outputs["logits"])

    def test_it_is_found_by_its_reference(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text("def third(outputs, targets):\n    return 1 / 3\n")
        params = PythonMetric(function="own.py:third")
        made = metrics.python({"scores": SCORES}, np.zeros(4), params, tmp_path)
        assert made.value == 1 / 3
