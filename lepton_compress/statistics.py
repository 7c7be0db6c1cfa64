"""Point estimates with 95 % intervals, in numpy alone.

Sources:
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: percentile interval.
    Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8: resampling
        whole clusters when observations within a cluster are correlated.
    Wilson, Journal of the American Statistical Association 22 (1927), 209-212: score interval.
    Bonett and Price, Journal of Educational and Behavioral Statistics 37 (2012), 479-488: adjusted
        Wald interval for the difference of two paired proportions.
    Thompson, Annals of Mathematical Statistics 7 (1936), 122-128: interval of a median between
        order statistics.

Every interval contains its point: where a bootstrap's quantiles leave the point outside, the
interval is widened to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 1000
TAILS = (0.025, 0.975)
Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""

GRID = 4096
BLOCKS = 200
MAX_DRAWS = 20_000_000
MISSING = 0.05
"""Share of resamples that may have no value."""


def bootstrap_median_ratio(
    candidate: ArrayLike, baseline: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, Interval]:
    """The median of paired ratios with its percentile bootstrap interval.

    Args:
        candidate: (rounds,) positive numbers, one a round.
        baseline: (rounds,) positive numbers of the same rounds, in the same unit.

    Returns:
        The median of candidate / baseline, and its interval. Equal inputs give exactly 1.

    Raises:
        ValueError: the lengths differ, or there are none, or one is not finite.
    """
    ratios = _pair(candidate, baseline, np.divide)
    rng = np.random.default_rng(seed)
    drawn = ratios[rng.integers(len(ratios), size=(resamples, len(ratios)))]
    point = float(np.median(ratios))
    return point, _quantile_interval(np.median(drawn, axis=1), point)


def median_interval(values: ArrayLike, *, error: float) -> Interval:
    """An interval of the population's median that asks nothing of its distribution.

    The median lies between the k-th smallest and the k-th largest of n values unless fewer than k
    values fell on one side of it, which has the probability of as many heads in n throws.

    Args:
        values: (samples,) numbers.
        error: the most that the interval may fail to hold the median, a probability.

    Returns:
        The narrowest such interval; without an end on either side where there are too few values.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    ordered = np.sort(_checked(values))
    count, tail, term, rank = len(ordered), 0, 1, 0
    allowed = int(Fraction(error) / 2 * 2**count)
    while tail + term <= allowed:
        tail += term
        term = term * (count - rank) // (rank + 1)
        rank += 1
    if rank == 0:
        return -float("inf"), float("inf")
    return float(ordered[rank - 1]), float(ordered[count - rank])


