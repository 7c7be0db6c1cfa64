"""Where the answer would change: numbers of the fleet file, each changed alone.

A number is followed in steps away from its value until the plan is another one, and the place is
then found by bisection; each step plans the whole fleet again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from lepton_compress.artifacts import Observer
from lepton_compress.place.fleet import Fleet, Link
from lepton_compress.place.planning import Planner
from lepton_compress.place.program import Case
from lepton_compress.place.solving import Solution
from lepton_compress.placements import Change, Map
from lepton_compress.units import show_bandwidth, show_percent, show_seconds

FACTORS = (1.5, 3.0, 10.0, 40.0)
"""How far a number is followed, up and down."""
_CLOSE = 1.02
"""Bisection ends where both ends are that near to each other."""
_ACCURACIES = (0.002, 0.005, 0.01, 0.02, 0.05)
_CLOSE_ACCURACY = 2e-4
CELLS = 13
"""Columns and rows of a map."""
_LEAST_SPAN = 32.0
Side = Literal["below", "above"]
_SIDES: tuple[Side, Side] = ("below", "above")
Put = Callable[[float], Fleet]
Show = Callable[[float], str]


@dataclass(frozen=True)
class Number:
    """A number of the fleet that an answer may depend on.

    Attributes:
        of: what it is called.
        now: its value.
        put: the fleet with another value.
        show: how a value is written.
        steps: values to follow it over, downwards and upwards.
        close: whether two values are near enough.
        middle: what lies between two values.
    """

    of: str
    now: float
    put: Put
    show: Show
    steps: tuple[tuple[float, ...], tuple[float, ...]]
    close: Callable[[float, float], bool]
    middle: Callable[[float, float], float]


def changes(planner: Planner, observer: Observer) -> tuple[Change, ...]:
    """Every place where the plan of a case turns, with one number changed."""
    cases, solution = planner.solve(planner.fleet)
    if solution is None:
        return ()
    found: list[Change] = []
    held = [(i, n) for i, case in enumerate(cases) for n in numbers(planner.fleet, case)]
    with observer.work("sensitivity", len(held)) as progress:
        for index, number in held:
            now = named(solution, index)
            for direction, steps in zip(_SIDES, number.steps, strict=True):
                turn = _turn(planner, index, number, now, steps)
                if turn is not None:
                    found.append(_change(cases[index], number, direction, *turn))
            progress.advance()
    return tuple(found)


def named(solution: Solution | None, index: int) -> str:
    """A case's plan by what it is, whatever its threshold; empty where there is none."""
    if solution is None:
        return ""
    option = solution.taken[index]
    edge, cloud = (each.name if each else "" for each in (option.edge, option.cloud))
    if option.kind == "edge":
        return f"the edge with {edge}"
    if option.kind == "cloud":
        return f"the cloud {option.cloud_site} with {cloud}"
    if option.kind == "split":
        return f"a split at {option.cut.name if option.cut else ''} of {edge}"
    return f"a cascade of {edge} and {cloud} on {option.cloud_site}"


def numbers(fleet: Fleet, case: Case) -> Iterator[Number]:
    """The numbers that a case's plan may depend on."""
    for link in fleet.links_of(case.site.name):
        many = len(fleet.links_of(case.site.name)) > 1
        way = f" to {link.cloud}" if many else ""
        yield _scaled(
            f"round trip{way}", link.round_trip, _of_link(fleet, link, "round_trip"), show_seconds
        )
        yield _scaled(f"bandwidth up{way}", link.up, _of_link(fleet, link, "up"), show_bandwidth)
        if link.price > 0:
            put = _of_link(fleet, link, "price")
            yield _scaled(f"for what crosses{way}", link.price, put, _money(fleet, "/GB"))
        cloud = fleet.site(link.cloud)
        if cloud.price:
            put = _of_site(fleet, cloud.name)
            yield _scaled(f"for a replica{way}", cloud.price, put, _money(fleet, "/h"))
    demands = case.workload.demands
    if demands.latency is not None:
        held = demands.latency
        yield _scaled(
            f"as the limit on p{held.percentile:g}",
            held.limit,
            lambda v: _of_demands(fleet, case, latency=held.model_copy(update={"limit": v})),
            show_seconds,
        )
    for name in ("accuracy", "drop"):
        value = getattr(demands, name)
        if value is not None:
            yield _demanded(fleet, case, name, value)


def _scaled(of: str, now: float, put: Put, show: Show) -> Number:
    down, up = (tuple(now * f**sign for f in FACTORS) for sign in (-1, 1))
    return Number(
        of,
        now,
        put,
        show,
        (down, up),
        lambda a, b: max(a, b) / min(a, b) < _CLOSE,
        lambda a, b: math.sqrt(a * b),
    )


