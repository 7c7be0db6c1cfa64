"""Predicting, scoring and comparing, with runners and metrics made by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton_compress import evaluate
from lepton_compress.artifacts import MetricOutcome, Score, Split, TensorSpec
from lepton_compress.errors import PluginError
from lepton_compress.report.silent import Silent

TARGETS = np.array([0, 1, 1, 0])


@dataclass
class Doubler:
    """Gives its first input twice as large, and the sum of both; keeps the batches it saw."""

    inputs: tuple[TensorSpec, ...] = (
        TensorSpec("x", "float32", ("batch", 2)),
        TensorSpec("y", "float32", ("batch", 2)),
    )
    outputs: tuple[TensorSpec, ...] = (
        TensorSpec("twice", "float32", ("batch", 2)),
        TensorSpec("sum", "float32", ("batch",)),
    )
    seen: list[int] = field(default_factory=list)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        assert list(feeds) == ["x", "y"]
        self.seen.append(len(feeds["x"]))
        return [2 * feeds["x"], (feeds["x"] + feeds["y"]).sum(axis=1)]


def samples(count: int) -> Split:
    values = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    return Split({"y": np.ones_like(values), "x": values})


@pytest.mark.parametrize("count", [1, 63, 64, 65, 130])
def test_every_sample_is_predicted_once_in_order(count: int) -> None:
    runner, split = Doubler(), samples(count)
    made = evaluate.predict(runner, split, Silent())
    assert list(made) == ["twice", "sum"]
    np.testing.assert_array_equal(made["twice"], 2 * split.inputs["x"])
    np.testing.assert_array_equal(made["sum"], split.inputs["x"].sum(axis=1) + 2)
    assert sum(runner.seen) == count


def test_a_metric_cannot_change_what_the_next_one_sees() -> None:
    made = evaluate.predict(Doubler(), samples(3), Silent())
    with pytest.raises(ValueError, match="read-only"):
        made["sum"][0] = 0


def test_inputs_of_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="the data has the inputs a, b, but the model takes x, y"):
        evaluate.predict(Doubler(), Split({"a": np.ones((1, 2)), "b": np.ones((1, 2))}), Silent())


def score(value: Any, outcomes: Any = None, *, higher: bool = True) -> Score:
    """What a metric that says this is turned into."""
    return evaluate.score(
        lambda outputs, targets: MetricOutcome(value, higher, outcomes),
        {},
        TARGETS,
        candidate="a",
        format="onnx",
        metric="own",
    )


class TestScore:
    def test_a_mean_has_an_interval_and_its_terms(self) -> None:
        made = score(0.75, [1, 1, 0, 1])
        assert (made.candidate, made.format, made.metric, made.samples) == ("a", "onnx", "own", 4)
        assert made.value == 0.75
        assert made.outcomes == (1, 1, 0, 1)
        assert made.interval[0] < 0.75 < made.interval[1]
        assert made.drop is None

    def test_a_number_alone_has_none(self) -> None:
        made = score(0.75)
        assert made.outcomes is None
        assert all(map(math.isnan, made.interval))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_value_that_is_not_finite_is_none(self, value: float) -> None:
        made = score(value, [1, 0, 1, value])
        assert math.isnan(made.value)
        assert made.outcomes is None

    @pytest.mark.parametrize(
        ("value", "outcomes"),
        [
            (0.5, [1, 1, 1, 1]),
            (0.5, [0.5, 0.5]),
            (0.5, [[0.5], [0.5], [0.5], [0.5]]),
            (0.5, [0.5, 0.5, 0.5, math.nan]),
            (1e-3, [0, 0, 0, 0]),
        ],
    )
    def test_terms_that_contradict_the_value_break_the_contract(
        self, value: float, outcomes: Any
    ) -> None:
        with pytest.raises(PluginError, match="metric own: its outcomes are not one number"):
            score(value, outcomes)

    @pytest.mark.parametrize(("value", "outcomes"), [("high", None), (None, None), (1.0, ["a"])])
    def test_what_is_no_number_breaks_the_contract(self, value: Any, outcomes: Any) -> None:
        with pytest.raises(PluginError, match="metric own: its value or outcomes are no numbers"):
            score(value, outcomes)

    def test_a_bare_number_breaks_the_contract(self) -> None:
        with pytest.raises(PluginError, match="metric own: returned float, not a MetricOutcome"):
            evaluate.score(
                lambda outputs, targets: 0.5,  # type: ignore[arg-type, return-value]
                {},
                TARGETS,
                candidate="a",
                format="onnx",
                metric="own",
            )


class TestCompare:
    def test_a_drop_is_paired_by_sample(self) -> None:
        made = evaluate.compare(score(1.0, [1, 1, 1, 1]), score(0.75, [1, 1, 0, 1]))
        assert made.drop == 0.25
        assert made.drop_interval is not None
        assert made.drop_interval[0] <= 0.25 <= made.drop_interval[1]

    def test_of_an_error_more_is_worse(self) -> None:
        better = score(2.0, [2, 2, 2, 2], higher=False)
        worse = score(3.0, [3, 3, 3, 3], higher=False)
        assert evaluate.compare(better, worse).drop == 1
        assert evaluate.compare(worse, better).drop == -1
        assert evaluate.compare(worse, better).drop_interval == (-1, -1)

    @pytest.mark.parametrize("higher", [True, False])
    def test_without_terms_there_is_no_interval(self, higher: bool) -> None:
        made = evaluate.compare(score(0.9, higher=higher), score(0.8, higher=higher))
        assert made.drop == pytest.approx(0.1 if higher else -0.1)
        assert made.drop_interval is None

    @pytest.mark.parametrize("pair", [(math.nan, 0.5), (0.5, math.nan)])
    def test_without_a_value_there_is_no_drop(self, pair: tuple[float, float]) -> None:
        made = evaluate.compare(score(pair[0]), score(pair[1]))
        assert made.drop is not None
        assert math.isnan(made.drop)

    @given(st.lists(st.integers(0, 1), min_size=4, max_size=4), st.booleans())
    def test_against_itself_nothing_is_lost(self, terms: list[int], higher: bool) -> None:
        made = score(sum(terms) / 4, terms, higher=higher)
        compared = evaluate.compare(made, made)
        assert compared.drop == 0
        assert compared.drop_interval is not None
        assert compared.drop_interval[0] <= 0 <= compared.drop_interval[1]


class TestLabels:
    def test_classes_are_kept(self) -> None:
        held = np.array([2, 0, 1, 0, 1, 2], np.int64)
        assert evaluate.labels(held) == (2, 0, 1, 0, 1, 2)
        assert evaluate.labels(held > 0) == (1, 0, 1, 0, 1, 1)

    @pytest.mark.parametrize(
        "targets",
        [
            None,
            np.array([0.5, 1.0, 0.5, 1.0]),
            np.zeros((4, 2), np.int64),
            np.arange(10),  # each its own
            np.repeat(np.arange(1001), 3),
        ],
        ids=["none", "values", "several a sample", "numbers", "too many"],
    )
    def test_what_is_no_class_is_not(self, targets: NDArray[Any] | None) -> None:
        assert evaluate.labels(targets) == ()
