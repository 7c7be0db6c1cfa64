"""Waiting: against closed forms where there are any, else against a simulation of the queue."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from lepton_compress.place.distribution import Distribution, constant
from lepton_compress.place.queueing import FULL, erlang_c, utilization, waiting

_SHARES = np.unique(np.concatenate([np.linspace(0, 1, 400)[:-1], 1 - np.logspace(-3, -9, 60)]))
EXPONENTIAL = Distribution(-np.log1p(-_SHARES) * 0.01, np.concatenate([_SHARES[:-1], [1.0]]))
STEADY = Distribution(np.array([0.009, 0.01, 0.011, 0.02]), np.array([0, 0.5, 0.95, 1.0]))
UNEVEN = Distribution(np.array([0.002, 0.004, 0.03]), np.array([0, 0.9, 1.0]))


def test_erlangs_formula() -> None:
    # Two servers and one erlang: C = 1/3; one server: the load itself.
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(1, 0.7) == pytest.approx(0.7)
    assert erlang_c(5000, 10.0) == 0.0


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (4, 0.9), (32, 0.9)])
def test_exponential_service_is_exact(servers: int, load: float) -> None:
    rate = load * servers / EXPONENTIAL.mean
    made = waiting(rate, EXPONENTIAL, servers)
    assert made is not None
    delayed = erlang_c(servers, load * servers)
    spare = servers / EXPONENTIAL.mean - rate
    assert made.mean == pytest.approx(delayed / spare, rel=0.01)
    assert made.quantile(0.99) == pytest.approx(np.log(delayed / 0.01) / spare, rel=0.01)


@pytest.mark.parametrize("service", [constant(0.01), STEADY, UNEVEN])
def test_one_server_has_the_mean_of_pollaczek_and_khinchine(service: Distribution) -> None:
    rate = 0.8 / service.mean
    made = waiting(rate, service)
    assert made is not None
    exact = rate * service.second_moment / 2 / (1 - 0.8)
    assert made.mean == pytest.approx(exact, rel=0.005)


def _allen_cunneen(rate: float, service: Distribution, servers: int) -> float:
    """Mean wait in seconds (Allen, Probability, Statistics and Queueing Theory, 1990, 5.3)."""
    load = utilization(rate, service, servers)
    variation = service.second_moment / service.mean**2 - 1
    delayed = erlang_c(servers, load * servers)
    return delayed * service.mean / (servers * (1 - load)) * (1 + variation) / 2


def _simulated(rate: float, service: Distribution, servers: int) -> np.ndarray:
    count, random = 200_000, np.random.default_rng(0)
    arrivals = np.cumsum(random.exponential(1 / rate, count))
    calls, free = service.draw(random, count), [0.0] * servers
    waits = np.empty(count)
    for index in range(count):
        start = max(heapq.heappop(free), arrivals[index])
        waits[index] = start - arrivals[index]
        heapq.heappush(free, start + calls[index])
    return waits[count // 10 :]


@pytest.mark.parametrize(("service", "near"), [(STEADY, 0.1), (UNEVEN, 0.12)])
def test_several_servers_are_close_to_a_simulation(service: Distribution, near: float) -> None:
    rate = 0.85 * 3 / service.mean
    made = waiting(rate, service, 3)
    assert made is not None
    drawn = _simulated(rate, service, 3)
    for share in (0.9, 0.99):
        assert made.quantile(share) == pytest.approx(np.quantile(drawn, share), rel=near)
    # Two moments say the same of the mean, by another road.
    assert made.mean == pytest.approx(_allen_cunneen(rate, service, 3), rel=0.15)


def test_a_queue_that_only_grows_has_no_wait() -> None:
    assert waiting((FULL + 0.01) / 0.01, constant(0.01)) is None


def test_nobody_waits_where_there_is_much_room() -> None:
    made = waiting(1.0, constant(0.001), 50)
    assert made is not None
    assert made.quantile(0.999) == 0.0
