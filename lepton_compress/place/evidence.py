"""What results say of artifacts on the targets that a fleet has: times, memory, answers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lepton_compress.artifacts import Answered, Artifact, Profile, RunResult, Score
from lepton_compress.errors import InputError
from lepton_compress.place.distribution import Distribution, constant, from_percentiles, measured
from lepton_compress.place.fleet import Site
from lepton_compress.place.resting import Rested, calls, rested
from lepton_compress.placements import Provenance, Variant
from lepton_compress.provenance import file_digest
from lepton_compress.units import show_bytes

Answers = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Evidence:
    """An artifact at a site.

    Attributes:
        service: seconds of one call, back to back.
        rested: of one after rests, where that was measured.
        score: in the workload's metric.
        problem: why it does not fit the site; empty where it does.
    """

    variant: Variant
    result: RunResult = field(repr=False)
    artifact: Artifact = field(repr=False)
    service: Distribution = field(repr=False)
    score: Score
    problem: str = ""
    rested: Rested = field(default=(), repr=False)

    def at(self, rate: float) -> Distribution:
        """Seconds of a call where so many a second arrive."""
        return calls(self.service, self.rested, rate)

    def answers(self) -> Answers | None:
        """The class scores that it gives each evaluation sample, and the true classes.

        Raises:
            InputError: the file is missing, or another one than the run wrote.
        """
        wanted = (self.variant.candidate, self.variant.format)
        held = next((a for a in self.result.answers if (a.candidate, a.format) == wanted), None)
        if held is None or self.result.folder is None:
            return None
        return _read(self.result.folder / held.path, held)


def gather(
    results: Sequence[RunResult], site: Site, metric: str | None
) -> tuple[list[Evidence], list[str]]:
    """Every artifact that was measured on the site's target, and what was left out, and why."""
    found: list[Evidence] = []
    left_out: list[str] = []
    for result in results:
        name, factor, marked = target_of(result, site)
        scores = _scores(result, metric)
        broken = {(p.candidate, p.format) for p in result.parities if not p.holds}
        for profile in result.profiles:
            key = (profile.candidate, profile.format)
            if profile.target != name or key not in scores or key in broken:
                continue
            said = f"{result.recipe}:{profile.candidate}"
            service, reason = _service(profile, site)
            if service is None:
                left_out.append(f"{said} on {site.name}: {reason}")
                continue
            artifact = result.artifact(*key)
            how: Provenance = "estimated" if marked else profile.provenance
            found.append(
                Evidence(
                    Variant(result.recipe, *key, name, how),
                    result,
                    artifact,
                    service.slower(factor),
                    scores[key],
                    _unfit(profile, artifact, site),
                    rested(profile.idle if site.workers == 1 else (), factor),
                )
            )
    return found, left_out


def target_of(result: RunResult, site: Site) -> tuple[str, float, bool]:
    """The target of a result whose profiles hold at a site, how many times as long calls take
    there, and whether that is an estimate."""
    known = {profile.target for profile in result.profiles}
    if site.target in known or site.estimate_from is None:
        return site.target, 1.0, False
    return site.estimate_from.target, site.estimate_from.factor, True


def _scores(result: RunResult, metric: str | None) -> dict[tuple[str, str], Score]:
    first = result.scores[0].metric if result.scores else ""
    wanted = metric or first
    return {
        (s.candidate, s.format): s
        for s in result.scores
        if s.metric == wanted and s.value == s.value  # a NaN is no score
    }


def _service(profile: Profile, site: Site) -> tuple[Distribution | None, str]:
    """Seconds of a call, or why they are not known."""
    if profile.status != "measured":
        return None, profile.reason or "was not measured"
    if profile.batch != 1:
        return None, f"was measured with batches of {profile.batch}, and requests come one by one"
    if site.workers > 1:
        held = next((c for c in profile.callers if c.callers == site.workers), None)
        if held is None or not held.latency:
            mend = f"add `measure: {{callers: [{site.workers}]}}` to its recipe"
            return None, f"was not measured with {site.workers} callers at once; {mend}"
        return from_percentiles(held.latency, site.workers / held.throughput), ""
    if profile.quantiles:
        return measured(profile.quantiles), ""
    if profile.fit is not None and profile.fit.seconds is not None:
        return constant(profile.fit.seconds), ""
    if not profile.latency:
        return None, "has no time"
    mean = 1 / profile.throughput if profile.throughput else None
    return from_percentiles(profile.latency, mean), ""


def _unfit(profile: Profile, artifact: Artifact, site: Site) -> str:
    """Why an artifact does not fit a site's memory; empty where it does."""
    fit = profile.fit
    if fit is not None and fit.problem:
        return fit.problem
    ram = fit.ram if fit is not None else profile.peak_memory
    flash = fit.flash if fit is not None and fit.flash is not None else artifact.bytes
    for name, needs, has in (("ram", ram, site.ram), ("flash", flash, site.flash)):
        if has is None:
            continue
        if needs is None:
            return f"what it takes of {name} was not measured"
        if needs > has:
            return f"takes {show_bytes(needs)} of {name}, {site.name} has {show_bytes(has)}"
    return ""


def best_original(results: Sequence[RunResult], metric: str | None) -> Score | None:
    """The best score of the unchanged models."""
    held = [
        score
        for result in results
        for (candidate, _), score in _scores(result, metric).items()
        if candidate == result.baseline
    ]
    sign = 1.0 if held and held[0].higher_is_better else -1.0
    return max(held, key=lambda score: sign * score.value, default=None)


def pairable(edge: Evidence, cloud: Evidence) -> str:
    """Why no cascade can be told of two artifacts; empty where one can."""
    if edge.result.data_fingerprint != cloud.result.data_fingerprint:
        return f"{edge.variant.name} and {cloud.variant.name} were evaluated on other data"
    for each in (edge, cloud):
        if each.score.outcomes is None:
            return f"{each.variant.name} has no outcome for each sample"
    if not any(_same(each, edge) for each in edge.result.answers):
        return (
            f"the result of {edge.variant.result} keeps no class scores for each sample; run its "
            "recipe again"
        )
    return ""


def _same(held: Answered, one: Evidence) -> bool:
    return (held.candidate, held.format) == (one.variant.candidate, one.variant.format)


@functools.lru_cache(maxsize=64)
def _read(file: Path, held: Answered) -> Answers:
    mend = "run the recipe again"
    if not file.is_file():
        raise InputError("is missing", where=str(file), mend=mend)
    if file_digest(file) != held.sha256:
        raise InputError("is another file than the run wrote", where=str(file), mend=mend)
    with np.load(file, allow_pickle=False) as opened:
        return opened["scores"], opened["targets"]


def targets(results: Sequence[RunResult]) -> Iterator[str]:
    """Every target that was profiled, once."""
    yield from dict.fromkeys(p.target for result in results for p in result.profiles)
