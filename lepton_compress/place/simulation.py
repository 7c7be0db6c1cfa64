"""The traffic of a placement as discrete events, beside what was computed (extra `placement`).

Every request goes its way by itself: the device's processor, its uplink, the round trip, the queue
in front of the cloud's replicas. Nothing of the computation is used but the distributions of the
single times that were measured.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_compress.artifacts import Observer
from lepton_compress.errors import MissingExtraError
from lepton_compress.place.distribution import Distribution
from lepton_compress.place.fleet import Fleet
from lepton_compress.place.options import Option
from lepton_compress.place.planning import SHARES, Planner, plan_of, wait_of
from lepton_compress.place.program import Case
from lepton_compress.place.solving import Solution
from lepton_compress.placements import Simulated

REQUESTS = 40_000
"""Of one pool, or of one workload at the edge; the first tenth is not counted."""
_WARM_UP = 0.1
_ALONE = 4
"""Times as many where all is done on the device: calls that take long are rare there, and tell."""
_MOST_ALONE = 64
"""Devices that are simulated where they share nothing."""
_BATCH = 4096
User = tuple[Case, Option]


def check() -> None:
    """Find out whether a simulation can be made.

    Raises:
        MissingExtraError: simpy is not installed.
    """
    try:
        importlib.import_module("simpy")
    except ImportError as error:
        raise MissingExtraError(
            f"a simulation needs simpy ({error})", mend="pip install 'lepton-compress[placement]'"
        ) from error


def confirm(
    planner: Planner, seed: int, observer: Observer, requests: int = REQUESTS
) -> tuple[Simulated, ...]:
    """Simulate every case as it was planned; those that share replicas together.

    Raises:
        MissingExtraError: simpy is not installed.
    """
    check()
    fleet = planner.fleet
    cases, solution = planner.solve(fleet)
    if solution is None:
        return ()
    groups: dict[object, list[User]] = {}
    for index, (case, option) in enumerate(zip(cases, solution.taken, strict=True)):
        groups.setdefault(option.pool or index, []).append((case, option))
    found: list[Simulated] = []
    with observer.work("simulate", len(groups)) as progress:
        for users in groups.values():
            random = np.random.default_rng([seed, len(found)])
            many = requests if users[0][1].pool is not None else _ALONE * requests
            spent = _Traffic(fleet, users, solution, random).run(many)
            found += [_beside(fleet, solution, *user, spent[i]) for i, user in enumerate(users)]
            progress.advance()
    return tuple(found)


def _beside(
    fleet: Fleet, solution: Solution, case: Case, option: Option, spent: Sequence[float]
) -> Simulated:
    """What was simulated beside what was computed."""
    computed = plan_of(case, option, wait_of(fleet, option, solution)).latency
    shares = {**SHARES, f"p{100 * case.share:g}": case.share}
    simulated = {name: float(np.quantile(spent, shares[name])) for name in computed}
    worst = max(abs(simulated[name] / computed[name] - 1) for name in computed)
    return Simulated(case.workload.name, case.site.name, len(spent), computed, simulated, worst)


@dataclass
class _Draws:
    """Times drawn in advance, many at once."""

    law: Distribution
    random: np.random.Generator
    held: Iterator[float] = field(default_factory=lambda: iter(()))

    def next(self) -> float:
        """The next time, in seconds."""
        for value in self.held:
            return value
        self.held = iter(self.law.draw(self.random, _BATCH).tolist())
        return next(self.held)


class _Traffic:
    """Requests of everyone who shares a pool, or of one workload at the edge."""

    def __init__(
        self, fleet: Fleet, users: Sequence[User], solution: Solution, random: np.random.Generator
    ) -> None:
        self.simpy: Any = importlib.import_module("simpy")
        self.users, self.random = users, random
        self.world: Any = self.simpy.Environment()
        pool = users[0][1].pool
        self.pool: Any = None
        if pool is not None:
            servers = solution.replicas[pool] * fleet.site(pool.site).workers
            self.pool = self.simpy.Resource(self.world, servers)
        self.spent: list[list[float]] = [[] for _ in users]

    def run(self, requests: int) -> list[list[float]]:
        """Seconds of each request that is counted, for each user."""
        rates = [case.workload.rate * self._devices(case, option) for case, option in self.users]
        length = requests / sum(rates)
        for index in range(len(self.users)):
            self.world.process(self._arrivals(index, rates[index], length))
        self.world.run()
        return self.spent

    def _devices(self, case: Case, option: Option) -> int:
        count = case.site.count
        return count if option.pool is not None else min(count, _MOST_ALONE)

    def _arrivals(self, index: int, rate: float, length: float) -> Iterator[Any]:
        """Requests of all devices together: a Poisson process, each of a device at random."""
        case, option = self.users[index]
        devices, world = self._devices(case, option), self.world
        way = _Way(self, index, option, length * _WARM_UP)
        while True:
            gaps = self.random.exponential(1 / rate, _BATCH).tolist()
            names = self.random.integers(devices, size=_BATCH).tolist()
            for gap, name in zip(gaps, names, strict=True):
                yield world.timeout(gap)
                if world.now > length:
                    return
                world.process(way.request(name))


class _Way:
    """The way of one user's requests."""

    def __init__(self, traffic: _Traffic, index: int, option: Option, start: float) -> None:
        self.traffic, self.option, self.start = traffic, option, start
        self.spent = traffic.spent[index]
        parts, random = option.parts, traffic.random
        self.edge = _Draws(parts.edge, random) if parts.edge else None
        self.trip = _Draws(parts.trip, random) if parts.trip else None
        self.cloud = _Draws(parts.cloud, random) if parts.cloud else None
        world, simpy = traffic.world, traffic.simpy
        self.processors: Any = defaultdict(lambda: simpy.Resource(world, 1))
        self.uplinks: Any = defaultdict(lambda: simpy.Resource(world, 1))

    def request(self, device: int) -> Iterator[Any]:
        """One request from its arrival to its answer."""
        world, option = self.traffic.world, self.option
        start = world.now
        if self.edge is not None:
            yield from self._hold(self.processors[device], self.edge.next())
        if option.share >= 1 or self.traffic.random.random() < option.share:
            yield from self._up(device)
        if start >= self.start:
            self.spent.append(world.now - start)

    def _up(self, device: int) -> Iterator[Any]:
        world, parts = self.traffic.world, self.option.parts
        if self.trip is None or self.cloud is None or self.traffic.pool is None:
            return
        yield from self._hold(self.uplinks[device], parts.up)
        trip = self.trip.next()
        yield world.timeout(trip / 2)
        yield from self._hold(self.traffic.pool, self.cloud.next())
        yield world.timeout(trip / 2 + parts.down)

    def _hold(self, resource: Any, seconds: float) -> Iterator[Any]:
        with resource.request() as turn:
            yield turn
            yield self.traffic.world.timeout(seconds)
