"""Every way to serve a workload's requests at one site: edge, cloud, cascade, split.

An option holds what its latency is made of; the wait in front of the cloud's replicas is left out,
because it depends on who else uses them (solving.py).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lepton_compress.artifacts import RunResult
from lepton_compress.place import cascade, evidence, queueing
from lepton_compress.place.distribution import (
    Distribution,
    constant,
    measured,
    mixture,
    round_trip,
    total,
)
from lepton_compress.place.evidence import Evidence
from lepton_compress.place.fleet import Fleet, Link, Site, Workload
from lepton_compress.placements import Cascade, Split, Kind, Leaves, Provenance, Variant
from lepton_compress.statistics import Interval
from lepton_compress.units import show_percent, show_seconds

HOURS = 730.5
"""In a month: a twelfth of 365.25 days."""
MONTH = HOURS * 3600.0
GIGABYTE = 1e9
IDLE = 0.8
"""Busy share that a queue may have where no latency is asked for."""
_MOST = 5
"""Thresholds of one pair of artifacts."""
Problem = tuple[str, str]
"""A demand that is broken, and how."""


@dataclass(frozen=True)
class PoolKey:
    """Replicas that hold the same: an artifact, or its second half behind a cut."""

    site: str
    variant: Variant
    part: str = ""


@dataclass(frozen=True)
class Option:
    """One way to serve a workload at a site.

    Attributes:
        share: of the requests that go up.
        direct: seconds of those that do not; None where all go up.
        sent: seconds of those that do, but for the wait in the cloud; None where none does.
        pool: the replicas that they queue for.
        served: seconds of one call there.
        rate: requests a second that all devices of the site send there.
        problems: demands that it breaks whatever else is chosen.
    """

    kind: Kind
    edge: Variant | None
    cloud: Variant | None
    cloud_site: str
    share: float
    direct: Distribution | None = field(repr=False)
    sent: Distribution | None = field(repr=False)
    pool: PoolKey | None
    served: Distribution | None = field(repr=False)
    rate: float
    edge_utilization: float
    link_utilization: float
    accuracy: float
    accuracy_interval: Interval
    accuracy_down: float | None
    up: float
    down: float
    cost_link: float
    cost_energy: float
    leaves: Leaves
    availability: float
    higher_is_better: bool = True
    cascade: Cascade | None = None
    cut: Split | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def cost(self) -> float:
        """A month, replicas left out."""
        return self.cost_link + self.cost_energy

    @property
    def provenance(self) -> Provenance:
        """The weakest of what it is made of."""
        held = {each.provenance for each in (self.edge, self.cloud) if each}
        held |= {self.cut.provenance} if self.cut else set()
        order: tuple[Provenance, ...] = ("estimated", "simulated", "measured")
        return next(each for each in order if each in held)

    def within(self, limit: float, wait: Distribution | None) -> float:
        """The probability of an answer within so many seconds, with that wait in the cloud."""
        found = 0.0
        if self.direct is not None:
            found += (1 - self.share) * float(self.direct.at_most(limit))
        if self.sent is not None and self.share > 0:
            if wait is None:
                found += self.share * float(self.sent.at_most(limit))
            else:
                found += self.share * _sum_within(self.sent, wait, limit)
        return found

    def latency(self, wait: Distribution | None) -> Distribution:
        """Seconds from a request to its answer, with that wait in the cloud."""
        parts: list[tuple[float, Distribution]] = []
        if self.direct is not None:
            parts.append((1 - self.share, self.direct))
        if self.sent is not None and self.share > 0:
            parts.append((self.share, total((self.sent, wait)) if wait else self.sent))
        return mixture(parts)


def _sum_within(first: Distribution, second: Distribution, limit: float) -> float:
    """The probability that the sum of two times is within a limit."""
    steps = np.diff(second.shares, prepend=0.0)
    middles = (np.concatenate([second.times[:1], second.times[:-1]]) + second.times) / 2
    return float((steps * first.at_most(limit - middles)).sum())


@dataclass
class Options:
    """Finds the options of a fleet; what does not change is worked out once."""

    fleet: Fleet
    results: Sequence[RunResult]
    splits: Sequence[Split] = ()
    seed: int = 0
    _curves: dict[tuple[str, ...], cascade.Curve] = field(default_factory=dict)
    _held: dict[tuple[object, ...], list[Evidence]] = field(default_factory=dict)
    left_out: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def of(self, fleet: Fleet, workload: Workload, site: Site) -> list[Option]:
        """Every option of a workload at a site, those that break a demand included."""
        made = list(self._all(fleet, workload, site))
        return [_judged(each, workload, self._least(workload)) for each in made]

    def evidence(self, workload: Workload, site: Site) -> list[Evidence]:
        """What was measured of the workload's models on a site's target."""
        key = (workload.name, site.name, site.ram, site.flash)
        if key not in self._held:
            self._held[key], said = evidence.gather(self._of(workload), site, workload.metric)
            self._note(workload, said)
        return self._held[key]

    def _of(self, workload: Workload) -> list[RunResult]:
        wanted = workload.results
        return [each for each in self.results if not wanted or each.recipe in wanted]

    def _note(self, workload: Workload, said: Sequence[str]) -> None:
        held = self.left_out.setdefault((workload.name, ""), [])
        held += [each for each in said if each not in held]

    def _least(self, workload: Workload) -> tuple[float, float] | None:
        """The sign of the metric and the value that is asked for."""
        best = evidence.best_original(self._of(workload), workload.metric)
        demands = workload.demands
        if best is None:
            return None
        sign = 1.0 if best.higher_is_better else -1.0
        if demands.accuracy is not None:
            return sign, demands.accuracy
        if demands.drop is not None:
            return sign, best.value - sign * demands.drop
        return None

    def _all(self, fleet: Fleet, workload: Workload, site: Site) -> Iterator[Option]:
        only = workload.demands.only or ("edge", "cloud", "cascade", "split")
        edges = self.evidence(workload, site)
        for each in edges if "edge" in only else ():
            yield _edge(fleet, workload, site, each)
        for link in fleet.links_of(site.name):
            cloud = fleet.site(link.cloud)
            above = self.evidence(workload, cloud)
            wire = _Wire(fleet, workload, site, link, cloud)
            for each in above if "cloud" in only else ():
                yield wire.cloud_only(each)
            if "cascade" in only:
                for low in edges:
                    for high in above:
                        yield from self._cascades(wire, low, high)
            if "split" in only:
                yield from self._splits(wire, edges, above)

    def _cascades(self, wire: _Wire, low: Evidence, high: Evidence) -> Iterator[Option]:
        sign = 1.0 if low.score.higher_is_better else -1.0
        if sign * high.score.value <= sign * low.score.value:
            return  # what is no better is not worth asking
        if reason := evidence.pairable(low, high):
            self._note(wire.workload, [f"no cascade: {reason}"])
            return
        held = low.answers()
        key = (*_identity(low), *_identity(high), low.score.metric)
        if key not in self._curves and held is not None:
            scores, true = held
            self._curves[key] = cascade.curve(
                scores,
                true,
                low.score.outcomes or (),
                high.score.outcomes or (),
                higher_is_better=low.score.higher_is_better,
                seed=self.seed,
            )
        made = self._curves[key]
        for point in _worth(made, low.score.higher_is_better, self._least(wire.workload)):
            yield wire.cascade(low, high, made, point)

    def _splits(
        self, wire: _Wire, edges: Sequence[Evidence], above: Sequence[Evidence]
    ) -> Iterator[Option]:
        for cut in self.splits:
            wanted = (cut.result, cut.candidate, cut.format)
            low = next((e for e in edges if _identity(e) == wanted), None)
            high = next((e for e in above if _identity(e) == wanted), None)
            fits = low and high and low.variant.target == cut.edge_target
            if low and high and fits and high.variant.target == cut.cloud_target:
                yield wire.split(low, high, cut)


def _identity(one: Evidence) -> tuple[str, str, str]:
    return one.variant.result, one.variant.candidate, one.variant.format


def _worth(
    held: cascade.Curve, higher: bool, least: tuple[float, float] | None
) -> list[cascade.Point]:
    """Thresholds to consider: on the half that they are chosen on, those that reach what is asked,
    from the least share sent up on; without a demand those that nothing there beats."""
    sign = 1.0 if higher else -1.0
    points = sorted(held.points, key=lambda point: point.share)
    if least is not None:
        good = [p for p in points if sign * p.chosen_accuracy >= sign * least[1]]
        found = good or sorted(points, key=lambda p: -sign * p.chosen_accuracy)[:1]
    else:
        found = []
        for point in points:
            if not found or sign * point.chosen_accuracy > sign * found[-1].chosen_accuracy:
                found.append(point)
    picked = np.unique(np.linspace(0, len(found) - 1, _MOST).round().astype(int)) if found else []
    return [found[index] for index in picked]


def _energy(fleet: Fleet, site: Site, rate: float, seconds: float) -> float:
    """What computing at the edge costs a month."""
    hours = rate * seconds * HOURS * site.count
    return hours * ((site.power or 0.0) / 1000 * fleet.energy_price + (site.price or 0.0))


@functools.lru_cache(maxsize=4096)
def _device(rate: float, service: Distribution) -> tuple[Distribution | None, float]:
    """Waiting and serving on one device (or on its uplink), and its busy share."""
    load = queueing.utilization(rate, service, 1)
    wait = queueing.waiting(rate, service)
    return (total((wait, service)) if wait else None), load


def _edge(fleet: Fleet, workload: Workload, site: Site, one: Evidence) -> Option:
    spent, load = _device(workload.rate, one.service)
    problems: list[Problem] = [("memory", one.problem)] if one.problem else []
    if spent is None:
        problems.append(("capacity", f"keeps a device busy for {100 * load:.0f} % of the time"))
    return Option(
        kind="edge",
        edge=one.variant,
        cloud=None,
        cloud_site="",
        share=0.0,
        direct=spent or one.service,
        sent=None,
        pool=None,
        served=None,
        rate=0.0,
        edge_utilization=load,
        link_utilization=0.0,
        accuracy=one.score.value,
        accuracy_interval=one.score.interval,
        accuracy_down=one.score.value,
        up=0.0,
        down=0.0,
        cost_link=0.0,
        cost_energy=_energy(fleet, site, workload.rate, one.service.mean),
        leaves="nothing",
        higher_is_better=one.score.higher_is_better,
        availability=1.0,
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class _Wire:
    """A workload's way from a site to a cloud, and the options over it."""

    fleet: Fleet
    workload: Workload
    site: Site
    link: Link
    cloud: Site

    def _crossing(self, share: float, size: int) -> tuple[list[Distribution], float]:
        """Seconds of the parts of the way there and back, and the uplink's busy share."""
        link = self.link
        way = round_trip(link.round_trip, link.spread or 0.0, link.distribution)
        up = constant(8 * size / link.up)
        back = constant(8 * self.workload.payload.down / link.down)
        sent, load = _device(self.workload.rate * share, up)
        return [sent or up, way, back], load

    def _common(self, share: float, size: int, load: float) -> dict[str, float]:
        """What crosses in a month, and its price."""
        requests = self.workload.rate * share * MONTH
        up, down = requests * size, requests * self.workload.payload.down
        price = self.link.price * self.site.count * (up + down) / GIGABYTE
        return {
            "share": share,
            "rate": self.workload.rate * share * self.site.count,
            "link_utilization": load,
            "up": up,
            "down": down,
            "cost_link": price,
        }

    def _full(self, load: float) -> list[Problem]:
        if load <= queueing.FULL:
            return []
        return [("bandwidth", f"keeps the uplink busy for {100 * load:.0f} % of the time")]

    def _unfit(self, one: Evidence) -> list[Problem]:
        return [("memory", one.problem)] if one.problem else []

    def cloud_only(self, one: Evidence) -> Option:
        """All requests go up."""
        way, load = self._crossing(1.0, self.workload.payload.up)
        return Option(
            kind="cloud",
            edge=None,
            cloud=one.variant,
            cloud_site=self.cloud.name,
            direct=None,
            sent=total((*way, one.service)),
            pool=PoolKey(self.cloud.name, one.variant),
            served=one.service,
            edge_utilization=0.0,
            accuracy=one.score.value,
            accuracy_interval=one.score.interval,
            accuracy_down=None,
            cost_energy=0.0,
            higher_is_better=one.score.higher_is_better,
            leaves="raw",
            availability=self.link.availability,
            problems=tuple(self._unfit(one) + self._full(load)),
            **self._common(1.0, self.workload.payload.up, load),
        )

    def cascade(
        self, low: Evidence, high: Evidence, held: cascade.Curve, point: cascade.Point
    ) -> Option:
        """Those that the edge is not sure of go up."""
        share = point.share
        spent, busy = _device(self.workload.rate, low.service)
        way, load = self._crossing(share, self.workload.payload.up)
        first = spent or low.service
        problems = self._unfit(low) + self._unfit(high) + self._full(load)
        if spent is None:
            said = f"keeps a device busy for {100 * busy:.0f} % of the time"
            problems.append(("capacity", said))
        return Option(
            kind="cascade",
            edge=low.variant,
            cloud=high.variant,
            cloud_site=self.cloud.name,
            direct=first,
            sent=total((first, *way, high.service)),
            pool=PoolKey(self.cloud.name, high.variant),
            served=high.service,
            edge_utilization=busy,
            accuracy=point.accuracy,
            accuracy_interval=point.accuracy_interval,
            accuracy_down=low.score.value,
            cost_energy=_energy(self.fleet, self.site, self.workload.rate, low.service.mean),
            higher_is_better=low.score.higher_is_better,
            leaves="raw",
            availability=1.0,
            cascade=Cascade(
                point.threshold,
                held.temperature,
                share,
                point.share_interval,
                point.gain_kept,
                held.samples,
            ),
            problems=tuple(problems),
            **self._common(share, self.workload.payload.up, load),
        )

    def split(self, low: Evidence, high: Evidence, cut: Split) -> Option:
        """The first half runs at the edge, and what comes out of it goes up."""
        factors = [_factor(each, site) for each, site in ((low, self.site), (high, self.cloud))]
        before = _half(cut.edge_seconds, factors[0])
        behind = _half(cut.cloud_seconds, factors[1])
        spent, busy = _device(self.workload.rate, before)
        way, load = self._crossing(1.0, cut.bytes)
        problems = self._full(load)
        for name, needs, has in (
            ("ram", cut.edge_memory, self.site.ram),
            ("flash", cut.edge_bytes, self.site.flash),
        ):
            if has is not None and (needs is None or needs > has):
                problems.append(("memory", f"its first half does not fit the {name}"))
        if spent is None:
            problems.append(("capacity", f"keeps a device busy for {100 * busy:.0f} % of the time"))
        sign = 1.0 if low.score.higher_is_better else -1.0
        worse = sign * cut.accuracy_drop
        down, up = low.score.interval
        return Option(
            kind="split",
            edge=low.variant,
            cloud=high.variant,
            cloud_site=self.cloud.name,
            direct=None,
            sent=total((spent or before, *way, behind)),
            pool=PoolKey(self.cloud.name, high.variant, cut.name),
            served=behind,
            edge_utilization=busy,
            accuracy=low.score.value - worse,
            accuracy_interval=(down - worse, up - worse),
            accuracy_down=None,
            cost_energy=_energy(self.fleet, self.site, self.workload.rate, before.mean),
            higher_is_better=low.score.higher_is_better,
            leaves="features",
            availability=self.link.availability,
            cut=cut,
            problems=tuple(problems),
            **self._common(1.0, cut.bytes, load),
        )


