"""Waiting in front of servers that take requests in the order of their arrival (M/G/c).

Arrivals are a Poisson process: many independent devices. The probability of waiting is Erlang's C;
the time of those that wait is that of Tijms, van Hoorn and Federgruen, Approximations for the
steady-state probabilities in the M/G/c queue (Advances in Applied Probability 13, 1981, 186-206):
while all c servers are busy they work like one that is c times as fast. It is exact for one server
(Pollaczek and Khinchine) and for exponential service (Erlang), and a few per cent off between; of
calls that vary much more than exponential ones it promises up to a quarter too little. The compound
geometric sum in it is computed by FFT with exponential tilting (Gruebel and Hermesmeier, ASTIN
Bulletin 29, 1999, 197-214).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import fft

from lepton_compress.place.distribution import Distribution, Floats, constant, thinned

CELLS, MOST_CELLS = 2048, 1 << 16
_FINE = 0.05
"""Steps of the grid, in medians of a call: a tail may be hundreds of these long."""
_TILT = 16.0
_TAIL = 18.0
"""Mean geometric terms that a grid holds: beyond lies a share of about 1e-8."""
_LEAST = 1e-9
"""Probability of waiting below which nobody does."""
FULL = 0.98
"""Busy share from which a queue is taken as one that only grows."""


def utilization(rate: float, service: Distribution, servers: int) -> float:
    """Busy share of the servers: requests a second times seconds of service, each."""
    return rate * service.mean / servers


@functools.lru_cache(maxsize=65536)
def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival finds all servers busy.

    Args:
        servers: how many there are.
        offered: arrivals a second times the mean service, below `servers`.

    Source: Erlang's C formula, by the recursion for his B formula in the inverse, which neither
    overflows nor cancels (Jagers and van Doorn, Operations Research Letters 5, 1986, 117-122).
    """
    if offered <= 0:
        return 0.0
    inverse = 1.0
    for number in range(1, servers + 1):
        inverse = 1.0 + inverse * number / offered
        if inverse > 1e15:
            return 0.0
    blocked = 1.0 / inverse
    load = offered / servers
    return blocked / (1 - load * (1 - blocked))


@functools.lru_cache(maxsize=4096)
def waiting(rate: float, service: Distribution, servers: int = 1) -> Distribution | None:
    """How long requests wait for a server.

    Args:
        rate: arrivals a second.
        service: of one call.
        servers: calls that run at the same time.

    Returns:
        The distribution of the wait in seconds, zero included; None where the servers are busy
        for more than `FULL` of the time, so that no wait can be told.
    """
    load = utilization(rate, service, servers)
    if load > FULL:
        return None
    delayed = erlang_c(servers, round(load * servers, 12))
    if delayed < _LEAST:
        return constant(0.0)
    ages, left = _residual(service)
    first = 1 - (1 - left) ** servers
    residual = service.second_moment / (2 * service.mean) / servers
    lag = float(np.interp(1 - 1e-6, first, ages))
    span = max(lag, ages[-1] / servers) + _TAIL * residual / (1 - load)
    body = service.quantile(0.5) / servers
    cells = min(max(CELLS, math.ceil(span / max(_FINE * body, _LEAST))), MOST_CELLS)
    step = span / (cells - 1)
    # Of the first to end, and of one server that is so many times as fast.
    head = Distribution(ages, first).on(step, cells)
    term = Distribution(ages / servers, left).on(step, cells)
    mass = _compound(head, term, load)
    mass *= delayed / float(mass.sum())
    shares = np.minimum(1 - delayed + np.cumsum(mass), 1.0)
    shares[-1] = 1.0
    times = (np.arange(cells) + 0.5) * step
    made = Distribution(
        np.concatenate([[0.0, 0.0], times]),
        np.concatenate([[0.0, 1 - delayed], shares]),
    )
    return thinned(made, 1 - delayed)


def _residual(service: Distribution, points: int = 513) -> tuple[Floats, Floats]:
    """What is left of a call that is looked at at random: times, and shares at or below them."""
    times = np.unique(np.concatenate([np.linspace(0, service.longest, points), service.times]))
    alive = 1 - service.at_most(times)
    # A jump stands twice in the distribution; just before it nobody has ended.
    before = 1 - np.interp(np.nextafter(times, 0), service.times, service.shares, left=0.0)
    areas = np.diff(times) * (alive[:-1] + before[1:]) / 2
    shares = np.concatenate([[0.0], np.cumsum(areas)])
    shares /= shares[-1]
    return times, shares


def _compound(head: Floats, term: Floats, load: float) -> Floats:
    """The first wait and a geometric number of further terms: (cells,) probabilities."""
    cells = len(head)
    fall = np.exp(-_TILT / cells * np.arange(cells))
    size = fft.next_fast_len(2 * cells, real=True)
    ahead, each = (fft.rfft(mass * fall, size) for mass in (head, term))
    made = fft.irfft(ahead * (1 - load) / (1 - load * each), size)[:cells] / fall
    found: Floats = np.maximum(made, 0.0)
    return found
