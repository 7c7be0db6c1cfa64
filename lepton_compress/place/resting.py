"""What a call takes that comes after a rest: seldom calls find cold caches and sleeping cores.

Profiles time calls back to back and after some rests. Under Poisson arrivals the rest before a call
that finds its server idle is exponential, whatever a call takes, so that a rate says which mixture
of the measured times holds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from lepton_compress.artifacts import QUANTILES, Idle
from lepton_compress.place.distribution import Distribution, measured, mixture, thinned

Rested = tuple[tuple[float, Distribution], ...]
"""Seconds of rest, ascending, and the times of calls after them."""
SELDOM = 0.001
"""Seconds between calls from which on a rest shows."""
_LIKELY = tuple(-math.log1p(-(each + 0.5) / 24) for each in range(24))
"""Equally likely rests, in means of an exponential one."""
_STEPS = 8
"""Rates that are told apart in a doubling."""


@functools.lru_cache(maxsize=1024)
def rested(held: Sequence[Idle], factor: float) -> Rested:
    """What profiles hold, for a processor that takes `factor` times as long."""
    found = sorted(held, key=lambda each: each.gap)
    return tuple((each.gap, measured(each.quantiles).slower(factor)) for each in found)


def calls(busy: Distribution, after: Rested, rate: float) -> Distribution:
    """Seconds of a call at a server that so many a second reach, one by one.

    Of the calls 1 - u find it idle, where u = rate * mean is its busy share: the first of each busy
    period (Welch, Operations Research 12, 1964, 736-752, on exceptional first services).

    Args:
        busy: of calls back to back.
        after: of calls after rests; none leaves `busy`.
        rate: arrivals a second, above zero; rates of a doubling are told apart in eight steps.
    """
    if not after or rate <= 0:
        return busy
    return _calls(busy, after, round(_STEPS * math.log2(rate)))


@functools.lru_cache(maxsize=4096)
def _calls(busy: Distribution, after: Rested, step: int) -> Distribution:
    rate = 2.0 ** (step / _STEPS)
    alone = mixture([(1 / len(_LIKELY), _after(busy, after, each / rate)) for each in _LIKELY])
    # The mean m = (1 - u) * alone + u * busy with u = rate * m.
    share = rate * alone.mean / (1 + rate * (alone.mean - busy.mean))
    if not 0 <= share < 1:
        return busy
    return thinned(mixture([(1 - share, alone), (share, busy)]))


def _after(busy: Distribution, after: Rested, gap: float) -> Distribution:
    """After one rest, between those that were measured; the longest stands for longer ones."""
    below: tuple[float, Distribution] = (0.0, busy)
    for above in after:
        if gap < above[0]:
            return _between(below, above, gap)
        below = above
    return below[1]


def _between(
    below: tuple[float, Distribution], above: tuple[float, Distribution], gap: float
) -> Distribution:
    """Percentile by percentile: by the logarithm of the rest, from none on by the rest itself."""
    if below[0] == 0:
        weight = gap / above[0]
    else:
        weight = math.log(gap / below[0]) / math.log(above[0] / below[0])
    shares = np.array(QUANTILES)
    early, late = (np.interp(shares, each.shares, each.times) for each in (below[1], above[1]))
    return Distribution((1 - weight) * early + weight * late, shares)