@functools.lru_cache(maxsize=1024)
def _half(seconds: tuple[float, ...], factor: float) -> Distribution:
    return measured(seconds).slower(factor)


def _factor(one: Evidence, site: Site) -> float:
    """How many times as long calls take at a site as on the target they were measured on."""
    return evidence.target_of(one.result, site)[1]


_ALLOWED: Mapping[Leaves, tuple[Leaves, ...]] = {
    "raw": ("raw", "features", "nothing"),
    "features": ("features", "nothing"),
    "nothing": ("nothing",),
}


def _judged(option: Option, workload: Workload, least: tuple[float, float] | None) -> Option:
    """With the demands that it breaks whatever else is chosen."""
    demands = workload.demands
    found = list(option.problems)
    if option.leaves not in _ALLOWED[demands.may_leave]:
        what = "raw input leaves" if option.leaves == "raw" else "features leave"
        found.append(("privacy", f"{what} the site"))
    if demands.offline and option.accuracy_down is None:
        found.append(("offline", "has no answer while the link is down"))
    if demands.availability is not None and option.availability < demands.availability:
        asked = show_percent(demands.availability)
        said = f"answers {show_percent(option.availability)} of the time, {asked} is asked for"
        found.append(("availability", said))
    if least is not None and least[0] * option.accuracy < least[0] * least[1]:
        side = "below" if least[0] > 0 else "above"
        found.append(("accuracy", f"{_shown(option.accuracy)} is {side} {_shown(least[1])}"))
    if demands.latency is not None and not _is_full(found):
        limit, share = demands.latency.limit, demands.latency.percentile / 100
        if option.within(limit, None) < share:
            reached = show_seconds(option.latency(None).quantile(share))
            named = f"p{demands.latency.percentile:g}"
            wait = " without any waiting in the cloud" if option.pool else ""
            said = f"{named} of {reached}{wait} is over {show_seconds(limit)}"
            found.append(("latency", said))
    return replace(option, problems=tuple(found))


def _is_full(problems: Sequence[Problem]) -> bool:
    """Whether a queue at the edge only grows, so that it has no latency."""
    return any(name in ("capacity", "bandwidth") for name, _ in problems)


def _shown(value: float) -> str:
    return show_percent(value) if abs(value) <= 1 else f"{value:.4g}"
