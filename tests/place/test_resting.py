"""Calls that come after rests: what holds between those that were measured, and at a rate."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compress.artifacts import QUANTILES, Idle
from lepton_compress.place import resting
from lepton_compress.place.distribution import constant, measured

BUSY = constant(0.001)


def idle(gap: float, seconds: float) -> Idle:
    return Idle(gap, 40, (seconds,) * len(QUANTILES))


AFTER = resting.rested((idle(0.1, 0.004), idle(0.001, 0.002)), 1.0)


def test_the_shortest_rest_comes_first_and_another_processor_is_slower() -> None:
    made = resting.rested((idle(0.1, 0.004), idle(0.001, 0.002)), 3.0)
    assert [gap for gap, _ in made] == [0.001, 0.1]
    assert made[0][1].mean == pytest.approx(0.006)


def test_calls_that_follow_each_other_are_as_measured_back_to_back() -> None:
    assert resting.calls(BUSY, AFTER, 1e6).mean == pytest.approx(0.001, rel=0.01)
    assert resting.calls(BUSY, AFTER, 0.0) is BUSY


def test_seldom_calls_are_those_after_the_longest_rest() -> None:
    assert resting.calls(BUSY, AFTER, 0.01).mean == pytest.approx(0.004, rel=0.001)


def test_without_rests_nothing_changes() -> None:
    assert resting.calls(BUSY, (), 1.0) is BUSY


def test_between_rests_a_call_takes_something_between() -> None:
    means = [resting.calls(BUSY, AFTER, rate).mean for rate in (0.1, 1, 10, 100, 300, 700)]
    assert means == sorted(means, reverse=True)
    assert 0.001 < means[-1] < means[0] <= 0.004


@pytest.mark.parametrize("rate", [5.0, 60.0, 250.0])
def test_a_rate_mixes_as_arrivals_by_chance_do(rate: float) -> None:
    """Against arrivals one by one, each served by what the rest before it says."""
    random = np.random.default_rng(0)
    gaps = np.array([0.0, 0.001, 0.1])
    times = np.array([0.001, 0.002, 0.004])
    free, spent, now = 0.0, [], 0.0
    for wait in random.exponential(1 / rate, 40_000):
        now += wait
        gap = max(now - free, 0.0)
        if gap < gaps[1]:
            call = np.interp(gap, gaps[:2], times[:2])
        else:
            call = np.interp(np.log(gap), np.log(gaps[1:]), times[1:])
        spent.append(call)
        free = max(now, free) + call
    made = resting.calls(BUSY, AFTER, rate)
    assert made.mean == pytest.approx(np.mean(spent), rel=0.03)
    for share in (0.5, 0.9):
        assert made.quantile(share) == pytest.approx(np.quantile(spent, share), rel=0.06)


def test_a_server_that_never_rests_answers_back_to_back() -> None:
    assert resting.calls(BUSY, AFTER, 2000.0) is BUSY


def test_the_spread_of_calls_stays() -> None:
    quantiles = tuple(0.004 * (1 + share) for share in QUANTILES)
    after = resting.rested((Idle(0.1, 40, quantiles),), 1.0)
    made = resting.calls(measured(quantiles).slower(0.5), after, 0.1)
    assert made.quantile(0.9) / made.quantile(0.5) == pytest.approx(1.9 / 1.5, rel=0.01)
