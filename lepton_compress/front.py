"""The Pareto front: the artifacts of a target that no other one beats in everything that counts.

A point beats another if it is at least as good in every measure and better in one (Pareto
dominance). Measured points are compared, not their intervals: two artifacts that differ by less
than their intervals may both be on the front, or one of them by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lepton_compress.artifacts import Artifact, Front, Parity, Profile, Score
from lepton_compress.readings import meets

SCORE, LATENCY, SIZE, MEMORY = "score", "latency", "size", "peak_memory"


def pareto(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Indices of the points that no other point beats; lower is better in every coordinate.

    A point with a NaN, for something not measured, is not among them.
    """

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    return [
        index
        for index, point in enumerate(points)
        if not any(math.isnan(each) for each in point)
        and not any(beats(other, point) for other in points)
    ]


def front(
    target: str,
    artifacts: Sequence[Artifact],
    parities: Iterable[Parity],
    scores: Sequence[Score],
    profiles: Sequence[Profile],
) -> Front:
    """The front of a target over the first metric, p50 latency, size and peak memory.

    An artifact that could not be measured, or does not compute what its source does, is not on it.
    A measure that no artifact has a value in is left out, and not named in `measures`.
    """
    broken = {(each.candidate, each.format) for each in parities if not each.holds}
    metric = scores[0].metric if scores else ""
    held = [
        each
        for each in artifacts
        if meets(profiles, each, target) and (each.candidate, each.format) not in broken
    ]
    columns: dict[str, list[float]] = {SCORE: [], LATENCY: [], SIZE: [], MEMORY: []}
    for artifact in held:
        score = next((s for s in scores if s.metric == metric and _same(s, artifact)), None)
        profile = next((p for p in profiles if p.target == target and _same(p, artifact)), None)
        columns[SCORE].append(_score(score))
        columns[LATENCY].append(profile.latency.get("p50", math.nan) if profile else math.nan)
        columns[SIZE].append(float(artifact.bytes))
        peak = profile.peak_memory if profile else None
        columns[MEMORY].append(math.nan if peak is None else float(peak))
    known = {name: values for name, values in columns.items() if not all(map(math.isnan, values))}
    points = list(zip(*known.values(), strict=True)) if LATENCY in known else []
    members = tuple((held[i].candidate, held[i].format) for i in pareto(points))
    return Front(target, tuple(known), members)


def _score(score: Score | None) -> float:
    """Turned so that lower is better."""
    if score is None:
        return math.nan
    return -score.value if score.higher_is_better else score.value


def _same(one: Score | Profile, artifact: Artifact) -> bool:
    return (one.candidate, one.format) == (artifact.candidate, artifact.format)
