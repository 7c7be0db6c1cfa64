"""What the lanes of one measurement say together: ratios, percentiles, and whether they decide.

Rounds are paired within a set of processes. Where there are several sets, an interval holds what
each of them says, so that it covers what varies from process to process too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_compress.profile.lanes import Lane
from lepton_compress.profile.rates import PERCENTILES, SAMPLES_BEYOND
from lepton_compress.statistics import (
    Interval,
    bootstrap_median_ratio,
    bootstrap_percentiles,
    median_interval,
)

ERROR = 0.05
"""The most that all looks together may decide a ratio wrongly."""


@dataclass(frozen=True)
class Limits:
    """The latency gates that the measurement should decide; None where there is no such gate.

    Attributes:
        latency: of one call, in seconds, at `percentile`.
        percentile: a name in `PERCENTILES`.
        ratio: median latency over the baseline's.
    """

    latency: float | None = None
    percentile: str = "p50"
    ratio: float | None = None


@dataclass(frozen=True)
class Session:
    """The lanes of one measurement. `twin` is the baseline's second worker."""

    lanes: list[Lane]
    baseline: Lane | None
    twin: Lane | None
    limits: Limits
    seed: int

    def everyone(self) -> list[Lane]:
        """Every lane that has not failed."""
        lanes = [*self.lanes, self.twin] if self.twin else self.lanes
        return [lane for lane in lanes if not lane.reason]

    def working(self) -> list[Lane]:
        """Of those the subjects' own."""
        return [lane for lane in self.lanes if not lane.reason]

    def ratio(self, lane: Lane | None, sets: slice = slice(None)) -> tuple[float, Interval] | None:
        """Of a lane to the baseline, with its interval; None where either has no rounds."""
        baseline = self.baseline
        if lane is None or baseline is None or not (lane.turns and baseline.turns):
            return None
        pairs = [
            (lane.medians(number), baseline.medians(number))
            for number in range(len(baseline.sets))[sets]
        ]
        point = float(np.median(np.concatenate([mine / theirs for mine, theirs in pairs])))
        held = [bootstrap_median_ratio(*pair, seed=self.seed)[1] for pair in pairs]
        return point, hull(held)

    def is_noisy(self) -> bool:
        """Whether the baseline differs from itself."""
        noise = self.ratio(self.twin)
        return noise is not None and not noise[1][0] <= 1 <= noise[1][1]

    def decided(self, look: int) -> bool:
        """Whether the last set's intervals decide every limit at the `look`-th look, from 1."""
        return all(self._lane_decided(lane, look) for lane in self.working())

    def exceeded(self) -> bool:
        """Whether by the last set some lane is beyond a limit, with the whole of its interval."""
        return any(self._lane_exceeds(lane) for lane in self.working())

    def _lane_decided(self, lane: Lane, look: int) -> bool:
        limit, baseline = self.limits.ratio, self.baseline
        if limit is not None and baseline is not None and baseline.turns and lane is not baseline:
            ratios = lane.medians() / baseline.medians()
            if _contains(median_interval(ratios, error=ERROR / (look * (look + 1))), limit):
                return False
        limit = self.limits.latency
        return limit is None or not _contains(self._latency(lane), limit)

    def _lane_exceeds(self, lane: Lane) -> bool:
        limit, ratio = self.limits.ratio, self.ratio(lane, slice(-1, None))
        if limit is not None and ratio is not None and ratio[1][0] > limit:
            return True
        limit = self.limits.latency
        return limit is not None and self._latency(lane)[0] > limit

    def _latency(self, lane: Lane) -> Interval:
        """Of the limit's percentile in the last set."""
        name = self.limits.percentile
        found = percentiles([lane.sets[-1]], self.seed, (name,))
        return found.get(name, (0.0, (0.0, np.inf)))[1]


def percentiles(
    sets: Sequence[list[NDArray[np.int64]]], seed: int, names: Sequence[str] = tuple(PERCENTILES)
) -> dict[str, tuple[float, Interval]]:
    """Name to seconds and their interval, of those percentiles with enough samples behind them."""
    turns = [turn for each in sets for turn in each]
    samples = sum(map(len, turns))
    shown = [name for name in names if samples * (1 - PERCENTILES[name]) >= SAMPLES_BEYOND - 1e-6]
    if not shown:
        return {}
    found = bootstrap_percentiles(turns, [PERCENTILES[name] for name in shown], seed=seed)
    held = {
        name: (point * 1e-9, (low * 1e-9, high * 1e-9))
        for name, (point, (low, high)) in zip(shown, found, strict=True)
    }
    if len(sets) > 1:
        for each in sets:
            for name, (_, interval) in percentiles([each], seed, shown).items():
                held[name] = (held[name][0], hull([held[name][1], interval]))
    return held


def hull(intervals: Sequence[Interval]) -> Interval:
    """The shortest interval that holds all of them."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _contains(interval: Interval, limit: float) -> bool:
    # A value equal to its limit meets it, so an interval that ends there has decided.
    return interval[0] <= limit < interval[1]
