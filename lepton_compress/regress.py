"""Judging a result against an earlier one: is what ships now worse than what shipped before?

Accuracy is compared sample by sample, which needs the same evaluation data. Latency is compared
as the ratio to the baseline where both runs measured the same baseline, because that ratio holds
from one day to the next better than a time does; else as a time, on the same processor only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lepton_compress.artifacts import Artifact, Profile, RunResult, Score, Verdict
from lepton_compress.budget import Regression
from lepton_compress.gate import decide
from lepton_compress.readings import Measured, Reading, absent, exact, known, timed, wilson

PREFIX = "regression."


@dataclass(frozen=True)
class Pair:
    """An artifact of today, the one it is compared with, and the target that both are for."""

    target: str
    now: Artifact
    then: Artifact | None


def same_hardware(now: RunResult, then: RunResult) -> bool:
    """Whether two runs measured on processors of one kind, target by target."""
    theirs = {each.target: _processor(then, each) for each in then.profiles}
    ours = {each.target: _processor(now, each) for each in now.profiles}
    ours = ours or {"": now.environment.get("cpu")}
    there = then.environment.get("cpu")
    return all(cpu and cpu == theirs.get(target, there) for target, cpu in ours.items())


def _processor(result: RunResult, profile: Profile) -> Any:
    """What a profile was measured on."""
    return (profile.device or result.environment).get("cpu")


def regressions(
    pairs: Sequence[Pair], now: RunResult, then: RunResult, asked: Regression
) -> list[Verdict]:
    """A verdict for each pair and each limit.

    Args:
        pairs: what to compare.
        now, then: the results that hold the artifacts; both on the same evaluation data.
        asked: the limits.
    """
    found: dict[tuple[str, str, str, str | None], Verdict] = {}
    for pair in pairs:
        for name, gate in asked.items():
            reading = _read(name, pair, now, then, asked)
            target = pair.target if name == "latency" else None
            made = decide(PREFIX + name, gate, pair.now, target, reading)
            found.setdefault((made.candidate, made.format, made.gate, target), made)
    return list(found.values())


def _read(name: str, pair: Pair, now: RunResult, then: RunResult, asked: Regression) -> Reading:
    if pair.then is None:
        return absent(f"the earlier result has no artifact {pair.now.candidate}")
    if name == "size":
        return exact(pair.now.bytes / pair.then.bytes)
    if name == "latency":
        return _latency(pair, pair.then, now, then)
    metric = asked.drop.metric or (now.scores[0].metric if now.scores else "")
    ours, theirs = _of(now).score_of(pair.now, metric), _of(then).score_of(pair.then, metric)
    if ours is None or theirs is None:
        return absent(f"{metric or 'a metric'} was not measured in both results")
    return _negative_flips(ours, theirs) if name == "negative_flips" else _drop(ours, theirs)


def _of(result: RunResult) -> Measured:
    return Measured(
        result.baseline, result.artifacts, result.parities, result.scores, result.profiles
    )


def _drop(now: Score, then: Score) -> Reading:
    from lepton_compress.evaluate import drop_of

    if math.isnan(now.value) or math.isnan(then.value):
        return absent(f"{now.metric} has no value")
    drop, interval = drop_of(then, now)
    return Reading(drop, known(interval), share=now.is_share, samples=now.samples)


def _negative_flips(now: Score, then: Score) -> Reading:
    before, after = then.outcomes, now.outcomes
    if before is None or after is None or not {*before, *after} <= {0.0, 1.0}:
        return absent(f"{now.metric} does not say of each sample whether it is right")
    count = sum(a > b for a, b in zip(before, after, strict=True))
    share = count / len(after)
    return Reading(share, wilson(share, len(after)), share=True, samples=len(after))


def _latency(pair: Pair, then: Artifact, now: RunResult, earlier: RunResult) -> Reading:
    ours = _of(now).profile_of(pair.now, pair.target)
    theirs = _of(earlier).profile_of(then, pair.target)
    for profile, when in ((ours, "this"), (theirs, "the earlier")):
        if profile is None or profile.status != "measured":
            why = profile.reason if profile else "was not profiled"
            return absent(f"in {when} result: {why}")
    assert ours is not None  # noqa: S101 - the loop above has returned otherwise
    assert theirs is not None  # noqa: S101
    if _baseline_digest(pair.now, now) == _baseline_digest(then, earlier) and (
        ours.ratio is not None and theirs.ratio is not None
    ):
        sides = (ours.ratio, ours.ratio_interval, theirs.ratio, theirs.ratio_interval)
        return _quotient(*sides, rounds=min(ours.rounds, theirs.rounds))
    processor = _processor(now, ours)
    if not processor or processor != _processor(earlier, theirs):
        return absent("measured on other hardware, and without a baseline in common")
    return _quotient(*_median(ours), *_median(theirs), rounds=min(ours.rounds, theirs.rounds))


def _median(profile: Profile) -> tuple[float, tuple[float, float] | None]:
    return profile.latency.get("p50", math.nan), profile.interval.get("p50")


def _baseline_digest(artifact: Artifact, result: RunResult) -> str:
    base = _of(result).baseline_of(artifact)
    return base.sha256 if base else f"none of {artifact.format}"


def _quotient(
    now: float,
    now_interval: tuple[float, float] | None,
    then: float,
    then_interval: tuple[float, float] | None,
    *,
    rounds: int,
) -> Reading:
    """The quotient of two independent measurements; half widths of logarithms add as squares."""
    if math.isnan(now) or math.isnan(then):
        return absent("too few calls for a median")
    value, interval = now / then, None
    if now_interval is not None and then_interval is not None:
        ends = []
        for one, other in ((0, 1), (1, 0)):
            mine = math.log(now_interval[one] / now)
            other_side = math.log(then_interval[other] / then)
            ends.append(math.hypot(mine, other_side))
        interval = (value * math.exp(-ends[0]), value * math.exp(ends[1]))
    return timed(value, interval, rounds)
