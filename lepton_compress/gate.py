"""Judging and choosing: pure functions of measured values. No I/O, no framework.

A gate is judged by the measured point, or under `strict` by the whole confidence interval. What
was not measured never passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lepton_compress.artifacts import (
    Artifact,
    Choice,
    Parity,
    Profile,
    Score,
    Status,
    Verdict,
)
from lepton_compress.recipe import Gate, LatencyGate, Recipe, ScoreGate
from lepton_compress.units import show_bytes, show_percent, show_seconds

PARITY = "parity"
"""Always judged: an artifact that does not compute what its source does is never chosen."""
RUNS = "runs"
"""Judged where a target could not run an artifact, which is then not chosen for it."""

Interval = tuple[float, float]
Shower = Callable[[float], str]


@dataclass(frozen=True)
class Measured:
    """Everything a run measured, in the order of its artifacts."""

    baseline: str
    artifacts: Sequence[Artifact]
    parities: Sequence[Parity]
    scores: Sequence[Score]
    profiles: Sequence[Profile]

    def parities_of(self, artifact: Artifact) -> list[Parity]:
        """The checks of an artifact and of what it was made from."""
        return [each for each in self.parities if _same(each, artifact)]

    def score_of(self, artifact: Artifact, metric: str) -> Score | None:
        """An artifact's score in a metric."""
        found = (s for s in self.scores if _same(s, artifact) and s.metric == metric)
        return next(found, None)

    def profile_of(self, artifact: Artifact, target: str) -> Profile | None:
        """What an artifact costs on a target."""
        found = (p for p in self.profiles if _same(p, artifact) and p.target == target)
        return next(found, None)

    def baseline_of(self, artifact: Artifact) -> Artifact | None:
        """The baseline's artifact of the same format."""
        wanted = (self.baseline, artifact.format)
        return next((a for a in self.artifacts if (a.candidate, a.format) == wanted), None)


@dataclass(frozen=True)
class _Reading:
    """One measured value on its way to a verdict. An exact one is its own interval."""

    observed: float | None
    interval: Interval | None
    at_most: bool
    missing: str = ""
    share: bool = False


def _exact(value: float) -> _Reading:
    return _Reading(float(value), (float(value), float(value)), True)


def judge(recipe: Recipe, measured: Measured) -> tuple[Verdict, ...]:
    """A verdict for every artifact, gate and (where it matters) target."""
    verdicts = []
    for artifact in measured.artifacts:
        verdicts.append(_judge_parity(artifact, measured.parities_of(artifact)))
        verdicts += [
            _judge_failure(profile)
            for profile in measured.profiles
            if _same(profile, artifact) and profile.status == "failed"
        ]
        for name, gate in recipe.gates.items():
            for target in _targets(recipe, name, gate):
                reading = _read(name, gate, artifact, target, recipe, measured)
                verdicts.append(_decide(name, gate, artifact, target, reading))
    return tuple(verdicts)


def select(recipe: Recipe, measured: Measured, verdicts: Sequence[Verdict]) -> tuple[Choice, ...]:
    """For each target the best artifact that passes every gate, or the baseline and why."""
    return tuple(_select(target.name, recipe, measured, verdicts) for target in recipe.targets)


def passed(recipe: Recipe, choices: Iterable[Choice], verdicts: Iterable[Verdict]) -> bool:
    """Whether the run as a whole meets what the recipe demands."""
    if recipe.require == "every":
        variants = [each for each in verdicts if each.candidate in recipe.variants]
        if any(verdict.status is not Status.PASS for verdict in variants):
            return False
    return all(choice.met for choice in choices)


def _judge_parity(artifact: Artifact, parities: Sequence[Parity]) -> Verdict:
    worst = max(
        (p.value / p.limit if p.value == p.value else math.inf for p in parities), default=None
    )
    limit = parities[0].limit if parities else math.nan
    broken = [parity for parity in parities if not parity.holds]
    status = Status.FAIL if broken else Status.PASS if parities else Status.NOT_MEASURED
    reason = (
        f"differs from its {broken[0].against} by {broken[0].value:.2g} "
        f"(limit {limit:.0e}) at batch {broken[0].batch}"
        if broken
        else "computes what its source computes"
        if parities
        else "was not compared with its source"
    )
    observed = None if worst is None else worst * limit
    one = artifact
    return Verdict(
        one.candidate, one.format, None, PARITY, status, observed, None, limit, True, reason
    )


def _judge_failure(profile: Profile) -> Verdict:
    one, why = profile, f"cannot run there ({profile.reason})"
    fail, unlimited = Status.FAIL, math.nan
    return Verdict(
        one.candidate, one.format, one.target, RUNS, fail, None, None, unlimited, False, why
    )


