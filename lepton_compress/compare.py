"""Two runs beside each other, candidate by candidate; and what makes runs hard to compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lepton_compress import outcomes, registry
from lepton_compress.artifacts import Artifact, Profile, RunResult, Score, Status
from lepton_compress.comparison import Comparison, Interval, LatencyPair, Pair, ScorePair, Side
from lepton_compress.errors import RecipeError
from lepton_compress.report.folder import read_result
from lepton_compress.report.sections import processor

_HARDWARE = ("name", "machine", "cores", "extensions")


def compare(one: str, other: str) -> Comparison:
    """Two runs, or one candidate of each.

    Args:
        one, other: a run folder or a result.json, or one candidate in it as `runs/a:int8`.

    Raises:
        InputError: one of them is no result.
        RecipeError: a candidate is unknown, or only one side names one.
    """
    (first, first_name), (second, second_name) = _open(one), _open(other)
    if bool(first_name) != bool(second_name):
        bare = other if first_name else one
        raise RecipeError(
            "names no candidate, the other one does", where=bare, mend=f"write {bare}:CANDIDATE"
        )
    both = (first, second)
    common = [pair for name in _common(*both) for pair in _pairs(*both, name, name)]
    named = list(_pairs(*both, first_name, second_name)) if first_name else common
    return Comparison(
        one=_side(one, first),
        other=_side(other, second),
        pairs=tuple(named),
        only_one=() if first_name else _only(first, second),
        only_other=() if first_name else _only(second, first),
        notes=(*differences(both), *_drift(common)),
    )


def differences(results: Sequence[RunResult]) -> Iterator[str]:
    """What a reader must know before comparing numbers of these runs, a line for each."""
    said = [
        ("measured on other hardware: latencies tell of the machines too", _hardware),
        (
            "evaluated on other data: scores are not of the same samples",
            lambda r: r.data_fingerprint,
        ),
        ("made with other versions of libraries: {}", _versions),
    ]
    for text, about in said:
        values = [about(result) for result in results]
        if any(one != other for one, other in pairwise(values)):
            yield text.format(_unlike(values))
    targets = [_targets(result) for result in results]
    shared = set.intersection(*map(set, targets))
    conditions = [{name: held[name] for name in sorted(shared)} for held in targets]
    if said_so := _unlike(conditions):
        yield f"measured otherwise: {said_so}"
    if alone := sorted(set.union(*map(set, targets)) - shared):
        yield f"not a target of every run: {', '.join(alone)}"


def _drift(pairs: Sequence[Pair]) -> Iterator[str]:
    """What the runs differ by where there is no difference: files that are equal to the byte."""
    alike = [each for pair in pairs if pair.same_file for each in pair.latencies]
    same = [each.ratio for each in alike if each.ratio and not each.simulated]
    if same:
        low, high = min(same), max(same)
        spread = f"{low:.2f}x" if low == high else f"{low:.2f}x to {high:.2f}x"
        yield (
            f"files that are the same took {spread} as long in the second run: what differs by no "
            "more is no difference"
        )


def _unlike(values: Sequence[Any]) -> str:
    """The keys whose values are not the same in all, with these values; empty for no mappings."""
    if not all(isinstance(value, dict) for value in values):
        return ""
    keys = dict.fromkeys(key for value in values for key in value)
    rows = {key: [str(value.get(key, "none")) for value in values] for key in keys}
    return ", ".join(f"{k} {' and '.join(v)}" for k, v in rows.items() if len(set(v)) > 1)


def _hardware(result: RunResult) -> Any:
    cpu = result.environment.get("cpu")
    return [cpu.get(name) for name in _HARDWARE] if isinstance(cpu, dict) else None


def _versions(result: RunResult) -> dict[str, Any]:
    held = result.environment
    libraries = held.get("libraries")
    return {**(libraries if isinstance(libraries, dict) else {}), "Python": held.get("python")}


def _targets(result: RunResult) -> dict[str, Any]:
    return {p.target: f"{p.runtime}, batch {p.batch}, {p.threads} threads" for p in result.profiles}


def _open(reference: str) -> tuple[RunResult, str]:
    """A result, and the candidate that was named in it."""
    path, _, name = reference.rpartition(":")
    if not path or Path(reference).exists():
        return read_result(Path(reference)), ""
    result = read_result(Path(path))
    known = [candidate.id for candidate in result.candidates]
    if name not in known:
        mend = registry.nearest(name, known)
        raise RecipeError(f"unknown candidate {name!r}", where=path, mend=mend)
    return result, name


def _common(one: RunResult, other: RunResult) -> list[str]:
    held = {candidate.id for candidate in other.candidates}
    return [each.id for each in one.candidates if each.id in held]


def _only(one: RunResult, other: RunResult) -> tuple[str, ...]:
    held = {candidate.id for candidate in other.candidates}
    return tuple(each.id for each in one.candidates if each.id not in held)


def _side(reference: str, result: RunResult) -> Side:
    return Side(
        reference=reference,
        recipe=result.recipe,
        started=result.started,
        processor=processor(result),
        passed=result.passed,
        chosen={choice.target: choice.candidate for choice in result.chosen},
    )


def _pairs(one: RunResult, other: RunResult, name: str, counterpart: str) -> Iterator[Pair]:
    formats = {a.format: a for a in other.artifacts if a.candidate == counterpart}
    for artifact in one.artifacts:
        match = formats.get(artifact.format)
        if artifact.candidate != name or match is None:
            continue
        yield Pair(
            one=name,
            other=counterpart,
            format=artifact.format,
            same_file=artifact.sha256 == match.sha256,
            bytes_one=artifact.bytes,
            bytes_other=match.bytes,
            scores=tuple(_scores(one, other, artifact, match)),
            latencies=tuple(_latencies(one, other, artifact, match)),
            verdicts_one=_failures(one, artifact),
            verdicts_other=_failures(other, match),
        )


def _scores(
    one: RunResult, other: RunResult, artifact: Artifact, match: Artifact
) -> Iterator[ScorePair]:
    from lepton_compress import evaluate

    held = {score.metric: score for score in other.scores if _of(score, match)}
    for score in one.scores:
        counterpart = held.get(score.metric)
        if not _of(score, artifact) or counterpart is None:
            continue
        same_data = one.data_fingerprint == other.data_fingerprint
        paired = same_data and outcomes.comparable(score, counterpart)
        changed = outcomes.changes(score, counterpart) if paired else None
        sign = 1.0 if score.higher_is_better else -1.0
        drawn = [len(each.replicates or ()) for each in (score, counterpart)]
        resampled = same_data and drawn[0] == drawn[1] > 0
        found = evaluate.compare(score, counterpart) if paired or resampled else None
        yield ScorePair(
            metric=score.metric,
            is_share=score.is_share and counterpart.is_share,
            one=score.value,
            other=counterpart.value,
            drop=sign * (score.value - counterpart.value) + 0.0,
            interval=found.drop_interval if found else None,
            lost=len(changed.lost) if changed else None,
            gained=len(changed.gained) if changed else None,
        )


def _latencies(
    one: RunResult, other: RunResult, artifact: Artifact, match: Artifact
) -> Iterator[LatencyPair]:
    held = {profile.target: profile for profile in other.profiles if _of(profile, match)}
    alike = _hardware(one) == _hardware(other)
    for profile in one.profiles:
        counterpart = held.get(profile.target)
        if not _of(profile, artifact) or counterpart is None:
            continue
        simulated = profile.provenance == "simulated"
        comparable = alike or simulated
        comparable = comparable and _conditions(profile) == _conditions(counterpart)
        a, b = profile.latency.get("p50"), counterpart.latency.get("p50")
        yield LatencyPair(
            target=profile.target,
            one=a,
            other=b,
            ratio=b / a if comparable and a and b else None,
            interval=_widest(profile, counterpart) if comparable else None,
            to_baseline_one=profile.ratio,
            to_baseline_other=counterpart.ratio,
            simulated=simulated,
        )


def _conditions(profile: Profile) -> tuple[Any, ...]:
    how = (profile.fit.tool, profile.fit.configuration) if profile.fit else None
    return profile.runtime, profile.batch, profile.threads, profile.provenance, how


def _widest(one: Profile, other: Profile) -> Interval | None:
    a, b = one.interval.get("p50"), other.interval.get("p50")
    if a is None or b is None or min(*a, *b) <= 0 or not math.isfinite(sum((*a, *b))):
        return None
    return b[0] / a[1], b[1] / a[0]


def _failures(result: RunResult, artifact: Artifact) -> tuple[str, ...]:
    return tuple(
        f"{verdict.status.replace('_', ' ')} {verdict.gate.replace('_', ' ')}"
        + (f" on {verdict.target}" if verdict.target else "")
        for verdict in result.verdicts
        if (verdict.candidate, verdict.format) == (artifact.candidate, artifact.format)
        and verdict.status is not Status.PASS
    )


def _of(one: Score | Profile, artifact: Artifact) -> bool:
    return (one.candidate, one.format) == (artifact.candidate, artifact.format)
