"""Which options to take, and how many replicas: a mixed-integer linear program, by HiGHS.

Every workload at every site takes one option. Options of one artifact in one cloud share a pool of
replicas. How much a pool of n replicas can take before an option misses its latency is worked out
beforehand, so that the program is linear: if option o is taken and the pool has n replicas,

    rate of all that use the pool  <=  capacity(o, n)

What comes out is checked by the distributions themselves, and each pool gets the fewest replicas
that do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lepton_compress.place.fleet import Fleet, Site
from lepton_compress.place.options import HOURS, Option, PoolKey
from lepton_compress.place.program import Case, Program
from lepton_compress.place.queueing import waiting

LOADS = (0.02, 0.2, 0.4, 0.55, 0.7, 0.8, 0.85, 0.9, 0.94)
"""Busy shares at which capacities are worked out; between them they are interpolated."""
_ALL = 24
"""Up to so many replicas each number is considered, beyond in steps of `_STEP`."""
_STEP = 1.05
_NODE = 1.35
_ATTEMPTS = 4
_NOTHING = 1e-9
_MOST_KEPT = 20_000


@dataclass(frozen=True)
class Solution:
    """An option for each case, and the replicas of each pool that is used."""

    taken: tuple[Option, ...]
    replicas: dict[PoolKey, int]
    rates: dict[PoolKey, float]
    cost: float


def capacity(case: Case, option: Option, servers: int, busy: float) -> float:
    """Requests a second that so many servers can take, of all that share them, before the option
    misses the latency that is asked for, or the servers are busy for a larger share of the time
    than `busy`; interpolated between `LOADS`."""
    service, latency = option.served, case.latency
    if service is None:
        return math.inf
    full = servers / service.mean
    if latency is None:
        return busy * full
    before = (0.0, 1.0)
    for load in (*(each for each in LOADS if each < busy), busy):
        wait = waiting(load * full, service, servers)
        spare = option.within(latency.limit, wait) - case.share
        if spare < 0:
            # Where the spare probability crosses zero, between the last two.
            share = before[1] / (before[1] - spare) if before[1] > spare else 0.0
            return full * (before[0] + share * (load - before[0])) if before[0] else 0.0
        before = (load, spare)
    return busy * full


def met(case: Case, option: Option, rate: float, servers: int) -> bool:
    """Whether an option meets its latency with that many servers and that rate of all on them."""
    service, latency = option.served, case.latency
    if service is None or latency is None:
        return True
    wait = waiting(rate, service, servers)
    return wait is not None and option.within(latency.limit, wait) >= case.share


def fewest(users: Sequence[tuple[Case, Option]], rate: float, site: Site, most: int) -> int | None:
    """The least number of replicas with which all users of a pool meet their latency; None if
    not even `most` of them do."""
    service = users[0][1].served
    if service is None:
        return 0

    def enough(replicas: int) -> bool:
        servers = replicas * site.workers
        return all(met(case, option, rate, servers) for case, option in users)

    low = max(1, math.ceil(rate * service.mean / site.busy / site.workers))
    if low > most or not enough(most):
        return None
    high = low
    while high < most and not enough(high):
        low, high = high + 1, min(most, max(high + 1, math.ceil(high * _NODE)))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


@dataclass
class Solver:
    """Solves cases of one fleet; capacities are kept from one call to the next."""

    _capacities: dict[tuple[object, ...], float] = field(default_factory=dict)
    _kept: list[tuple[object, ...]] = field(default_factory=list)

    def solve(self, fleet: Fleet, cases: Sequence[Case]) -> Solution | None:
        """The best choice by what the fleet prefers, or None where there is none."""
        if any(not case.possible() for case in cases):
            return None
        tight = 1.0
        for _ in range(_ATTEMPTS):
            found = self._program(fleet, cases, tight)
            if found is None:
                return None
            done = checked(fleet, cases, found)
            if done is not None:
                return done
            tight *= 0.97
        return None

    def _program(
        self, fleet: Fleet, cases: Sequence[Case], tight: float
    ) -> tuple[Option, ...] | None:
        columns = [(case, o) for case in cases for o in _pruned(fleet, case)]
        pools = list(dict.fromkeys(option.pool for _, option in columns if option.pool))
        sizes = {pool: self._sizes(fleet, cases, columns, pool) for pool in pools}
        program = Program(fleet, cases, columns, pools, sizes)
        for index, (case, option) in enumerate(columns):
            if option.pool:
                held = [
                    tight * self._capacity(fleet, case, option, number)
                    for number in sizes[option.pool]
                ]
                program.bound(index, held)
        return program.best()

    def _sizes(
        self,
        fleet: Fleet,
        cases: Sequence[Case],
        columns: Sequence[tuple[Case, Option]],
        pool: PoolKey,
    ) -> list[int]:
        """Numbers of replicas to consider for a pool."""
        site = fleet.site(pool.site)
        users = [(case, option) for case, option in columns if option.pool == pool]
        load = sum(
            max((o.rate * o.served.mean for c, o in users if c is case and o.served), default=0.0)
            for case in cases
        )
        # With few servers a little load can need several; with many the spare room shrinks.
        most = math.ceil((load * 2 / site.busy + 4 * math.sqrt(load) + 4) / site.workers) + 1
        most = min(most, site.replicas or most)
        found = list(range(1, min(most, _ALL) + 1))
        while found[-1] < most:
            found.append(min(most, max(found[-1] + 1, math.ceil(found[-1] * _STEP))))
        return found

    def _capacity(self, fleet: Fleet, case: Case, option: Option, replicas: int) -> float:
        """Of so many replicas, interpolated between numbers in steps of `_NODE`."""
        site = fleet.site(option.cloud_site)
        low, high = _nodes(replicas)
        ends = [self._at(case, option, n * site.workers, site.busy) for n in (low, high)]
        if low == high:
            return ends[0]
        share = (replicas - low) / (high - low)
        return ends[0] + share * (ends[1] - ends[0])

    def _at(self, case: Case, option: Option, servers: int, busy: float) -> float:
        held = (option.direct, option.sent, option.served)
        asked = (case.latency.limit, case.share) if case.latency else None
        key = (*map(id, held), option.share, asked, servers, busy)
        if key not in self._capacities:
            if len(self._kept) > _MOST_KEPT:
                self._kept.clear()
                self._capacities.clear()
            self._kept.append(held)  # so that their ids are not given to others
            self._capacities[key] = capacity(case, option, servers, busy)
        return self._capacities[key]


def _nodes(replicas: int) -> tuple[int, int]:
    """The neighbours of a number among those whose capacity is worked out."""
    low = 1
    while True:
        high = max(low + 1, math.ceil(low * _NODE)) if low >= 4 else low + 1
        if replicas == low:
            return low, low
        if replicas < high:
            return low, high
        low = high


def _pruned(fleet: Fleet, case: Case) -> list[Option]:
    """Options that could be taken: of the thresholds of one pair only the least that meets the
    demands, where more accuracy is not what is preferred."""
    found: list[Option] = []
    seen: set[tuple[object, ...]] = set()
    for option in sorted(case.possible(), key=lambda each: each.share):
        key = (option.kind, option.edge, option.cloud, option.cloud_site, option.cut)
        if fleet.prefer != "most_accurate" and option.kind == "cascade" and key in seen:
            continue
        seen.add(key)
        found.append(option)
    return found


def checked(fleet: Fleet, cases: Sequence[Case], taken: tuple[Option, ...]) -> Solution | None:
    """With the fewest replicas that meet every demand, if there are so many."""
    users: dict[PoolKey, list[tuple[Case, Option]]] = {}
    for case, option in zip(cases, taken, strict=True):
        if option.pool:
            users.setdefault(option.pool, []).append((case, option))
    rates = {pool: sum(option.rate for _, option in held) for pool, held in users.items()}
    replicas: dict[PoolKey, int] = {}
    for pool, held in users.items():
        site = fleet.site(pool.site)
        most = (
            site.replicas
            or math.ceil(4 * rates[pool] * _mean(held) / site.busy / site.workers) + 64
        )
        number = fewest(held, rates[pool], site, most)
        if number is None:
            return None
        replicas[pool] = number
    for site in fleet.of_kind("cloud"):
        used = sum(number for pool, number in replicas.items() if pool.site == site.name)
        if site.replicas is not None and used > site.replicas:
            return None
    cost = sum(option.cost for option in taken) + replicas_cost(fleet, replicas)
    if fleet.cost is not None and cost > fleet.cost + _NOTHING:
        return None
    return Solution(taken, replicas, rates, cost)


def _mean(users: Sequence[tuple[Case, Option]]) -> float:
    service = users[0][1].served
    return service.mean if service else 0.0


def replicas_cost(fleet: Fleet, replicas: dict[PoolKey, int]) -> float:
    """Of a month."""
    return sum(n * (fleet.site(p.site).price or 0.0) * HOURS for p, n in replicas.items())
