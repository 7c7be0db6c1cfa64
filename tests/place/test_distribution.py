"""Sums of times, their means and percentiles, against random draws and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compress.artifacts import QUANTILES
from lepton_compress.place.distribution import (
    Distribution,
    constant,
    from_percentiles,
    measured,
    mixture,
    round_trip,
    total,
)

SKEWED = Distribution(np.array([1e-3, 2e-3, 3e-3, 9e-3]), np.array([0.0, 0.5, 0.9, 1.0]))


def test_a_percentile_of_a_sum_is_no_sum_of_percentiles() -> None:
    sum_of_four = total((SKEWED, SKEWED, SKEWED, SKEWED))
    random = np.random.default_rng(0)
    drawn = sum(SKEWED.draw(random, 400_000) for _ in range(4))
    for share in (0.5, 0.9, 0.99):
        assert sum_of_four.quantile(share) == pytest.approx(np.quantile(drawn, share), rel=0.01)
    assert sum_of_four.quantile(0.99) < 0.8 * 4 * SKEWED.quantile(0.99)


def test_a_long_tail_does_not_blur_the_rest() -> None:
    """A call in a thousand that takes four hundred times as long, as on a machine with others."""
    rare = Distribution(np.array([1e-3, 1.2e-3, 1.3e-3, 0.4]), np.array([0.0, 0.9, 0.999, 1.0]))
    made = total((rare, rare))
    random = np.random.default_rng(0)
    drawn = rare.draw(random, 400_000) + rare.draw(random, 400_000)
    for share in (0.5, 0.9, 0.99):
        assert made.quantile(share) == pytest.approx(np.quantile(drawn, share), rel=0.02)


def test_a_sum_keeps_the_mean_whatever_the_scales() -> None:
    slow = round_trip(0.05, 0.02, "gamma")
    made = total((slow, SKEWED, constant(0.1)))
    assert made.mean == pytest.approx(slow.mean + SKEWED.mean + 0.1, rel=1e-3)


@settings(max_examples=30)
@given(
    mean=st.floats(1e-4, 2.0),
    share=st.floats(0.01, 0.5),
    form=st.sampled_from(["gamma", "lognormal", "normal", "uniform"]),
)
def test_a_round_trip_has_the_mean_and_spread_asked_for(
    mean: float, share: float, form: Any
) -> None:
    made = round_trip(mean, mean * share, form)
    assert made.times[0] >= 0
    assert made.mean == pytest.approx(mean, rel=0.02)
    deviation = np.sqrt(made.second_moment - made.mean**2)
    assert deviation == pytest.approx(mean * share, rel=0.1)


def test_without_spread_it_is_constant() -> None:
    made = round_trip(0.03, 0.0, "gamma")
    assert (made.mean, made.quantile(0.99)) == (0.03, 0.03)


@settings(max_examples=30)
@given(st.lists(st.floats(1e-5, 1.0), min_size=len(QUANTILES), max_size=len(QUANTILES)))
def test_a_grid_keeps_mass_and_mean(values: list[float]) -> None:
    held = measured(sorted(values))
    cells = 500
    step = held.longest / (cells - 2)
    mass = held.on(step, cells)
    assert mass.sum() == pytest.approx(1.0)
    assert (mass * np.arange(cells)).sum() * step == pytest.approx(held.mean, rel=0.01)


def test_percentiles_alone_give_the_mean_that_was_measured() -> None:
    latency = {"p50": 2e-3, "p90": 2.4e-3, "p99": 3e-3}
    made = from_percentiles(latency, 2.05e-3)
    assert made.mean == pytest.approx(2.05e-3, rel=1e-6)
    assert made.quantile(0.9) == pytest.approx(2.4e-3)
    assert from_percentiles({"p50": 1e-3}, None).longest == 1e-3


def test_a_mixture_has_the_share_of_each() -> None:
    made = mixture([(0.7, constant(0.01)), (0.3, SKEWED.slower(100))])
    assert made.mean == pytest.approx(0.7 * 0.01 + 0.3 * SKEWED.mean * 100, rel=0.01)
    assert made.at_most(0.05) == pytest.approx(0.7, abs=1e-3)
    assert made.at_most(made.quantile(0.95)) == pytest.approx(0.95, abs=1e-3)
