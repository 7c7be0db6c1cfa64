"""Where nothing meets every demand: which one binds, and what would have to give.

Each demand is loosened alone, to the least change with which the fleet can be planned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lepton_compress.artifacts import Observer
from lepton_compress.place.fleet import Fleet, Site, Workload
from lepton_compress.place.planning import Planner, money
from lepton_compress.place.program import Case
from lepton_compress.placements import Relief
from lepton_compress.units import show_percent, show_seconds

_CLOSE = 1.01
_CLOSE_ACCURACY = 1e-4
_FAR = 1e3
_MANY = 1_000_000


@dataclass(frozen=True)
class _Loosened:
    """A demand, how it is loosened, and how that is said.

    `to` gives the fleet with the demand at a value; `at` is where it is surely loose enough, and
    None of a demand that can only be dropped.
    """

    case: Case | None
    demand: str
    now: float | None
    to: Callable[[float], Fleet]
    at: float | None
    show: Callable[[float], str]
    ratio: bool = True


def reliefs(planner: Planner, observer: Observer) -> tuple[Relief, ...]:
    """The least change of every single demand that makes a plan possible; those that no change
    of helps are told too."""
    cases = planner.cases(planner.fleet)
    held = [
        *_of_fleet(planner.fleet),
        *(d for case in _stuck(planner, cases) for d in _of(planner.fleet, case)),
    ]
    found = []
    with observer.work("what would have to give", len(held)) as progress:
        for each in held:
            found.append(_relief(planner, each))
            progress.advance()
    return tuple(sorted(found, key=lambda relief: relief.to is None))


def _stuck(planner: Planner, cases: list[Case]) -> list[Case]:
    """Cases that no option serves by itself, or all where only together they cannot be served."""
    alone = []
    for case in cases:
        fleet = planner.fleet
        if planner.solver.solve(fleet, [case]) is None:
            alone.append(case)
    return alone or cases


def _relief(planner: Planner, held: _Loosened) -> Relief:
    workload, site = (held.case.workload.name, held.case.site.name) if held.case else ("", "")
    of = f"{workload} at {site}: " if held.case else ""

    def works(value: float) -> bool:
        return planner.solve(held.to(value))[1] is not None

    end = held.at if held.at is not None else 0.0
    if not works(end):
        said = f"{of}no other {held.demand} alone is enough"
        return Relief(workload, site, held.demand, held.now, None, said)
    if held.at is None or held.now is None:
        said = f"{of}possible without the demand on {held.demand}"
        return Relief(workload, site, held.demand, held.now, end, said)
    inside, outside = end, held.now
    while not _close(inside, outside, ratio=held.ratio):
        middle = math.sqrt(inside * outside) if held.ratio else (inside + outside) / 2
        inside, outside = (middle, outside) if works(middle) else (inside, middle)
    said = f"{of}possible with {held.demand} {held.show(inside)} instead of {held.show(held.now)}"
    return Relief(workload, site, held.demand, held.now, inside, said)


def _close(one: float, other: float, *, ratio: bool) -> bool:
    if not ratio:
        return abs(one - other) < _CLOSE_ACCURACY
    return max(one, other) / min(one, other) < _CLOSE


def _of_fleet(fleet: Fleet) -> Iterator[_Loosened]:
    if fleet.cost is not None:
        yield _Loosened(
            None,
            "cost",
            fleet.cost,
            lambda v: fleet.model_copy(update={"cost": v}),
            max(fleet.cost, 1.0) * _FAR,
            lambda v: money(v, fleet),
        )
    for site in fleet.of_kind("cloud"):
        if site.replicas is not None:
            yield _Loosened(
                None,
                f"replicas of {site.name}",
                float(site.replicas),
                _replicas(fleet, site),
                site.replicas * _FAR,
                lambda v: f"{math.ceil(v)}",
            )


def _replicas(fleet: Fleet, site: Site) -> Callable[[float], Fleet]:
    def to(value: float) -> Fleet:
        more = site.model_copy(update={"replicas": min(math.ceil(value), _MANY)})
        return fleet.model_copy(
            update={"sites": [more if each is site else each for each in fleet.sites]}
        )

    return to


def _of(fleet: Fleet, case: Case) -> Iterator[_Loosened]:
    demands = case.workload.demands

    def asks(**changed: object) -> Fleet:
        return _asking(fleet, case.workload, **changed)

    if (latency := demands.latency) is not None:
        yield _Loosened(
            case,
            f"p{latency.percentile:g}",
            latency.limit,
            lambda v: asks(latency=latency.model_copy(update={"limit": v})),
            latency.limit * _FAR,
            show_seconds,
        )
    if demands.accuracy is not None:
        share = 0 <= demands.accuracy <= 1
        better = all(option.higher_is_better for option in case.options)
        worst = demands.accuracy - 1 if better else demands.accuracy * _FAR + 1
        yield _Loosened(
            case,
            "accuracy",
            demands.accuracy,
            lambda v: asks(accuracy=v),
            worst,
            show_percent if share else lambda v: f"{v:.4g}",
            ratio=False,
        )
    if (drop := demands.drop) is not None:
        yield _Loosened(
            case, "drop", drop, lambda v: asks(drop=v), drop + 1, show_percent, ratio=False
        )
    if demands.may_leave != "raw":
        yield _Loosened(case, "privacy", None, lambda _: asks(may_leave="raw"), None, str)
    if demands.offline:
        yield _Loosened(case, "offline", None, lambda _: asks(offline=False), None, str)
    if demands.availability is not None:
        yield _Loosened(case, "availability", None, lambda _: asks(availability=None), None, str)
    if case.site.ram or case.site.flash:
        yield _Loosened(case, "memory", None, lambda _: _roomy(fleet, case.site), None, str)


def _asking(fleet: Fleet, workload: Workload, **changed: object) -> Fleet:
    demands = workload.demands.model_copy(update=changed)
    return fleet.model_copy(
        update={
            "workloads": [
                each.model_copy(update={"demands": demands}) if each is workload else each
                for each in fleet.workloads
            ]
        }
    )


def _roomy(fleet: Fleet, site: Site) -> Fleet:
    """With a site that has memory for any model."""
    more = site.model_copy(update={"ram": None, "flash": None})
    return fleet.model_copy(
        update={"sites": [more if each is site else each for each in fleet.sites]}
    )
