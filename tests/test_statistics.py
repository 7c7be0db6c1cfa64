"""Points and intervals: known values, properties, and coverage by simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compress.statistics import (
    Interval,
    bootstrap_median_ratio,
    bootstrap_percentiles,
    mean_interval,
    median_interval,
    paired_drop_interval,
)

times = st.floats(1e-6, 1e6, allow_nan=False)
numbers = st.floats(-1e6, 1e6, allow_nan=False)
bits = st.integers(0, 1)


def pairs(element: st.SearchStrategy[float]) -> st.SearchStrategy[list[tuple[float, float]]]:
    return st.lists(st.tuples(element, element), min_size=1, max_size=30)


def coverage(interval: Callable[[int], Interval], truth: float, repeats: int) -> float:
    """How often the interval of a fresh sample contains the truth."""
    found = [interval(seed) for seed in range(repeats)]
    return float(np.mean([low <= truth <= high for low, high in found]))


# Equal, ordered, reproducible


@given(st.lists(times, min_size=1, max_size=30))
def test_equal_inputs_have_a_ratio_of_exactly_one(values: list[float]) -> None:
    assert bootstrap_median_ratio(values, values) == (1.0, (1.0, 1.0))


@given(pairs(times), st.integers(0, 9))
@settings(deadline=None)
def test_the_interval_of_a_ratio_contains_it(values: list[tuple[float, float]], seed: int) -> None:
    candidate, baseline = np.array(values).T
    point, (low, high) = bootstrap_median_ratio(candidate, baseline, seed=seed)
    assert low <= point <= high


@given(
    st.lists(st.lists(times, min_size=1, max_size=9), min_size=1, max_size=9),
    st.floats(0.01, 0.99),
)
@settings(deadline=None)
def test_the_interval_of_a_percentile_contains_it(rounds: list[list[float]], level: float) -> None:
    ((point, (low, high)),) = bootstrap_percentiles([np.array(r) for r in rounds], [level])
    pooled = np.sort(np.concatenate(rounds))
    assert low <= point <= high
    assert point in pooled
    assert np.mean(pooled <= point) >= level - 1e-9
    assert np.mean(pooled < point) < level


@given(pairs(numbers) | pairs(bits), st.booleans())
@settings(deadline=None)
def test_a_drop_turns_its_sign_with_the_direction(
    values: list[tuple[float, float]], higher_is_better: bool
) -> None:
    first, second = np.array(values).T
    drop, (low, high) = paired_drop_interval(first, second, higher_is_better=higher_is_better)
    assert low <= drop <= high
    back, _ = paired_drop_interval(second, first, higher_is_better=higher_is_better)
    flipped, _ = paired_drop_interval(first, second, higher_is_better=not higher_is_better)
    assert back == flipped == pytest.approx(-drop)


@given(st.lists(numbers, min_size=1, max_size=30) | st.lists(bits, min_size=1, max_size=30))
@settings(deadline=None)
def test_the_interval_of_a_mean_contains_it(values: list[float]) -> None:
    mean, (low, high) = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert low <= mean <= high


@given(st.lists(bits, min_size=1, max_size=50))
def test_intervals_of_shares_are_never_of_zero_width_and_stay_in_range(values: list[int]) -> None:
    _, (low, high) = mean_interval(values)
    assert 0 <= low < high <= 1
    drop, (low, high) = paired_drop_interval(values, values, higher_is_better=True)
    assert drop == 0
    assert -1 <= low < 0 < high <= 1


def test_the_seed_alone_decides() -> None:
    values = np.random.default_rng(0).exponential(1, (20, 15))
    rounds = list(values)
    ones = np.ones(20)
    ratios = [bootstrap_median_ratio(values[:, 0], ones, seed=1) for _ in range(2)]
    assert ratios[0] == ratios[1]
    percentiles = [bootstrap_percentiles(rounds, [0.9], seed=seed) for seed in (1, 1, 2)]
    assert percentiles[0] == percentiles[1] != percentiles[2]


@pytest.mark.parametrize("bad", [[], [np.nan], [np.inf], [[1.0]]])
def test_what_is_not_a_row_of_finite_numbers_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        mean_interval(bad)
    with pytest.raises(ValueError, match="finite numbers"):
        bootstrap_percentiles([np.asarray(bad)], [0.5])


def test_unequal_lengths_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        paired_drop_interval([1, 0, 1], [1, 0], higher_is_better=True)


# Known values


def test_the_wilson_interval_of_81_in_263() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3.
    _, (low, high) = mean_interval([1] * 81 + [0] * 182)
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_the_bonett_price_interval_by_hand() -> None:
    # n = 10, three samples lost and one won: 4/12 and 2/12, so 2/12 with variance
    # (6/12 - 4/144) / 12.
    baseline = [1, 1, 1, 0, 1, 1, 1, 0, 0, 0]
    candidate = [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    drop, (low, high) = paired_drop_interval(baseline, candidate, higher_is_better=True)
    half = 1.959963984540054 * np.sqrt((6 / 12 - 4 / 144) / 12)
    assert drop == pytest.approx(0.2)
    assert (low, high) == pytest.approx((2 / 12 - half, 2 / 12 + half))


def test_an_error_that_grows_is_a_positive_drop() -> None:
    drop, (low, _) = paired_drop_interval(
        np.linspace(0, 1, 50), np.linspace(1, 2, 50), higher_is_better=False
    )
    assert drop == pytest.approx(1.0)
    assert low == pytest.approx(1.0)


def test_many_values_follow_the_normal_law_of_the_bootstrap() -> None:
    values = np.random.default_rng(0).exponential(1, 20_000)
    _, direct = mean_interval(values)
    more = np.concatenate([values, values])
    mean, normal = mean_interval(more)
    # Twice the samples: an interval narrower by the square root of two.
    assert (normal[1] - normal[0]) * 2**0.5 == pytest.approx(direct[1] - direct[0], rel=0.1)
    assert normal[0] < mean < normal[1]


def test_approximations_for_many_values_stay_close() -> None:
    rng = np.random.default_rng(0)
    rounds = [rng.exponential(1, 100) for _ in range(400)]
    ((point, (low, high)),) = bootstrap_percentiles(rounds, [0.9])
    assert point == np.quantile(np.concatenate(rounds), 0.9, method="inverted_cdf")
    # The standard error of a percentile: sqrt(q (1 - q) / n) over the density there.
    error = np.sqrt(0.9 * 0.1 / 40_000) / 0.1
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)


# Coverage: a 95 % interval contains the truth in about 95 % of repetitions


@pytest.mark.parametrize(("rounds", "least"), [(15, 0.90), (60, 0.92)])
def test_coverage_of_the_median_ratio(rounds: int, least: float) -> None:
    rng = np.random.default_rng(1)

    def interval(seed: int) -> Interval:
        # Drift that both share must not matter.
        drift = np.exp(np.cumsum(0.2 * rng.standard_normal(rounds)))
        candidate = 1.3 * drift * np.exp(0.05 * rng.standard_normal(rounds))
        return bootstrap_median_ratio(candidate, drift, seed=seed)[1]

    assert coverage(interval, 1.3, 300) >= least


@pytest.mark.parametrize(("level", "normal"), [(0.5, 0.0), (0.9, 1.2815515655446004)])
def test_coverage_of_percentiles_when_rounds_differ(level: float, normal: float) -> None:
    rng = np.random.default_rng(2)
    truth = normal * np.hypot(1, 0.5)

    def sample() -> list[np.ndarray]:
        return [rng.standard_normal(50) + 0.5 * rng.standard_normal() for _ in range(30)]

    def clustered(seed: int) -> Interval:
        return bootstrap_percentiles(sample(), [level], seed=seed, resamples=400)[0][1]

    def naive(seed: int) -> Interval:
        # Calls dealt to rounds at random: what belongs together is torn apart.
        calls = np.split(rng.permutation(np.concatenate(sample())), 30)
        return bootstrap_percentiles(calls, [level], seed=seed, resamples=400)[0][1]

    assert coverage(clustered, truth, 200) >= 0.88
    assert coverage(naive, truth, 100) < 0.75


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.01), (0.1, 0.05), (0.3, 0.3), (0.01, 0.0)])
@pytest.mark.parametrize("samples", [50, 400])
def test_coverage_of_the_paired_drop(lost: float, won: float, samples: int) -> None:
    rng = np.random.default_rng(3)

    def interval(seed: int) -> Interval:
        draw = rng.random(samples)
        first = np.where(draw < lost, 1, np.where(draw < lost + won, 0, draw < 0.8))
        second = np.where(draw < lost, 0, np.where(draw < lost + won, 1, draw < 0.8))
        return paired_drop_interval(first, second, higher_is_better=True, seed=seed)[1]

    assert coverage(interval, lost - won, 400) >= 0.92


@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_coverage_of_a_share(share: float) -> None:
    rng = np.random.default_rng(4)
    assert coverage(lambda _: mean_interval(rng.random(200) < share)[1], share, 400) >= 0.92


def test_coverage_of_a_mean() -> None:
    rng = np.random.default_rng(5)
    found = coverage(lambda seed: mean_interval(rng.exponential(1, 100), seed=seed)[1], 1.0, 200)
    assert found >= 0.90


# The interval of a median between order statistics


def test_the_ends_are_those_of_the_binomial_law() -> None:
    # Of ten throws at most one is a head, or at most one a tail, in 22 of 1024 cases.
    assert median_interval(range(10), error=22 / 1024) == (1.0, 8.0)
    assert median_interval(range(10), error=21.9 / 1024) == (0.0, 9.0)
    assert median_interval(range(5), error=0.01) == (-np.inf, np.inf)


def test_many_looks_together_keep_to_the_error() -> None:
    rng = np.random.default_rng(0)
    wrong, trials = 0, 400
    for _ in range(trials):
        ratios = np.exp(rng.standard_t(2, size=400) * 0.05)  # bursts on both sides; the median is 1
        taken, look = 15, 0
        while taken < len(ratios):
            look += 1
            low, high = median_interval(ratios[:taken], error=0.05 / (look * (look + 1)))
            if not low <= 1 <= high:
                wrong += 1
                break
            taken += -(-taken // 4)
    assert wrong / trials <= 0.05


def test_a_shift_is_seen_before_long() -> None:
    ratios = 1.1 * np.exp(np.random.default_rng(0).normal(0, 0.05, size=60))
    assert median_interval(ratios, error=0.05 / 20)[0] > 1.05
