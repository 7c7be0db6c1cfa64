"""One way to serve a workload's requests at one site, and the demands that it breaks.

An option holds what its latency is made of; the wait in front of the cloud's replicas is left out,
because it depends on who else uses them (solving.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lepton_compress.place.distribution import Distribution, mixture, total
from lepton_compress.place.fleet import Workload
from lepton_compress.placements import Cascade, Cut, Kind, Leaves, Provenance, Variant
from lepton_compress.statistics import Interval
from lepton_compress.units import show_percent, show_seconds

HOURS = 730.5
"""In a month: a twelfth of 365.25 days."""
MONTH = HOURS * 3600.0
GIGABYTE = 1e9
Problem = tuple[str, str]
"""A demand that is broken, and how."""


@dataclass(frozen=True)
class PoolKey:
    """Replicas that hold the same: an artifact, or its second half behind a cut."""

    site: str
    variant: Variant
    part: str = ""


@dataclass(frozen=True)
class Parts:
    """What the latency of an option is made of, for a simulation of its own.

    Attributes:
        edge: seconds of a call on the device; None where it computes nothing.
        up, down: seconds that a request and its answer take on the link, waiting left out.
        trip: seconds of the round trip; None where nothing is sent.
        cloud: seconds of a call in the cloud that comes as often as the option's own; None where
            nothing is sent.
    """

    edge: Distribution | None
    up: float = 0.0
    trip: Distribution | None = None
    down: float = 0.0
    cloud: Distribution | None = None


@dataclass(frozen=True)
class Option:
    """One way to serve a workload at a site.

    Attributes:
        share: of the requests that go up.
        direct: seconds of those that do not; None where all go up.
        sent: seconds of those that do, but for the wait in the cloud; None where none does.
        pool: the replicas that they queue for.
        served: seconds of one call there, back to back, as whoever waits sees them.
        rate: requests a second that all devices of the site send there.
        problems: demands that it breaks whatever else is chosen.
        unrested: sites whose times are those of calls back to back although calls are seldom.
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
    parts: Parts = field(repr=False)
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
    cut: Cut | None = None
    problems: tuple[Problem, ...] = ()
    unrested: tuple[str, ...] = ()

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
    times, masses = second.masses
    return float((masses * first.at_most(limit - times)).sum())


_ALLOWED: Mapping[Leaves, tuple[Leaves, ...]] = {
    "raw": ("raw", "features", "nothing"),
    "features": ("features", "nothing"),
    "nothing": ("nothing",),
}


def judged(option: Option, workload: Workload, least: tuple[float, float] | None) -> Option:
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