def _demanded(fleet: Fleet, case: Case, name: str, now: float) -> Number:
    share = name == "drop" or 0 <= now <= 1
    down, up = (tuple(now + sign * each for each in _ACCURACIES) for sign in (-1, 1))
    if name == "drop":
        down = tuple(each for each in down if each >= 0)
    elif share:
        up = tuple(each for each in up if each <= 1)
    return Number(
        f"as the {name} that is asked for",
        now,
        lambda v: _of_demands(fleet, case, **{name: v}),
        show_percent if share else lambda v: f"{v:.4g}",
        (down, up),
        lambda a, b: abs(a - b) < _CLOSE_ACCURACY,
        lambda a, b: (a + b) / 2,
    )


def _of_link(fleet: Fleet, link: Link, name: str) -> Put:
    def put(value: float) -> Fleet:
        made = {name: value}
        if name == "round_trip" and link.spread:
            # A shorter way varies less.
            made["spread"] = link.spread * value / link.round_trip
        links = [each.model_copy(update=made) if each is link else each for each in fleet.links]
        return fleet.model_copy(update={"links": links})

    return put


def _of_site(fleet: Fleet, name: str) -> Put:
    def put(value: float) -> Fleet:
        sites = [
            each.model_copy(update={"price": value}) if each.name == name else each
            for each in fleet.sites
        ]
        return fleet.model_copy(update={"sites": sites})

    return put


def _of_demands(fleet: Fleet, case: Case, **changed: object) -> Fleet:
    """With other demands of the case's workload, wherever it runs."""
    workload = case.workload
    demands = workload.demands.model_copy(update=changed)
    workloads = [
        each.model_copy(update={"demands": demands}) if each.name == workload.name else each
        for each in fleet.workloads
    ]
    return fleet.model_copy(update={"workloads": workloads})


def _money(fleet: Fleet, unit: str) -> Show:
    return lambda value: f"{value:.3g} {fleet.currency}".strip() + unit


def _turn(
    planner: Planner, index: int, number: Number, now: str, steps: tuple[float, ...]
) -> tuple[float, str] | None:
    """Where a case's plan turns on the way over `steps`, and into what."""

    def at(value: float) -> str:
        return named(planner.solve(number.put(value))[1], index)

    before = number.now
    for value in steps:
        then = at(value)
        if then == now:
            before = value
            continue
        inside, outside = before, value
        while not number.close(inside, outside):
            middle = number.middle(inside, outside)
            reached = at(middle)
            if reached == now:
                inside = middle
            else:
                outside, then = middle, reached
        return outside, then
    return None


def _change(case: Case, number: Number, direction: Side, at: float, plan: str) -> Change:
    goes = f"goes to {plan}" if plan else "has no plan that meets the demands"
    said = (
        f"{case.workload.name} at {case.site.name} {goes} {direction} {number.show(at)} "
        f"{number.of} (now {number.show(number.now)})"
    )
    return Change(
        case.workload.name, case.site.name, number.of, number.now, at, direction, plan, said
    )


def maps(planner: Planner, observer: Observer) -> tuple[Map, ...]:
    """What is chosen over round trip and bandwidth, for each case with one link."""
    cases, _ = planner.solve(planner.fleet)
    held = [(i, c) for i, c in enumerate(cases) if len(planner.fleet.links_of(c.site.name)) == 1]
    found = []
    with observer.work("map", len(held) * CELLS) as progress:
        for index, case in held:
            (link,) = planner.fleet.links_of(case.site.name)
            across = _spread(link.round_trip)
            along = _spread(link.up)
            names: list[str] = []
            rows = []
            for up in along:
                row = []
                for trip in across:
                    fleet = _of_link(planner.fleet, link, "round_trip")(trip)
                    (other,) = fleet.links_of(case.site.name)
                    said = named(planner.solve(_of_link(fleet, other, "up")(up))[1], index)
                    if said and said not in names:
                        names.append(said)
                    row.append(names.index(said) if said else -1)
                rows.append(tuple(row))
                progress.advance()
            found.append(
                Map(
                    case.workload.name,
                    case.site.name,
                    across,
                    along,
                    tuple(rows),
                    tuple(names),
                    (link.round_trip, link.up),
                )
            )
    return tuple(found)


def _spread(now: float) -> tuple[float, ...]:
    """Values around a number, in equal ratios."""
    half = (CELLS - 1) / 2
    return tuple(now * _LEAST_SPAN ** ((i - half) / half) for i in range(CELLS))
