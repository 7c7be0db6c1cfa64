"""Scores: every sample once, the interval, and the drop paired by sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton_compress.artifacts import MetricOutcome, Score, Split, TensorSpec
from lepton_compress.errors import PluginError
from lepton_compress.evaluate import compare, predict, score
from lepton_compress.report.silent import Silent

TARGETS = np.arange(10)


class Doubler:
    """A runner that doubles its input and says how many samples it was called with."""

    inputs = (TensorSpec("x", "float32", ("batch", 2)),)
    outputs = (TensorSpec("y", "float32", ("batch", 2)), TensorSpec("n", "int64", ("batch",)))

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.sizes.append(len(feeds["x"]))
        return [feeds["x"] * 2, np.arange(len(feeds["x"]))]


def made(value: float, outcomes: Any = None, *, higher: bool = True) -> Score:
    return score(
        lambda outputs, targets: MetricOutcome(value, higher, outcomes),
        {},
        TARGETS,
        candidate="a",
        format="onnx",
        metric="m",
    )


class TestPredict:
    def test_every_sample_in_order(self) -> None:
        runner, data = Doubler(), np.arange(300, dtype=np.float32).reshape(150, 2)
        outputs = predict(runner, Split({"anything": data}), Silent())
        assert np.array_equal(outputs["y"], data * 2)
        assert outputs["n"].shape == (150,)
        assert sum(runner.sizes) == 150
        assert len(runner.sizes) > 1

    def test_a_metric_cannot_change_them_for_the_next(self) -> None:
        outputs = predict(Doubler(), Split({"x": np.ones((3, 2), np.float32)}), Silent())
        with pytest.raises(ValueError, match="read-only"):
            outputs["y"][0] = 0


class TestScore:
    def test_of_a_mean_has_an_interval_and_its_terms(self) -> None:
        held = made(0.7, np.array([1.0] * 7 + [0.0] * 3))
        assert held.value == 0.7
        assert held.interval[0] < 0.7 < held.interval[1]
        assert held.outcomes == (1.0,) * 7 + (0.0,) * 3
        assert held.samples == 10

    def test_of_anything_else_has_none(self) -> None:
        held = made(0.7)
        assert held.outcomes is None
        assert all(map(math.isnan, held.interval))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_is_no_value(self, value: float) -> None:
        held = made(value, np.full(10, value))
        assert math.isnan(held.value)
        assert held.outcomes is None

    @pytest.mark.parametrize("outcomes", [np.zeros(10), np.zeros(9), np.full((10, 1), 0.7)])
    def test_terms_that_contradict_the_value_break_the_contract(self, outcomes: Any) -> None:
        with pytest.raises(PluginError, match=r"metric m: .*one number a sample with the mean 0.7"):
            made(0.7, outcomes)

    def test_a_bare_number_breaks_the_contract(self) -> None:
        with pytest.raises(PluginError, match="returned float, not a MetricOutcome"):
            score(
                lambda outputs, targets: 0.5,  # type: ignore[arg-type, return-value]
                {},
                TARGETS,
                candidate="a",
                format="onnx",
                metric="m",
            )


class TestCompare:
    def test_is_positive_where_it_got_worse(self) -> None:
        assert compare(made(0.9), made(0.8)).drop == pytest.approx(0.1)
        better = compare(made(0.9, higher=False), made(0.8, higher=False))
        assert better.drop == pytest.approx(-0.1)

    def test_is_paired_by_sample(self) -> None:
        base, other = np.array([1.0] * 9 + [0.0]), np.array([1.0] * 8 + [0.0, 1.0])
        held = compare(made(0.9, base), made(0.9, other))
        assert held.drop == 0
        assert held.drop_interval is not None
        assert held.drop_interval[0] < 0 < held.drop_interval[1]

    def test_without_terms_there_is_no_interval(self) -> None:
        assert compare(made(0.9), made(0.8, np.full(10, 0.8))).drop_interval is None

    @pytest.mark.parametrize("pair", [(math.nan, 0.9), (0.9, math.nan)])
    def test_with_nothing_is_nothing(self, pair: tuple[float, float]) -> None:
        base, other = (made(value) for value in pair)
        held = compare(base, other)
        assert held.drop is not None
        assert math.isnan(held.drop)

    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=10, max_size=10))
    def test_a_drop_is_the_difference_of_the_values(self, pairs: list[tuple[bool, bool]]) -> None:
        first, second = (np.array(each, float) for each in zip(*pairs, strict=True))
        base, other = made(first.mean(), first), made(second.mean(), second)
        held = compare(base, other)
        assert held.drop == pytest.approx(base.value - other.value)
        assert replace(held, drop=None, drop_interval=None) == other
