"""Throughput of calls back to back, and the time of requests under arrivals at a rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lepton_compress.artifacts import QUANTILES, Callers, Idle, Load
from lepton_compress.profile.process import Called
from lepton_compress.statistics import Interval, bootstrap_percentiles, mean_interval

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}
SAMPLES_BEYOND = 10
"""A percentile is shown when at least this many samples are expected above it."""

SPELLS, ARRIVALS = 10, 100
"""Spells of arrivals for each artifact and rate, taken in turns, and the arrivals of one."""


def throughput(
    turns: Sequence[NDArray[np.int64]], batch: int, seed: int
) -> tuple[float, Interval] | None:
    """Samples a second of one caller that never pauses; None without turns.

    Args:
        turns: one (calls,) array of nanoseconds a round.
        batch: samples in one call.

    Returns:
        It and its 95 % interval, over the mean time of the calls of each round.
    """
    if not turns:
        return None
    mean, (low, high) = mean_interval([turn.mean() * 1e-9 for turn in turns], seed=seed)
    return batch / mean, (batch / high, batch / low)


def load(rate: float, spells: Sequence[NDArray[np.int64]], seed: int) -> Load:
    """What requests took at a rate; each of `spells` holds nanoseconds, (arrivals,)."""
    return Load(rate, sum(map(len, spells)), *_shown(spells, seed))


def quantiles(turns: Sequence[NDArray[np.int64]]) -> tuple[float, ...]:
    """Seconds at the shares in `QUANTILES` of all calls; each of `turns` holds nanoseconds."""
    found = np.quantile(np.concatenate(turns), QUANTILES, method="inverted_cdf")
    return tuple(float(each) for each in found * 1e-9)


def idle(gap: float, spells: Sequence[NDArray[np.int64]]) -> Idle:
    """What calls took after so many seconds of rest; each of `spells` holds nanoseconds."""
    return Idle(gap, sum(map(len, spells)), quantiles(spells))


def concurrency(number: int, spells: Sequence[Called], batch: int, seed: int) -> Callers:
    """What so many callers at the same time have seen, `batch` samples a call."""
    paces = [each.seconds / len(each.times) for each in spells]
    mean, (low, high) = mean_interval(paces, seed=seed)
    latency, interval = _shown([each.times for each in spells], seed)
    return Callers(
        callers=number,
        cpus=spells[0].cpus,
        calls=sum(len(each.times) for each in spells),
        throughput=batch / mean,
        throughput_interval=(batch / high, batch / low),
        latency=latency,
        interval=interval,
    )


def _shown(
    spells: Sequence[NDArray[np.int64]], seed: int
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Seconds and intervals by name, of the percentiles with enough samples behind them."""
    count = sum(map(len, spells))
    shown = [name for name, p in PERCENTILES.items() if count * (1 - p) >= SAMPLES_BEYOND - 1e-6]
    found = bootstrap_percentiles(spells, [PERCENTILES[name] for name in shown], seed=seed)
    return (
        {name: point * 1e-9 for name, (point, _) in zip(shown, found, strict=True)},
        {
            name: (low * 1e-9, high * 1e-9)
            for name, (_, (low, high)) in zip(shown, found, strict=True)
        },
    )