def bootstrap_percentiles(
    rounds: Sequence[NDArray[Any]],
    levels: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[tuple[float, Interval]]:
    """Percentiles of all values together, with intervals that resample whole rounds.

    Values of one round share its conditions (clock, caches, neighbours), so resampling single
    values would claim more certainty than there is. A percentile is the smallest value with at
    least that share of the values at or below it.

    With few rounds the interval of a far percentile is short: simulated, 15 rounds that differ by
    half of what calls differ by cover the 99th percentile in 84 % of cases, 40 rounds in 90 %.

    Approximations, in the intervals alone: beyond 4096 values their ends are taken from 4096
    order statistics at equal steps; beyond 200 rounds neighbouring rounds are resampled together
    as one of 200 blocks.

    Args:
        rounds: one (values,) array a round; lengths may differ, none may be empty.
        levels: percentiles as shares, 0.99 for the 99th.

    Returns:
        For each level the percentile and its interval, in the unit of the values.

    Raises:
        ValueError: there is no round, or a value is not finite.
    """
    pooled = np.sort(np.concatenate([_checked(values) for values in rounds]))
    if len(rounds) > BLOCKS:
        edges = np.linspace(0, len(rounds), BLOCKS + 1).astype(int)
        rounds = [np.concatenate(rounds[a:b]) for a, b in itertools.pairwise(edges)]
    ranks = np.linspace(0, len(pooled) - 1, min(GRID, len(pooled))).round().astype(int)
    grid = pooled[ranks]
    # at_most[round, g]: how many values of the round are at or below grid[g].
    at_most = np.stack([np.searchsorted(np.sort(each), grid, side="right") for each in rounds])
    draws = np.random.default_rng(seed).integers(len(rounds), size=(resamples, len(rounds)))
    totals = at_most[:, -1][draws].sum(axis=1)
    found = []
    for level in levels:
        point = float(np.quantile(pooled, level, method="inverted_cdf"))
        # The tolerance keeps 0.9 * 70 from asking for a 64th value.
        needed = np.ceil(level * totals - 1e-9)
        replicates = grid[_first_reaching(at_most, draws, needed)]
        found.append((point, _quantile_interval(replicates, point)))
    return found


def paired_drop_interval(
    baseline: ArrayLike, candidate: ArrayLike, *, higher_is_better: bool, seed: int = 0
) -> tuple[float, Interval]:
    """How much worse the candidate's mean outcome is, paired by sample.

    Outcomes of 0 and 1 get the interval of Bonett and Price, which is never of zero width; others
    the percentile bootstrap of the mean difference.

    Args:
        baseline: (samples,) the baseline's outcomes.
        candidate: (samples,) the candidate's outcomes on the same samples.
        higher_is_better: which way is up.

    Returns:
        The drop, positive where the candidate is worse, and its interval, in the outcomes' unit.

    Raises:
        ValueError: the lengths differ, or there are none, or one is not finite.
    """
    losses = _pair(baseline, candidate, np.subtract) * (1.0 if higher_is_better else -1.0)
    # Adding zero turns -0.0 into 0.0.
    drop = float(losses.mean()) + 0.0
    if _is_binary(baseline) and _is_binary(candidate):
        return drop, _bonett_price(losses, drop)
    return drop, _mean_interval(losses, drop, seed)


def mean_interval(outcomes: ArrayLike, *, seed: int = 0) -> tuple[float, Interval]:
    """The mean with its interval: Wilson's score for outcomes of 0 and 1, else the bootstrap.

    Args:
        outcomes: (samples,) numbers, one a sample.

    Returns:
        The mean and its interval, in the outcomes' unit.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    values = _checked(outcomes)
    mean = float(values.mean())
    if _is_binary(values):
        return mean, _wilson(mean, len(values))
    return mean, _mean_interval(values, mean, seed)


def resamples(samples: int, *, seed: int = 0, count: int = RESAMPLES) -> Iterator[NDArray[Any]]:
    """Bootstrap resamples: (samples,) indices each, the same ones each time they are asked for."""
    rng = np.random.default_rng([seed, samples])
    for _ in range(count):
        yield rng.integers(samples, size=samples)


def replicate_interval(replicates: ArrayLike, point: float) -> Interval | None:
    """Percentile interval of a statistic from its values on bootstrap resamples.

    Args:
        replicates: (resamples,) values; NaN where a resample has none, as the area under a curve
            of one class.
        point: the statistic itself.

    Returns:
        The interval, or None where more than a twentieth of the resamples have no value.
    """
    values = np.asarray(replicates, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not len(values) or len(finite) < (1 - MISSING) * len(values):
        return None
    return _quantile_interval(finite, point)


def _first_reaching(at_most: NDArray[Any], draws: NDArray[Any], needed: Floats) -> NDArray[Any]:
    """For each resample the first grid index with `needed` values at or below it, by bisection."""
    low = np.zeros(len(draws), dtype=int)
    high = np.full(len(draws), at_most.shape[1] - 1)
    while np.any(low < high):
        middle = (low + high) // 2
        enough = at_most[draws, middle[:, None]].sum(axis=1) >= needed
        high = np.where(enough, middle, high)
        low = np.where(enough, low, np.minimum(middle + 1, high))
    return low


def _bonett_price(losses: Floats, drop: float) -> Interval:
    """Of a difference of paired proportions; `losses` holds -1, 0 and 1."""
    n = len(losses)
    worse = (float((losses > 0).sum()) + 1) / (n + 2)
    better = (float((losses < 0).sum()) + 1) / (n + 2)
    centre = worse - better
    half = Z * float(np.sqrt((worse + better - centre**2) / (n + 2)))
    return _widened(max(centre - half, -1.0), min(centre + half, 1.0), drop)


def _wilson(share: float, n: int) -> Interval:
    """Of a proportion."""
    scale = 1 + Z**2 / n
    centre = (share + Z**2 / (2 * n)) / scale
    half = Z / scale * float(np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)))
    return _widened(max(centre - half, 0.0), min(centre + half, 1.0), share)


def _mean_interval(values: Floats, mean: float, seed: int) -> Interval:
    """Of a mean, by bootstrap; of more than 20 000 values by the normal law it then follows."""
    if len(values) * RESAMPLES > MAX_DRAWS:
        half = Z * float(values.std(ddof=1)) / len(values) ** 0.5
        return mean - half, mean + half
    rng = np.random.default_rng(seed)
    # One resample at a time: all of them together could take gigabytes.
    n = len(values)
    replicates = [values[rng.integers(n, size=n)].mean() for _ in range(RESAMPLES)]
    return _quantile_interval(np.asarray(replicates), mean)


def _quantile_interval(replicates: NDArray[Any], point: float) -> Interval:
    low, high = np.quantile(replicates, TAILS)
    return _widened(float(low), float(high), point)


def _widened(low: float, high: float, point: float) -> Interval:
    return min(low, point), max(high, point)


def _pair(first: ArrayLike, second: ArrayLike, combine: np.ufunc) -> Floats:
    left, right = _checked(first), _checked(second)
    if left.shape != right.shape:
        raise ValueError(f"{len(left)} values cannot be paired with {len(right)}")
    made: Floats = combine(left, right)
    return made


def _checked(values: ArrayLike) -> Floats:
    """One dimension, not empty, all finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError("expected one dimension of finite numbers, at least one")
    return array


def _is_binary(values: ArrayLike) -> bool:
    array = np.asarray(values)
    return bool(((array == 0) | (array == 1)).all())