def _targets(recipe: Recipe, name: str, gate: Gate) -> list[str | None]:
    if gate.targets:
        return list(gate.targets)
    same_everywhere = name in ("score", "drop", "size", "size_ratio")
    return [None] if same_everywhere else [target.name for target in recipe.targets]


def _read(
    name: str,
    gate: Gate,
    artifact: Artifact,
    target: str | None,
    recipe: Recipe,
    measured: Measured,
) -> _Reading:
    if isinstance(gate, ScoreGate):
        metric = gate.metric or recipe.metrics[0].name
        score = measured.score_of(artifact, metric)
        if score is None or math.isnan(score.value):
            why = "has no value" if score else "was not measured"
            return _Reading(None, None, True, f"{metric} {why}")
        if name == "score":
            lower = not score.higher_is_better
            return _Reading(score.value, _known(score.interval), lower, share=score.is_share)
        if artifact.candidate == measured.baseline:
            exact = _exact(0.0)  # it is what the others are compared with
            return replace(exact, share=score.is_share)
        interval, missing = _known(score.drop_interval), "nothing to compare with"
        return _Reading(score.drop, interval, True, missing, share=score.is_share)
    if name == "size":
        return _exact(artifact.bytes)
    if name == "size_ratio":
        base = measured.baseline_of(artifact)
        if base is None:
            return _Reading(None, None, True, "the baseline has no such artifact")
        return _exact(artifact.bytes / base.bytes)
    profile = measured.profile_of(artifact, target or "")
    if profile is None or profile.status != "measured":
        why = profile.reason if profile else "was not profiled"
        return _Reading(None, None, True, why)
    return _read_profile(name, gate, profile)


def _read_profile(name: str, gate: Gate, profile: Profile) -> _Reading:
    if isinstance(gate, LatencyGate):
        observed = profile.latency.get(gate.percentile)
        missing = f"{profile.samples} samples are too few for {gate.percentile}"
        return _Reading(observed, profile.interval.get(gate.percentile), True, missing)
    if name == "latency_ratio":
        return _Reading(profile.ratio, profile.ratio_interval, True, "the baseline has no latency")
    if name == "cold_start":
        return _Reading(profile.cold_start, None, True, "not measured")
    peak = profile.peak_memory
    return _Reading(None if peak is None else float(peak), None, True, "not measured")


def _known(interval: Interval | None) -> Interval | None:
    return None if interval is None or any(math.isnan(end) for end in interval) else interval


def _decide(
    name: str, gate: Gate, artifact: Artifact, target: str | None, reading: _Reading
) -> Verdict:
    limit = float(gate.limit)  # type: ignore[attr-defined]
    shown = _shower(name, share=reading.share)
    status, reason = _status(reading, limit, strict=gate.strict, shown=shown)
    return Verdict(
        artifact.candidate,
        artifact.format,
        target,
        name,
        status,
        reading.observed,
        reading.interval,
        limit,
        gate.strict,
        reason,
    )


def _status(reading: _Reading, limit: float, *, strict: bool, shown: Shower) -> tuple[Status, str]:
    if reading.observed is None or math.isnan(reading.observed):
        return Status.NOT_MEASURED, reading.missing or "not measured"
    bound = f"{'at most' if reading.at_most else 'at least'} {shown(limit)}"
    if not strict:
        good = reading.observed <= limit if reading.at_most else reading.observed >= limit
        return (Status.PASS if good else Status.FAIL), f"{shown(reading.observed)}, {bound} asked"
    if reading.interval is None:
        return Status.INCONCLUSIVE, "it has no confidence interval to be strict about"
    low, high = reading.interval
    said = shown(low) if low == high else f"{shown(low)} to {shown(high)}"
    said += f", {bound} asked"
    inside, outside = (
        (high <= limit, low > limit) if reading.at_most else (low >= limit, high < limit)
    )
    return (Status.PASS if inside else Status.FAIL if outside else Status.INCONCLUSIVE), said


def _shower(name: str, *, share: bool) -> Shower:
    if name in ("latency", "cold_start"):
        return show_seconds
    if name in ("size", "peak_memory"):
        return show_bytes
    if name in ("score", "drop"):
        return show_percent if share else _show_number
    return _show_factor


