"""The built-in metrics, and the metrics of users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.artifacts import MetricOutcome
from lepton_compress.errors import InputError
from lepton_compress.metrics import (
    OnOutput,
    PythonMetric,
    TopK,
    accuracy,
    call,
    mean_absolute_error,
    mean_squared_error,
    python,
    top_k,
)

HERE = Path()
SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1]])
LABELS = np.array([1, 0, 1, 0])


def terms(made: MetricOutcome) -> list[float]:
    assert made.outcomes is not None
    return [float(each) for each in made.outcomes]


class TestAccuracy:
    def test_is_the_share_of_hits(self) -> None:
        made = accuracy({"scores": SCORES}, LABELS, OnOutput(), HERE)
        assert (made.value, made.higher_is_better) == (0.5, True)
        assert terms(made) == [1, 1, 0, 0]

    def test_of_one_score_splits_at_a_half(self) -> None:
        single = np.array([[0.9], [0.5], [0.51], [0.1]])
        assert terms(accuracy({"p": single}, LABELS, OnOutput(), HERE)) == [1, 1, 1, 1]
        assert accuracy({"p": single[:, 0]}, LABELS, OnOutput(), HERE).value == 1

    def test_of_many_labels_a_sample_is_their_mean(self) -> None:
        scores = np.stack([SCORES, SCORES], axis=1)  # two positions a sample
        labels = np.stack([LABELS, 1 - LABELS], axis=1)
        assert terms(accuracy({"s": scores}, labels, OnOutput(), HERE)) == [0.5, 0.5, 0, 0.5]

    def test_looks_at_the_output_asked_for(self) -> None:
        outputs = {"other": SCORES[:, ::-1], "scores": SCORES}
        assert accuracy(outputs, LABELS, OnOutput(output="scores"), HERE).value == 0.5
        with pytest.raises(InputError, match="no output 'score'; did you mean 'scores'"):
            accuracy(outputs, LABELS, OnOutput(output="score"), HERE)

    def test_takes_whole_numbers_in_any_type(self) -> None:
        made = accuracy({"s": SCORES}, LABELS.astype(np.float32), OnOutput(), HERE)
        assert made.value == 0.5

    @pytest.mark.parametrize(
        ("labels", "says"),
        [
            (np.array([0, 1, 2, 3]), r"labels run from 0 to 3.*3 classes \(0 to 2\); renumber"),
            (np.array([0, 1, 2, -1]), "labels run from -1 to 2"),
            (np.array([0, 1, 2, 0.5]), "not whole numbers"),
            (np.zeros((4, 2), int), r"predicts \(\) a sample but the labels are \(2,\)"),
        ],
    )
    def test_refuses_labels_that_do_not_fit(self, labels: Any, says: str) -> None:
        with pytest.raises(InputError, match=says):
            accuracy({"s": SCORES}, labels, OnOutput(), HERE)


class TestTopK:
    def test_is_the_share_of_labels_among_the_best(self) -> None:
        made = top_k({"s": SCORES}, LABELS, TopK(k=2), HERE)
        assert terms(made) == [1, 1, 1, 1]
        assert top_k({"s": SCORES}, np.array([0, 2, 0, 2]), TopK(k=2), HERE).value == 0

    def test_of_one_is_the_accuracy(self) -> None:
        assert terms(top_k({"s": SCORES}, LABELS, TopK(k=1), HERE)) == [1, 1, 0, 0]

    @given(st.integers(1, 6), st.integers(0, 1000))
    def test_never_falls_as_k_rises(self, k: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        outputs, labels = {"s": draw.normal(size=(20, 7))}, draw.integers(7, size=20)
        lower, upper = (top_k(outputs, labels, TopK(k=each), HERE).value for each in (k, k + 1))
        assert lower <= upper

    def test_needs_that_many_scores(self) -> None:
        with pytest.raises(InputError, match="top 5 needs at least 5 scores"):
            top_k({"s": SCORES}, LABELS, TopK(), HERE)


class TestErrors:
    VALUES = np.array([[1.0, 2.0], [3.0, 4.0]])
    WANTED = np.array([[1.0, 4.0], [0.0, 4.0]])

    def test_absolute(self) -> None:
        made = mean_absolute_error({"y": self.VALUES}, self.WANTED, OnOutput(), HERE)
        assert (made.value, made.higher_is_better) == (1.25, False)
        assert terms(made) == [1, 1.5]

    def test_squared(self) -> None:
        made = mean_squared_error({"y": self.VALUES}, self.WANTED, OnOutput(), HERE)
        assert terms(made) == [2, 4.5]

    def test_shapes_may_differ_in_ones(self) -> None:
        made = mean_absolute_error({"y": np.ones((4, 1))}, np.ones(4), OnOutput(), HERE)
        assert made.value == 0

    def test_sizes_may_not(self) -> None:
        with pytest.raises(InputError, match=r"outputs are \(2,\) a sample but targets \(\)"):
            mean_absolute_error({"y": self.VALUES}, np.ones(2), OnOutput(), HERE)


class TestOwn:
    def test_a_number(self) -> None:
        made = call(lambda outputs, targets: 3, PythonMetric(function="f"), {}, LABELS)
        assert (made.value, made.outcomes, made.higher_is_better) == (3.0, None, True)

    def test_one_number_a_sample(self) -> None:
        params = PythonMetric(function="f", higher_is_better=False)
        made = call(lambda outputs, targets: [1, 2, 3, 4], params, {}, LABELS)
        assert (made.value, made.higher_is_better) == (2.5, False)
        assert terms(made) == [1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("returned", "says"),
        [([1, 2], r"f: returned shape \(2,\) for 4 samples; return a number"), ("text", "raised")],
    )
    def test_anything_else_is_refused(self, returned: Any, says: str) -> None:
        with pytest.raises(InputError, match=says):
            call(lambda outputs, targets: returned, PythonMetric(function="f"), {}, LABELS)

    def test_what_it_raises_is_told(self) -> None:
        with pytest.raises(InputError, match="f: raised ZeroDivisionError: division by zero"):
            call(lambda outputs, targets: 1 / 0, PythonMetric(function="f"), {}, LABELS)

    def test_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text("def f(outputs, targets):\n    return len(targets)\n")
        params = PythonMetric(function="own.py:f")
        assert python({"s": SCORES}, LABELS, params, tmp_path).value == 4
