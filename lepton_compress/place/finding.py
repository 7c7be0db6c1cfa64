"""Every way to serve a workload's requests at one site: edge, cloud, cascade, split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lepton_compress.artifacts import RunResult
from lepton_compress.place import cascade, evidence
from lepton_compress.place.evidence import Evidence
from lepton_compress.place.fleet import Fleet, Site, Workload
from lepton_compress.place.options import Option, judged
from lepton_compress.place.ways import Wire, on_edge
from lepton_compress.placements import Cut

_MOST = 5
"""Thresholds of one pair of artifacts."""


@dataclass
class Options:
    """Finds the options of a fleet; what does not change is worked out once."""

    fleet: Fleet
    results: Sequence[RunResult]
    cuts: Sequence[Cut] = ()
    seed: int = 0
    _curves: dict[tuple[str, ...], cascade.Curve] = field(default_factory=dict)
    _held: dict[tuple[object, ...], list[Evidence]] = field(default_factory=dict)
    left_out: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def of(self, fleet: Fleet, workload: Workload, site: Site) -> list[Option]:
        """Every option of a workload at a site, those that break a demand included."""
        made = list(self._all(fleet, workload, site))
        return [judged(each, workload, self._least(workload)) for each in made]

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
            yield on_edge(fleet, workload, site, each)
        for link in fleet.links_of(site.name):
            cloud = fleet.site(link.cloud)
            above = self.evidence(workload, cloud)
            wire = Wire(fleet, workload, site, link, cloud)
            for each in above if "cloud" in only else ():
                yield wire.cloud_only(each)
            if "cascade" in only:
                for low in edges:
                    for high in above:
                        yield from self._cascades(wire, low, high)
            if "split" in only:
                yield from self._splits(wire, edges, above)

    def _cascades(self, wire: Wire, low: Evidence, high: Evidence) -> Iterator[Option]:
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
        self, wire: Wire, edges: Sequence[Evidence], above: Sequence[Evidence]
    ) -> Iterator[Option]:
        for cut in self.cuts:
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
    if not found:
        return []
    picked: NDArray[np.intp] = np.unique(np.linspace(0, len(found) - 1, _MOST).round().astype(int))
    return [found[index] for index in picked]
