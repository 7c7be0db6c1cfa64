"""Judging and choosing: pure functions of measured values. No I/O, no framework.

A gate is judged by the measured point, or under `strict` by the whole confidence interval. What
was not measured never passes. A time that is beyond its limit by the point alone is inconclusive:
accuracy is the same each time that it is computed, a time is not, and its point is a coin where the
limit lies within the interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lepton_compress.artifacts import (
    Artifact,
    Choice,
    Group,
    Parity,
    Profile,
    Score,
    Status,
    StepRecord,
    Verdict,
)
from lepton_compress.budget import (
    PARITY_LIMIT,
    PER_TARGET,
    DurationGate,
    FactorGate,
    Gate,
    Gates,
    GroupGate,
    LatencyGate,
    RateGate,
    SizeGate,
    covers,
)
from lepton_compress.readings import LEVEL, Reading, absent, beyond, groups, needed, read, same
from lepton_compress.readings import Measured as Measured
from lepton_compress.units import show_bytes, show_percent, show_rate, show_seconds

if TYPE_CHECKING:
    from lepton_compress.recipe import Recipe

PARITY = "parity"
"""Always judged: an artifact that does not compute what its source does is never chosen."""
VALUE = "value"
"""Judged where a metric gives no number, asked for by a gate or not."""
RUNS = "runs"
"""Judged where a target could not run an artifact, which is then not chosen for it."""

Shower = Callable[[float], str]


def judge(recipe: Recipe, measured: Measured) -> tuple[Verdict, ...]:
    """A verdict for every artifact, gate and (where it matters) target."""
    metric, targets = recipe.metrics[0].title, [target.name for target in recipe.targets]
    return judge_gates(recipe.gates, measured, metric=metric, targets=targets)


def judge_gates(
    gates: Gates, measured: Measured, *, metric: str, targets: Sequence[str]
) -> tuple[Verdict, ...]:
    """As `judge`, by gates that stand alone; `metric` is the one that they look at by default."""
    verdicts = []
    for artifact in measured.artifacts:
        verdicts.append(_judge_parity(artifact, measured.parities_of(artifact), gates))
        verdicts += [_judge_step(artifact, each) for each in measured.unmet_of(artifact)]
        verdicts += [
            _judge_failure(profile)
            for profile in measured.profiles
            if same(profile, artifact) and profile.status == "failed"
        ]
        verdicts += [
            _judge_value(score)
            for score in measured.scores
            if same(score, artifact) and math.isnan(score.value)
        ]
        for name, gate in gates.items():
            if name == PARITY:
                continue
            for target in _targets(targets, name, gate):
                if target is not None and not measured.meets(artifact, target):
                    continue
                if isinstance(gate, GroupGate):
                    made = _judge_groups(name, gate, artifact, target, metric, measured)
                else:
                    reading = read(name, gate, artifact, target, metric, measured)
                    made = decide(name, gate, artifact, target, reading)
                verdicts.append(made)
    return tuple(verdicts)


def select(recipe: Recipe, measured: Measured, verdicts: Sequence[Verdict]) -> tuple[Choice, ...]:
    """For each target the best artifact that passes every gate, or the baseline and why."""
    found = []
    for target in recipe.targets:
        taken = [each for each in measured.artifacts if measured.meets(each, target.name)]
        found.append(_select(target.name, recipe, replace(measured, artifacts=taken), verdicts))
    return tuple(found)


def passed(recipe: Recipe, choices: Iterable[Choice], verdicts: Iterable[Verdict]) -> bool:
    """Whether the run as a whole meets what the recipe demands."""
    if recipe.require == "every":
        variants = [each for each in verdicts if each.candidate in recipe.variants]
        if any(verdict.status is not Status.PASS for verdict in variants):
            return False
    return all(choice.met for choice in choices)


def _judge_parity(artifact: Artifact, parities: Sequence[Parity], gates: Gates) -> Verdict:
    asked = gates.parity.limit if gates.parity else PARITY_LIMIT
    parities = [
        replace(each, limit=min(each.limit, asked)) if each.limit <= PARITY_LIMIT else each
        for each in parities
    ]
    # How near each is to its own limit; one that is beyond it comes first.
    nearness = [p.value / p.limit if p.value == p.value else math.inf for p in parities]
    worst = max(nearness, default=None)
    limit = parities[nearness.index(worst)].limit if worst is not None else math.nan
    broken = [parity for parity in parities if not parity.holds]
    status = Status.FAIL if broken else Status.PASS if parities else Status.NOT_MEASURED
    reason = (
        _difference(broken[0])
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


def _difference(parity: Parity) -> str:
    """What a check found that does not hold."""
    where = f"; {parity.layer} is the first to compute something else" if parity.layer else ""
    if parity.limit > PARITY_LIMIT:  # of arithmetic that rounds otherwise
        held = f"{parity.metric}: {parity.value:.2g} of at most {parity.limit:g}"
        return f"parts from its {parity.against} ({held}, on {parity.samples} samples){where}"
    return (
        f"differs from its {parity.against} by {parity.value:.2g} "
        f"(limit {parity.limit:.0e}) at batch {parity.batch}{where}"
    )


def _judge_step(artifact: Artifact, record: StepRecord) -> Verdict:
    name = f"step {record.step}"
    one, fail, unlimited = artifact, Status.FAIL, math.nan
    return Verdict(
        one.candidate, one.format, None, name, fail, None, None, unlimited, False, record.unmet
    )


def _judge_failure(profile: Profile) -> Verdict:
    one, unlimited = profile, math.nan
    status, why = Status.FAIL, f"cannot run there ({profile.reason})"
    if profile.unreached:
        status, why = Status.NOT_MEASURED, f"was not measured there ({profile.reason})"
    return Verdict(
        one.candidate, one.format, one.target, RUNS, status, None, None, unlimited, False, why
    )


def _judge_value(score: Score) -> Verdict:
    one, why = score, f"{score.metric} gives no number"
    none, unlimited = Status.NOT_MEASURED, math.nan
    return Verdict(one.candidate, one.format, None, VALUE, none, None, None, unlimited, False, why)


def _targets(known: Sequence[str], kind: str, gate: Gate) -> list[str | None]:
    if gate.targets:
        # A name that is not known stays, so that its gate is told to be not measured.
        held = ([each for each in known if covers(name, each)] or [name] for name in gate.targets)
        return list(dict.fromkeys(each for found in held for each in found))
    return [*known] if kind in PER_TARGET else [None]


def _judge_groups(
    name: str,
    gate: GroupGate,
    artifact: Artifact,
    target: str | None,
    metric: str,
    measured: Measured,
) -> Verdict:
    """The worst part of the data: proven to be beyond the limit, or not, or not to be told."""
    parts, why = groups(name, gate, artifact, metric, measured)
    score = measured.score_of(artifact, gate.metric or metric)
    if not parts or score is None:
        return decide(name, gate, artifact, target, absent(why))
    shown, limit = _shower(gate, share=score.is_share), gate.limit
    bound = f"at most {shown(limit)} asked"
    worst = max(parts, key=lambda each: each.drop)
    kind = worst.kind

    def verdict(status: Status, about: Group, reason: str, count: int | None = None) -> Verdict:
        one = artifact
        where = (one.candidate, one.format, target, name, status, about.drop, about.drop_interval)
        return Verdict(*where, float(limit), gate.strict, reason, count)

    proven = [each for each, p in beyond(parts, limit) if p < LEVEL and each.drop > limit]
    if proven:
        bad = max(proven, key=lambda each: each.drop)
        said = f"{kind} {bad.name} lost {shown(bad.drop)} of {bad.samples} samples, {bound}"
        return verdict(Status.FAIL, bad, said)
    few = min(parts, key=lambda each: each.samples)
    if few.samples < gate.samples:
        said = f"{kind} {few.name} has {few.samples} samples, {gate.samples} are needed to judge it"
        return verdict(Status.INCONCLUSIVE, few, said, gate.samples)
    open_ = [each for each in parts if each.drop > limit]
    if gate.strict:
        open_ = [each for each in parts if max(each.drop_interval) > limit]
    if open_:
        doubtful = max(open_, key=lambda each: (each.drop, max(each.drop_interval)))
        about = Reading(doubtful.drop, doubtful.drop_interval, samples=doubtful.samples)
        count = needed(about, limit)
        said = (
            f"{kind} {doubtful.name} lost {shown(doubtful.drop)} of {doubtful.samples} samples, "
            f"{bound}; among {len(parts)} that may be chance"
        )
        if count is not None:
            said += f", about {count:,} samples of it would decide"
        return verdict(Status.INCONCLUSIVE, doubtful, said, count)
    said = f"at worst {shown(worst.drop)} in {kind} {worst.name}, {bound}"
    return verdict(Status.PASS, worst, said)


def decide(
    name: str, gate: Gate, artifact: Artifact, target: str | None, reading: Reading
) -> Verdict:
    """The verdict of a gate on what was read for it."""
    limit = float(gate.limit)  # type: ignore[attr-defined]
    shown = _shower(gate, share=reading.share)
    status, reason = _status(reading, limit, strict=gate.strict, shown=shown)
    count = needed(reading, limit) if status is Status.INCONCLUSIVE else None
    if count is not None:
        reason += f"; about {count:,} {reading.unit} would decide"
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
        count,
    )


def _status(reading: Reading, limit: float, *, strict: bool, shown: Shower) -> tuple[Status, str]:
    if reading.observed is None or math.isnan(reading.observed):
        return Status.NOT_MEASURED, reading.missing or "not measured"
    bound = f"{'at most' if reading.at_most else 'at least'} {shown(limit)}"
    under = f" under {reading.about}" if reading.about else ""
    if not strict:
        good = reading.observed <= limit if reading.at_most else reading.observed >= limit
        said = f"{shown(reading.observed)}{under}, {bound} asked"
        if not good and reading.timed and reading.interval is not None:
            low, high = reading.interval
            if low <= limit <= high:
                held = f"the limit lies within its interval, {shown(low)} to {shown(high)}"
                return Status.INCONCLUSIVE, f"{said}, but {held}"
        return (Status.PASS if good else Status.FAIL), said
    if reading.interval is None:
        return Status.INCONCLUSIVE, "it has no confidence interval to be strict about"
    low, high = reading.interval
    said = shown(low) if low == high else f"{shown(low)} to {shown(high)}"
    said += f"{under}, {bound} asked"
    inside, outside = (
        (high <= limit, low > limit) if reading.at_most else (low >= limit, high < limit)
    )
    return (Status.PASS if inside else Status.FAIL if outside else Status.INCONCLUSIVE), said


def _shower(gate: Gate, *, share: bool) -> Shower:
    """How to write a gate's value."""
    if isinstance(gate, (LatencyGate, DurationGate)):
        return show_seconds
    if isinstance(gate, RateGate):
        return show_rate
    if isinstance(gate, SizeGate):
        return show_bytes
    if isinstance(gate, FactorGate):
        return _show_factor
    return show_percent if share else _show_number


