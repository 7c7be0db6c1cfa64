"""Distributions of times as piecewise linear functions, and the sums of independent ones.

Percentiles of a sum are no sums of percentiles: the parts are put on a common grid and convolved.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, stats

from lepton_compress.artifacts import QUANTILES

Floats = NDArray[np.float64]
CELLS = 2048
"""Of the grid that a sum is computed on, at least."""
MOST_CELLS = 1 << 17
_FINE = 0.02
"""Steps of the grid, in medians of the sum: a tail may be hundreds of these long."""
_THIN = np.unique(
    np.concatenate([np.linspace(0, 1, 769), np.logspace(-7, -3, 65), 1 - np.logspace(-7, -2, 193)])
)
"""Shares at which the points of a sum are kept."""
_POINTS = 257
_NONE = 1e-12


@dataclass(frozen=True, eq=False)
class Distribution:
    """A time's cumulative distribution, linear between points. Two are equal if they are one.

    Attributes:
        times: (points,) seconds, ascending; equal ones where it jumps.
        shares: (points,) of the probability at or below them; the last is 1.
    """

    times: Floats
    shares: Floats

    @functools.cached_property
    def mean(self) -> float:
        """In seconds."""
        steps = np.diff(self.shares, prepend=0.0)
        before = np.concatenate([self.times[:1], self.times[:-1]])
        return float((steps * (before + self.times)).sum() / 2)

    @functools.cached_property
    def second_moment(self) -> float:
        """The mean of the squares, in seconds squared."""
        steps = np.diff(self.shares, prepend=0.0)
        before = np.concatenate([self.times[:1], self.times[:-1]])
        squares = before**2 + before * self.times + self.times**2
        return float((steps * squares).sum() / 3)

    @functools.cached_property
    def masses(self) -> tuple[Floats, Floats]:
        """The middles of the steps between points, in seconds, and their probabilities."""
        before = np.concatenate([self.times[:1], self.times[:-1]])
        return (before + self.times) / 2, np.diff(self.shares, prepend=0.0)

    @property
    def longest(self) -> float:
        """The largest time, in seconds."""
        return float(self.times[-1])

    def at_most(self, seconds: ArrayLike) -> Floats:
        """The probability of a time at or below each of some, in their shape."""
        asked = np.asarray(seconds, dtype=np.float64)
        made = np.interp(asked, self.times, self.shares, left=0.0)
        return np.asarray(made, dtype=np.float64)

    def quantile(self, share: float) -> float:
        """The time that so large a share does not exceed, in seconds."""
        return float(np.interp(share, self.shares, self.times))

    def draw(self, random: np.random.Generator, count: int) -> Floats:
        """So many times at random: (count,) seconds."""
        made = np.interp(random.random(count), self.shares, self.times)
        return np.asarray(made, dtype=np.float64)

    def later(self, seconds: float) -> Distribution:
        """Of times so many seconds longer."""
        return self if seconds == 0 else Distribution(self.times + seconds, self.shares)

    def slower(self, factor: float) -> Distribution:
        """Of times so many times as long."""
        return self if factor == 1 else Distribution(self.times * factor, self.shares)

    def on(self, step: float, cells: int) -> Floats:
        """Probabilities of the multiples of `step`: (cells,), what lies beyond in the last.

        Each time is shared between its two neighbours on the grid, so that the mean stays.
        """
        # The integral of the distribution function at multiples of the step, exactly.
        inner = np.concatenate([[0.0], np.cumsum(_areas(self.times, self.shares))])
        grid = np.arange(cells + 1) * step
        index = np.clip(np.searchsorted(self.times, grid, side="right") - 1, 0, None)
        start, below = self.times[index], self.shares[index]
        above = self.at_most(grid)
        area = inner[index] + (grid - start) * (below + above) / 2
        area = np.where(grid < self.times[0], 0.0, area)
        mass = np.empty(cells)
        mass[0] = area[1] / step
        mass[1:] = (area[2:] - 2 * area[1:-1] + area[:-2]) / step
        mass = np.maximum(mass, 0.0)
        mass[-1] += max(0.0, 1.0 - float(mass.sum()))
        return mass


def _areas(times: Floats, shares: Floats) -> Floats:
    made: Floats = np.diff(times) * (shares[1:] + shares[:-1]) / 2
    return made


@functools.lru_cache(maxsize=4096)
def constant(seconds: float) -> Distribution:
    """Of a time that never differs."""
    return Distribution(np.array([seconds]), np.array([1.0]))


def measured(quantiles: Sequence[float]) -> Distribution:
    """Of a call whose times are known at the shares in `QUANTILES`; of one number, that alone."""
    if len(quantiles) == 1:
        return constant(quantiles[0])
    return Distribution(np.array(quantiles, dtype=np.float64), np.array(QUANTILES))


def from_percentiles(latency: dict[str, float], mean: float | None) -> Distribution:
    """Of a call of which only percentiles, as `{"p50": seconds}`, and perhaps the mean are known.

    Between percentiles it is linear. Beyond the last it goes on as far again as from the one
    before; below the first it begins where the mean comes out as it is, if that is possible.
    """
    known = sorted((float(name[1:]) / 100, value) for name, value in latency.items())
    if len(known) < 2:
        return constant(known[0][1])
    shares, times = [each for each, _ in known], [value for _, value in known]
    end = 2 * times[-1] - times[-2]
    made = Distribution(np.array([times[0], *times, end]), np.array([0.0, *shares, 1.0]))
    if mean is None:
        return made
    # Lowering the start by d lowers the mean by d times half the first percentile's share.
    start = times[0] - (made.mean - mean) / (shares[0] / 2)
    start = min(max(start, 0.25 * times[0]), times[0])
    return Distribution(np.concatenate([[start], made.times[1:]]), made.shares)


@functools.lru_cache(maxsize=4096)
def round_trip(
    mean: float,
    spread: float,
    form: Literal["gamma", "lognormal", "normal", "uniform"],
) -> Distribution:
    """Of a round trip with that mean and standard deviation, in seconds; never below zero."""
    if spread <= 0:
        return constant(mean)
    law: Any
    if form == "gamma":
        law = stats.gamma((mean / spread) ** 2, scale=spread**2 / mean)
    elif form == "lognormal":
        width = np.sqrt(np.log1p((spread / mean) ** 2))
        law = stats.lognorm(width, scale=mean / np.exp(width**2 / 2))
    elif form == "normal":
        law = stats.norm(mean, spread)
    else:
        half = spread * np.sqrt(3)
        law = stats.uniform(mean - half, 2 * half)
    # Densest in the upper tail, which is what is asked about.
    shares = np.unique(
        np.concatenate([np.linspace(0, 1, _POINTS)[1:-1], 1 - np.logspace(-2, -6, 33), [1e-6]])
    )
    times = np.maximum(law.ppf(shares), 0.0)
    return Distribution(
        np.concatenate([times[:1], times]), np.concatenate([[0.0], shares[:-1], [1.0]])
    )


@functools.lru_cache(maxsize=4096)
def total(parts: tuple[Distribution, ...]) -> Distribution:
    """Of the sum of independent times, by convolution on a grid as long as the sum can be."""
    fixed = sum(each.longest for each in parts if len(each.times) == 1)
    moving = [each for each in parts if len(each.times) > 1]
    if not moving:
        return constant(fixed)
    if len(moving) == 1:
        return Distribution(moving[0].times + fixed, moving[0].shares)
    longest = sum(each.longest for each in moving)
    body = sum(each.quantile(0.5) for each in moving)
    cells = min(max(CELLS, math.ceil(longest / max(_FINE * body, _NONE))), MOST_CELLS)
    step = longest / (cells - 1)
    size = fft.next_fast_len(cells * 2, real=True)
    product: Any = 1.0
    for each in moving:
        product = product * fft.rfft(each.on(step, cells), size)
    mass = np.maximum(fft.irfft(product, size)[:cells], 0.0)
    return thinned(from_masses(mass, step, fixed))


def from_masses(mass: Floats, step: float, start: float = 0.0) -> Distribution:
    """Of a time whose probabilities of `start` and multiples of `step` beyond are known.

    Each of them stands for the cell around it, but for the first, at which the time may stay.
    """
    shares = np.minimum(np.cumsum(mass) / max(float(mass.sum()), _NONE), 1.0)
    shares[-1] = 1.0
    times = start + (np.arange(len(mass)) + 0.5) * step
    return Distribution(np.concatenate([[start], times]), np.concatenate([shares[:1], shares]))


def thinned(held: Distribution, start: float = 0.0) -> Distribution:
    """With no more points than a reader of percentiles can tell apart.

    Args:
        start: the share from which on they are spread, beyond a jump at the first time.
    """
    if len(held.times) <= len(_THIN):
        return held
    last = len(held.times) - 1
    kept = np.searchsorted(held.shares, start + (1 - start) * _THIN)
    kept = np.unique(np.concatenate([[0, 1], np.minimum(kept, last), [last]]))
    return Distribution(held.times[kept], held.shares[kept])


def mixture(parts: Sequence[tuple[float, Distribution]]) -> Distribution:
    """Of a time that is one of these, each with its probability; these sum up to one."""
    held = [(weight, each) for weight, each in parts if weight > 0]
    if len(held) == 1:
        return held[0][1]
    # Where one of them jumps, the point just before it stands too.
    times = np.unique(np.concatenate([each.times for _, each in held]))
    times = np.unique(np.concatenate([np.nextafter(times, 0), times]))
    shares = np.zeros(len(times))
    for weight, each in held:
        shares += weight * each.at_most(times)
    shares[-1] = 1.0
    return Distribution(times, shares)