def _select(target: str, recipe: Recipe, measured: Measured, verdicts: Sequence[Verdict]) -> Choice:
    def fails(artifact: Artifact) -> list[Verdict]:
        return [
            verdict
            for verdict in verdicts
            if _same(verdict, artifact)
            and verdict.target in (None, target)
            and verdict.status is not Status.PASS
        ]

    def rank(artifact: Artifact) -> tuple[float, ...]:
        return _rank(artifact, target, recipe, measured)

    good = [artifact for artifact in measured.artifacts if not fails(artifact)]
    variants = [artifact for artifact in good if artifact.candidate != measured.baseline]
    originals = [each for each in measured.artifacts if each.candidate == measured.baseline]
    base = min((each for each in originals if each in good), key=rank, default=None)
    # An original that fails a gate is no competitor: what passes is then better at any speed.
    better = [
        each for each in variants if base is None or _improves(each, base, target, recipe, measured)
    ]
    if better:
        best = min(better, key=rank)
        why = _praise(best, target, recipe.metrics[0].name, measured)
        if base is None and originals:
            why += "; the original does not pass the gates"
        return Choice(target, best.candidate, best.format, why, True)
    if base is not None:
        what = {"fastest": "faster", "smallest": "smaller", "most_accurate": "more accurate"}
        why = f"no variant that passes the gates is {what[recipe.select]} than the original"
        if not variants:
            why = "no variant passes the gates: " + _blame(measured, verdicts, target)
        return Choice(target, base.candidate, base.format, why, True)
    if not originals:
        return Choice(target, None, None, "there is no artifact", False)
    usable = [each for each in originals if not any(v.gate in (PARITY, RUNS) for v in fails(each))]
    if not usable:
        said = next(v for v in fails(originals[0]) if v.gate in (PARITY, RUNS)).reason
        return Choice(target, None, None, f"even the baseline's artifact {said}", False)
    base = min(usable, key=rank)
    why = "nothing passes the gates: " + _blame(measured, verdicts, target)
    return Choice(target, base.candidate, base.format, why, False)


def _improves(
    artifact: Artifact, base: Artifact, target: str, recipe: Recipe, measured: Measured
) -> bool:
    """Whether it beats the original in what the recipe selects for, beyond the machine's noise."""
    if recipe.select == "smallest":
        return artifact.bytes < base.bytes
    if recipe.select == "most_accurate":
        return _drop(artifact, recipe, measured) < _drop(base, recipe, measured)
    profile = measured.profile_of(artifact, target)
    if profile is None or profile.ratio is None or profile.ratio_interval is None:
        return False
    original = measured.profile_of(base, target)
    reached = original.ratio if original and original.ratio is not None else 1.0
    # What the baseline differs by from itself is no gain.
    noise = abs((profile.noise or 1.0) - 1.0)
    return profile.ratio_interval[1] < reached and profile.ratio < reached * (1.0 - noise)


def _rank(artifact: Artifact, target: str, recipe: Recipe, measured: Measured) -> tuple[float, ...]:
    """Lower is better. Where there is no ratio, as the original did not run, the time counts."""
    profile = measured.profile_of(artifact, target)
    ratio = profile.ratio if profile and profile.ratio is not None else math.inf
    median = profile.latency.get("p50", math.inf) if profile else math.inf
    if recipe.select == "smallest":
        return artifact.bytes, ratio, median
    if recipe.select == "most_accurate":
        return _drop(artifact, recipe, measured), ratio, median
    return ratio, median, artifact.bytes


def _drop(artifact: Artifact, recipe: Recipe, measured: Measured) -> float:
    """In the first metric; infinite where it is not known."""
    score = measured.score_of(artifact, recipe.metrics[0].name)
    drop = math.nan if score is None or score.drop is None else score.drop
    return math.inf if math.isnan(drop) else drop


def _praise(artifact: Artifact, target: str, metric: str, measured: Measured) -> str:
    parts = []
    profile = measured.profile_of(artifact, target)
    if profile and profile.ratio is not None:
        parts.append(f"{profile.ratio:.2f}x the latency")
    base = measured.baseline_of(artifact)
    if base is not None:
        parts.append(f"{artifact.bytes / base.bytes:.2f}x the size")
    score = measured.score_of(artifact, metric)
    if score and score.drop is not None and not math.isnan(score.drop):
        ways = ("lost", "gained") if score.higher_is_better else ("more", "less")
        way = ways[score.drop <= 0]
        number = abs(score.drop)
        shown = show_percent(number) if score.is_share else _show_number(number)
        parts.append(f"{shown} {metric} {way}" if number else f"same {metric}")
    return ", ".join(parts)


def _blame(measured: Measured, verdicts: Sequence[Verdict], target: str) -> str:
    """Which gate stopped each variant, in a few words."""
    said = []
    variants = any(each.candidate != measured.baseline for each in measured.artifacts)
    for artifact in measured.artifacts:
        if artifact.candidate == measured.baseline and variants:
            continue
        for verdict in verdicts:
            about = _same(verdict, artifact) and verdict.target in (None, target)
            if about and verdict.status is not Status.PASS:
                said.append(
                    f"{artifact.candidate} {verdict.gate} {verdict.status} ({verdict.reason})"
                )
                break
    return "; ".join(said) or "there are no variants"


def _same(one: Artifact | Parity | Score | Profile | Verdict, artifact: Artifact) -> bool:
    return (one.candidate, one.format) == (artifact.candidate, artifact.format)


def _show_number(value: float) -> str:
    return f"{value:.4g}"


def _show_factor(value: float) -> str:
    return f"{value:.2f}x"