def _select(target: str, recipe: Recipe, measured: Measured, verdicts: Sequence[Verdict]) -> Choice:
    def fails(artifact: Artifact) -> list[Verdict]:
        return [
            verdict
            for verdict in verdicts
            if same(verdict, artifact)
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
        why = _praise(best, target, recipe.metrics[0].title, measured)
        if base is None and originals:
            why += "; the original does not pass the gates"
        return Choice(target, best.candidate, best.format, why, True)
    if base is not None:
        what = {"fastest": "faster", "smallest": "smaller", "most_accurate": "more accurate"}
        asked = what[recipe.select]
        if recipe.select == "fastest" and _untimed(measured.profile_of(base, target)):
            asked = "smaller (no time is told there)"
        why = f"no variant that passes the gates is {asked} than the original"
        if not variants:
            why = "no variant passes the gates: " + _blame(measured, verdicts, target)
        return Choice(target, base.candidate, base.format, why, True)
    if not originals:
        return Choice(target, None, None, "there is no artifact", False)
    usable = [each for each in originals if not any(v.gate in (PARITY, RUNS) for v in fails(each))]
    if not usable:
        said = next(v for v in fails(originals[0]) if v.gate in (PARITY, RUNS)).reason
        why = f"even the baseline's artifact {said}"
        if any(_simulated(measured.profile_of(each, target)) for each in originals):
            # That float does not fit an NPU is no news; why the variants fail is.
            why = f"nothing passes the gates: {_blame(measured, verdicts, target)}"
        return Choice(target, None, None, why, False)
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
    profile, original = measured.profile_of(artifact, target), measured.profile_of(base, target)
    if _untimed(profile) and _untimed(original):
        return artifact.bytes < base.bytes
    if profile is None or profile.ratio is None or profile.ratio_interval is None:
        return False
    reached = original.ratio if original and original.ratio is not None else 1.0
    # What the baseline differs by from itself is no gain.
    noise = abs((profile.noise or 1.0) - 1.0)
    return profile.ratio_interval[1] < reached and profile.ratio < reached * (1.0 - noise)


def _simulated(profile: Profile | None) -> bool:
    return profile is not None and profile.fit is not None


def _untimed(profile: Profile | None) -> bool:
    """Whether it is of a simulated device of which no time is told."""
    return profile is not None and profile.fit is not None and not profile.latency


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
    score = measured.score_of(artifact, recipe.metrics[0].title)
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
            about = same(verdict, artifact) and verdict.target in (None, target)
            if about and verdict.status is not Status.PASS:
                said.append(
                    f"{artifact.candidate} {verdict.gate} {verdict.status} ({verdict.reason})"
                )
                break
    return "; ".join(said) or "there are no variants"


def _show_number(value: float) -> str:
    return f"{value:.4g}"


def _show_factor(value: float) -> str:
    return f"{value:.2f}x"
