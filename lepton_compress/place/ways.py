"""What serving a workload on the edge, over a link or on both sides takes and gives."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypedDict

from lepton_compress.place import cascade, evidence, queueing
from lepton_compress.place.distribution import (
    Distribution,
    constant,
    measured,
    round_trip,
    total,
)
from lepton_compress.place.evidence import Evidence
from lepton_compress.place.fleet import Fleet, Link, Site, Workload
from lepton_compress.place.options import (
    GIGABYTE,
    HOURS,
    MONTH,
    Option,
    Parts,
    PoolKey,
    Problem,
)
from lepton_compress.place.resting import SELDOM, Rested, calls, rested
from lepton_compress.placements import Cascade, Cut


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


@functools.lru_cache(maxsize=4096)
def _around(call: Distribution, overhead: float) -> Distribution:
    """A call with what the program around it takes."""
    return call.later(overhead)


def _busy(load: float) -> Problem:
    return "capacity", f"keeps a device busy for {100 * load:.0f} % of the time"


def _unrested(*held: tuple[Site, Rested, float]) -> tuple[str, ...]:
    """Sites with seldom calls whose times after rests are not known."""
    return tuple(
        site.name
        for site, rests, rate in held
        if site.workers == 1 and not rests and rate * SELDOM < 1
    )


def on_edge(fleet: Fleet, workload: Workload, site: Site, one: Evidence) -> Option:
    """All requests are answered where they arise."""
    call = _around(one.at(workload.rate), site.overhead or 0.0)
    spent, load = _device(workload.rate, call)
    problems: list[Problem] = [("memory", one.problem)] if one.problem else []
    if spent is None:
        problems.append(_busy(load))
    return Option(
        kind="edge",
        edge=one.variant,
        cloud=None,
        cloud_site="",
        share=0.0,
        direct=spent or call,
        sent=None,
        pool=None,
        served=None,
        rate=0.0,
        parts=Parts(call),
        edge_utilization=load,
        link_utilization=0.0,
        accuracy=one.score.value,
        accuracy_interval=one.score.interval,
        accuracy_down=one.score.value,
        up=0.0,
        down=0.0,
        cost_link=0.0,
        cost_energy=_energy(fleet, site, workload.rate, call.mean),
        leaves="nothing",
        higher_is_better=one.score.higher_is_better,
        availability=1.0,
        problems=tuple(problems),
        unrested=_unrested((site, one.rested, workload.rate)),
    )


class _Crossing(TypedDict):
    share: float
    rate: float
    link_utilization: float
    up: float
    down: float
    cost_link: float


@dataclass(frozen=True)
class Wire:
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
        back = constant(8 * self.workload.payload.answer / link.down)
        sent, load = _device(self.workload.rate * share, up)
        return [sent or up, way, back], load

    def _parts(self, edge: Distribution | None, size: int, cloud: Distribution) -> Parts:
        link = self.link
        trip = round_trip(link.round_trip, link.spread or 0.0, link.distribution)
        down = 8 * self.workload.payload.answer / link.down
        return Parts(edge, 8 * size / link.up, trip, down, cloud)

    def _common(self, share: float, size: int, load: float) -> _Crossing:
        """What crosses in a month, and its price."""
        requests = self.workload.rate * share * MONTH
        up, down = requests * size, requests * self.workload.payload.answer
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
        way, load = self._crossing(1.0, self.workload.payload.request)
        common = self._common(1.0, self.workload.payload.request, load)
        call = one.at(common["rate"])
        return Option(
            kind="cloud",
            edge=None,
            cloud=one.variant,
            cloud_site=self.cloud.name,
            direct=None,
            sent=total((*way, call)),
            pool=PoolKey(self.cloud.name, one.variant),
            served=one.service,
            parts=self._parts(None, self.workload.payload.request, call),
            edge_utilization=0.0,
            accuracy=one.score.value,
            accuracy_interval=one.score.interval,
            accuracy_down=None,
            cost_energy=0.0,
            higher_is_better=one.score.higher_is_better,
            leaves="raw",
            availability=self.link.availability,
            problems=tuple(self._unfit(one) + self._full(load)),
            unrested=_unrested((self.cloud, one.rested, common["rate"])),
            **common,
        )

    def cascade(
        self, low: Evidence, high: Evidence, held: cascade.Curve, point: cascade.Point
    ) -> Option:
        """Those that the edge is not sure of go up."""
        share = point.share
        before = _around(low.at(self.workload.rate), self.site.overhead or 0.0)
        spent, busy = _device(self.workload.rate, before)
        way, load = self._crossing(share, self.workload.payload.request)
        common = self._common(share, self.workload.payload.request, load)
        behind = high.at(common["rate"])
        first = spent or before
        problems = self._unfit(low) + self._unfit(high) + self._full(load)
        if spent is None:
            problems.append(_busy(busy))
        return Option(
            kind="cascade",
            edge=low.variant,
            cloud=high.variant,
            cloud_site=self.cloud.name,
            direct=first,
            sent=total((first, *way, behind)),
            pool=PoolKey(self.cloud.name, high.variant),
            served=high.service,
            parts=self._parts(before, self.workload.payload.request, behind),
            edge_utilization=busy,
            accuracy=point.accuracy,
            accuracy_interval=point.accuracy_interval,
            accuracy_down=low.score.value,
            cost_energy=_energy(self.fleet, self.site, self.workload.rate, before.mean),
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
            unrested=_unrested(
                (self.site, low.rested, self.workload.rate),
                (self.cloud, high.rested, common["rate"]),
            ),
            **common,
        )

    def split(self, low: Evidence, high: Evidence, cut: Cut) -> Option:
        """The first half runs at the edge, and what comes out of it goes up."""
        factors = [_factor(each, site) for each, site in ((low, self.site), (high, self.cloud))]
        rests = rested(cut.edge_idle, factors[0]), rested(cut.cloud_idle, factors[1])
        served = _half(cut.cloud_seconds, factors[1])
        rate = self.workload.rate
        before = calls(_half(cut.edge_seconds, factors[0]), rests[0], rate)
        before = _around(before, self.site.overhead or 0.0)
        spent, busy = _device(rate, before)
        size = cut.bytes + self.workload.payload.header
        way, load = self._crossing(1.0, size)
        common = self._common(1.0, size, load)
        behind = calls(served, rests[1], common["rate"])
        problems = self._full(load)
        for name, needs, has in (
            ("ram", cut.edge_memory, self.site.ram),
            ("flash", cut.edge_bytes, self.site.flash),
        ):
            if has is not None and (needs is None or needs > has):
                problems.append(("memory", f"its first half does not fit the {name}"))
        if spent is None:
            problems.append(_busy(busy))
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
            served=served,
            parts=self._parts(before, size, behind),
            edge_utilization=busy,
            accuracy=low.score.value - worse,
            accuracy_interval=(down - worse, up - worse),
            accuracy_down=None,
            cost_energy=_energy(self.fleet, self.site, self.workload.rate, before.mean),
            higher_is_better=low.score.higher_is_better,
            leaves="features" if cut.features else "raw",
            availability=self.link.availability,
            cut=cut,
            problems=tuple(problems),
            unrested=_unrested((self.site, rests[0], rate), (self.cloud, rests[1], common["rate"])),
            **common,
        )


@functools.lru_cache(maxsize=1024)
def _half(seconds: tuple[float, ...], factor: float) -> Distribution:
    return measured(seconds).slower(factor)


def _factor(one: Evidence, site: Site) -> float:
    """How many times as long calls take at a site as on the target they were measured on."""
    return evidence.target_of(one.result, site)[1]
