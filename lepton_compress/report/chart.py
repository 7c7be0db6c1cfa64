"""What the chart of a target shows: accuracy against a cost, the front and the budget.

chart(result, "edge", "latency") -> Chart        drawn by drawing.py (HTML) and figure.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lepton_compress.artifacts import Artifact, Parity, Profile, RunResult, Score, Verdict
from lepton_compress.front import pareto
from lepton_compress.report import table
from lepton_compress.units import show_bytes, show_percent, show_seconds

AXES = ("latency", "size", "peak_memory")
TITLES = {
    "latency": "latency of one call, p50",
    "size": "size of the artifact",
    "peak_memory": "peak memory",
}
Interval = tuple[float, float]
Key = tuple[str, str]


@dataclass(frozen=True)
class Point:
    """One artifact.

    Attributes:
        x, y: cost (seconds or bytes) and score, with their 95 % intervals where there are any.
        front: whether nothing beats it, over all that was measured.
        provenance: "measured", "simulated" or "estimated".
    """

    name: str
    x: float
    y: float
    x_interval: Interval | None
    y_interval: Interval | None
    chosen: bool
    baseline: bool
    passed: bool
    front: bool
    provenance: str


@dataclass(frozen=True)
class Budget:
    """A gate as a line: on the cost ("x") or on the score ("y"); `at_most` says which side is in.

    A limit that is relative to the baseline stands at the baseline's measured value times it.
    """

    axis: str
    value: float
    label: str
    at_most: bool


@dataclass(frozen=True)
class Chart:
    """A chart, in base units.

    Attributes:
        axis: one of `AXES`.
        line: indices of the points that nothing beats in these two measures, by rising cost.
        missing: names of artifacts without a value to draw.
        higher_is_better: which way is up for the score.
        show_x, show_y: how a value is written.
    """

    target: str
    axis: str
    x_title: str
    y_title: str
    points: tuple[Point, ...]
    line: tuple[int, ...]
    budgets: tuple[Budget, ...]
    missing: tuple[str, ...]
    higher_is_better: bool
    show_x: Callable[[float], str]
    show_y: Callable[[float], str]


def charts(result: RunResult, target: str) -> Iterator[Chart]:
    """Those of a target for which there is something to draw."""
    for axis in AXES:
        made = chart(result, target, axis)
        if made.points:
            yield made


def chart(result: RunResult, target: str, axis: str) -> Chart:
    """The chart of a target over one cost. Without a score or a cost it has no points."""
    metric = result.scores[0].metric if result.scores else "score"
    scores = {_key(s): s for s in result.scores if s.metric == metric}
    profiles = {_key(p): p for p in result.profiles if p.target == target}
    broken = {_key(parity) for parity in result.parities if not parity.holds}
    points: list[Point] = []
    sound: list[int] = []
    missing: list[str] = []
    for row in table.rows(result, target):
        artifact = row.artifact
        score, profile = scores.get(_key(artifact)), profiles.get(_key(artifact))
        x, x_interval = _cost(axis, artifact, profile)
        if score is None or math.isnan(score.value) or math.isnan(x):
            missing.append(row.variant)
            continue
        if _key(artifact) not in broken:
            sound.append(len(points))
        points.append(
            Point(
                name=row.variant,
                x=x,
                y=score.value,
                x_interval=x_interval,
                y_interval=None if math.isnan(score.interval[0]) else score.interval,
                chosen=row.chosen,
                baseline=artifact.candidate == result.baseline,
                passed=row.passed,
                front=row.front,
                provenance=profile.provenance if profile and axis != "size" else "measured",
            )
        )
    first = next(iter(scores.values()), None)
    higher = first is None or first.higher_is_better
    sign = -1.0 if higher else 1.0
    beaten_by_none = pareto([(points[i].x, sign * points[i].y) for i in sound])
    share = first is not None and all(score.is_share for score in scores.values())
    return Chart(
        target=target,
        axis=axis,
        x_title=TITLES[axis],
        y_title=metric.replace("_", " "),
        points=tuple(points),
        line=tuple(sorted((sound[i] for i in beaten_by_none), key=lambda i: points[i].x)),
        budgets=tuple(_budgets(result, target, axis, scores, profiles)),
        missing=tuple(missing),
        higher_is_better=higher,
        show_x=show_seconds if axis == "latency" else show_bytes,
        show_y=show_percent if share else _show_number,
    )


def _key(one: Artifact | Parity | Profile | Score | Verdict) -> Key:
    return one.candidate, one.format


def _cost(axis: str, artifact: Artifact, profile: Profile | None) -> tuple[float, Interval | None]:
    if axis == "size":
        return float(artifact.bytes), None
    if profile is None or profile.status != "measured":
        return math.nan, None
    if axis == "latency":
        return profile.latency.get("p50", math.nan), profile.interval.get("p50")
    return math.nan if profile.peak_memory is None else float(profile.peak_memory), None


def _budgets(
    result: RunResult,
    target: str,
    axis: str,
    scores: dict[Key, Score],
    profiles: dict[Key, Profile],
) -> Iterator[Budget]:
    """The gates that can be drawn. One about another metric or percentile is recognised by what it
    observed, and left out."""
    sizes = {_key(artifact): float(artifact.bytes) for artifact in result.artifacts}
    medians = {key: p.latency["p50"] for key, p in profiles.items() if "p50" in p.latency}
    values = {key: score.value for key, score in scores.items()}
    first = next(iter(scores.values()), None)
    higher = first is None or first.higher_is_better
    # Gate to what it observes of each artifact, and to what it is relative to.
    known: dict[str, tuple[dict[Key, float], dict[Key, float] | None]] = {
        "score": (values, None),
        "drop": ({key: s.drop for key, s in scores.items() if s.drop is not None}, values),
    }
    if axis == "latency":
        ratios = {key: p.ratio for key, p in profiles.items() if p.ratio is not None}
        known |= {"latency": (medians, None), "latency_ratio": (ratios, medians)}
    elif axis == "size":
        bases = {form: sizes.get((result.baseline, form), math.nan) for _, form in sizes}
        shares = {key: size / bases[key[1]] for key, size in sizes.items()}
        known |= {"size": (sizes, None), "size_ratio": (shares, sizes)}
    else:
        peaks = {k: float(p.peak_memory) for k, p in profiles.items() if p.peak_memory is not None}
        known |= {"peak_memory": (peaks, None)}
    seen = set()
    for verdict in result.verdicts:
        name, limit = verdict.gate, verdict.limit
        if name in seen or name not in known or verdict.target not in (None, target):
            continue
        if name == "drop" and verdict.candidate == result.baseline:
            continue  # it observed no drop in any metric, which tells nothing of which it is
        observed, relative = known[name]
        if observed.get(_key(verdict), math.nan) != verdict.observed:
            continue
        value = limit
        if relative is not None:
            base = relative.get((result.baseline, verdict.format), math.nan)
            value = base * limit if name != "drop" else base - limit if higher else base + limit
        if math.isfinite(value):
            seen.add(name)
            yield _budget(verdict, value, first, higher=higher)


def _budget(verdict: Verdict, value: float, score: Score | None, *, higher: bool) -> Budget:
    name, limit = verdict.gate, verdict.limit
    if name in ("score", "drop"):
        shown = table.in_unit(score, limit) if score else _show_number(limit)
    elif name in ("latency_ratio", "size_ratio"):
        shown = f"{limit:.2f}x"
    else:
        shown = show_seconds(limit) if name == "latency" else show_bytes(limit)
    at_least = name == "score" and higher
    label = f"{name.replace('_', ' ')} {'at least' if at_least else 'at most'} {shown}"
    label += ", strict" if verdict.strict else ""
    about_score = name in ("score", "drop")
    return Budget("y" if about_score else "x", value, label, not (about_score and higher))


def _show_number(value: float) -> str:
    return f"{value:.4g}"
