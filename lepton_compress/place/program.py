"""The mixed-integer linear program of a fleet, for HiGHS: one option a case, one size a pool."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from lepton_compress.place.distribution import Distribution, mixture
from lepton_compress.place.fleet import Fleet, LatencyDemand, Site, Workload
from lepton_compress.place.options import HOURS, Option, PoolKey

SLACK = 1.05
"""How far over the cost a program may be: pools shrink when they are checked."""
_SECONDS = 20.0
_NOTHING = 1e-9


@dataclass(frozen=True)
class Case:
    """A workload at a site, and what could serve it."""

    workload: Workload
    site: Site
    options: Sequence[Option]

    @property
    def latency(self) -> LatencyDemand | None:
        """What is asked of its latency."""
        return self.workload.demands.latency

    @property
    def share(self) -> float:
        """The percentile that is asked for, as a share; the 99th by default."""
        return self.latency.percentile / 100 if self.latency else 0.99

    def possible(self) -> list[Option]:
        """Options that break no demand by themselves."""
        return [option for option in self.options if not option.problems]


class Program:
    """The integer program: a 0/1 column an option, and one for each size of each pool."""

    def __init__(
        self,
        fleet: Fleet,
        cases: Sequence[Case],
        columns: Sequence[tuple[Case, Option]],
        pools: Sequence[PoolKey],
        sizes: dict[PoolKey, list[int]],
    ) -> None:
        self.fleet, self.cases, self.columns = fleet, cases, columns
        self.start: dict[PoolKey, int] = {}
        self.sizes = sizes
        place = len(columns)
        for pool in pools:
            self.start[pool] = place
            place += len(sizes[pool])
        self.width = place
        self.rows: list[tuple[dict[int, float], float, float]] = []
        for case in cases:
            taken = {i: 1.0 for i, (each, _) in enumerate(columns) if each is case}
            self.rows.append((taken, 1.0, 1.0))
        for pool in pools:
            at = range(self.start[pool], self.start[pool] + len(sizes[pool]))
            self.rows.append((dict.fromkeys(at, 1.0), 0.0, 1.0))
        for site in fleet.of_kind("cloud"):
            if site.replicas is not None:
                used = {
                    self.start[pool] + i: float(number)
                    for pool in pools
                    if pool.site == site.name
                    for i, number in enumerate(sizes[pool])
                }
                self.rows.append((used, -np.inf, float(site.replicas)))
        self.money = self._over(lambda _, option: option.cost, priced=True)
        if fleet.cost is not None:
            self.rows.append((_sparse(self.money), -np.inf, fleet.cost * SLACK))

    def _over(self, value: Callable[[Case, Option], float], *, priced: bool) -> NDArray[np.float64]:
        made = np.zeros(self.width)
        for index, (case, option) in enumerate(self.columns):
            made[index] = value(case, option)
        if priced:
            for pool, place in self.start.items():
                price = (self.fleet.site(pool.site).price or 0.0) * HOURS
                for i, number in enumerate(self.sizes[pool]):
                    made[place + i] = price * number
        return made

    def bound(self, index: int, capacities: Sequence[float]) -> None:
        """If this option is taken, its pool's rate is within the capacity of the pool's size."""
        option = self.columns[index][1]
        pool = option.pool
        if pool is None:
            return
        rates = {i: each.rate for i, (_, each) in enumerate(self.columns) if each.pool == pool}
        # Without it the row must say nothing: no more can arrive than this.
        most = sum(
            max(
                (each.rate for c, each in self.columns if c is case and each.pool == pool),
                default=0,
            )
            for case in self.cases
        )
        row = dict(rates)
        row[index] = row[index] + most
        scale = max(most, _NOTHING)
        for i, held in enumerate(capacities):
            row[self.start[pool] + i] = -min(held, most)
        row = {i: value / scale for i, value in row.items()}
        self.rows.append((row, -np.inf, most / scale))

    def best(self) -> tuple[Option, ...] | None:
        """The options that are best by what is preferred, and among those by what comes next."""
        speed = self._over(
            lambda c, o: _weight(c) * o.latency(None).quantile(c.share), priced=False
        )
        if self.fleet.prefer == "cheapest":
            goals = [self.money, speed]
        elif self.fleet.prefer == "fastest":
            goals = [speed, self.money]
        else:
            goals = [self._over(_loss, priced=False), self.money]
        extra: list[tuple[dict[int, float], float, float]] = []
        found = None
        for goal in goals:
            made = self._solve(goal, extra)
            if made is None:
                break
            found = made
            reached = float(goal @ made)
            room = max(abs(reached) * 1e-6, 1e-7)
            extra = [(_sparse(goal), -np.inf, reached + room)]
        if found is None:
            return None
        return tuple(
            next(o for i, (c, o) in enumerate(self.columns) if c is case and found[i] > 0.5)
            for case in self.cases
        )

    def _solve(
        self,
        goal: NDArray[np.float64],
        extra: Sequence[tuple[dict[int, float], float, float]],
    ) -> NDArray[np.float64] | None:
        rows = [*self.rows, *extra]
        matrix = sparse.lil_array((len(rows), self.width))
        for number, (held, _, _) in enumerate(rows):
            for index, value in held.items():
                matrix[number, index] = value
        limits = optimize.LinearConstraint(
            matrix.tocsc(), [low for _, low, _ in rows], [high for _, _, high in rows]
        )
        found = optimize.milp(
            goal / max(float(np.abs(goal).max()), _NOTHING),
            integrality=np.ones(self.width),
            bounds=optimize.Bounds(0, 1),
            constraints=limits,
            options={"time_limit": _SECONDS, "mip_rel_gap": 1e-6},
        )
        return None if found.x is None else np.round(found.x)


def _alone(option: Option, share: float) -> float:
    """Seconds at a percentile, without waiting in the cloud."""
    return _quantile(option.direct, option.sent, option.share, share)


@functools.lru_cache(maxsize=8192)
def _quantile(
    direct: Distribution | None, sent: Distribution | None, up: float, share: float
) -> float:
    parts = [(1 - up, direct), (up, sent)]
    return mixture([(weight, each) for weight, each in parts if each is not None]).quantile(share)


def _weight(case: Case) -> float:
    return case.workload.rate * case.site.count


def _loss(case: Case, option: Option) -> float:
    """How far an option's accuracy is from the best of its case, by its requests."""
    sign = 1.0 if option.higher_is_better else -1.0
    best = max(sign * each.accuracy for each in case.possible())
    return _weight(case) * (best - sign * option.accuracy)


def _sparse(values: NDArray[np.float64]) -> dict[int, float]:
    return {int(i): float(values[i]) for i in np.flatnonzero(values)}
