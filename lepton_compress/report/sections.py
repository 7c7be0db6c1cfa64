"""The tables of the HTML report as plain values: cells with what they say and how they sort.

Texts are not escaped here; the templates escape all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lepton_compress.artifacts import (
    Artifact,
    Choice,
    Json,
    Profile,
    RunResult,
    Score,
)
from lepton_compress.report import simulated, table
from lepton_compress.units import show_bytes, show_seconds

_SHORT = 40
"""Characters of a reason that a cell has room for."""


@dataclass(frozen=True)
class Cell:
    """What a cell says, in small print under it too, what it sorts by (its text if None), and the
    length of a bar under it, from 0 to 1."""

    text: str
    small: str = ""
    sort: float | None = None
    number: bool = False
    state: str = ""
    """"good", "bad" or nothing."""
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """A table with a caption; every row has a cell for each heading."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def candidates(result: RunResult, target: str) -> Table:
    """All artifacts on a target with everything that was measured of them."""
    metric = result.scores[0].metric.replace("_", " ") if result.scores else "score"
    headings: tuple[str, ...] = ("variant", "gates", metric, "drop", "size", "p50", "ratio")
    headings += ("p90", "p99", "cold start", "peak memory")
    rows = []
    for row in table.rows(result, target):
        artifact = row.artifact
        key = (artifact.candidate, artifact.format)
        score = next((s for s in result.scores if (s.candidate, s.format) == key), None)
        profile = next(
            (p for p in result.profiles if (p.candidate, p.format, p.target) == (*key, target)),
            None,
        )
        marks = [m for m, is_so in (("chosen", row.chosen), ("front", row.front)) if is_so]
        rows.append(
            (
                Cell(row.variant, ", ".join(marks), state="chosen" if row.chosen else ""),
                Cell(row.verdict.replace("_", " "), state="good" if row.passed else "bad"),
                _split(row.score, score.value if score else None, _scored(row.score, score)),
                _split(row.drop, score.drop if score else None),
                _split(row.size, artifact.bytes),
                _split(row.latency, _latency(profile, "p50"), _spread(profile, "p50")),
                _split(row.ratio, profile.ratio if profile else None),
                *(_seconds(_latency(profile, name)) for name in ("p90", "p99")),
                _seconds(profile.cold_start if profile else None),
                _bytes(profile.peak_memory if profile else None),
            )
        )
    shown = list(range(len(headings)))
    if all(p.provenance != "measured" for p in result.profiles if p.target == target):
        # Of a device that is simulated most is not known.
        shown = [place for place in shown if any(row[place].text for row in rows)]
    return Table(
        f"Every variant on {target}",
        tuple(headings[place] for place in shown),
        tuple(tuple(row[place] for place in shown) for row in rows),
    )


def _split(text: str, sort: float | None, small: str = "") -> Cell:
    """A number and, in small print, the interval that stands in brackets behind it."""
    value, _, rest = text.partition(" (")
    return Cell(value, small or rest.removesuffix(")"), _sortable(sort), number=True)


def number(text: str) -> Cell:
    """A cell from a number with an interval in brackets behind it, which does not sort."""
    return _split(text, None)


def processor(result: RunResult) -> str:
    """What a run ran on, in a few words."""
    cpu = as_mapping(result.environment.get("cpu"))
    return f"{cpu.get('name')}, {cpu.get('cores')} cores"


def _sortable(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _interval(score: Score | None) -> str:
    if score is None or math.isnan(score.interval[0]):
        return ""
    low, high = (table.in_unit(score, end).removesuffix(" %") for end in score.interval)
    return f"{low} to {high}"


def _scored(text: str, score: Score | None) -> str:
    """The interval of a score, and the control that the table tells in brackets behind it."""
    control = text.partition(" (")[2].removesuffix(")")
    return "; ".join(each for each in (_interval(score), control) if each)


def _latency(profile: Profile | None, name: str) -> float | None:
    return profile.latency.get(name) if profile else None


def _spread(profile: Profile | None, name: str) -> str:
    if profile is None or name not in profile.interval:
        why = "" if profile is None or profile.status == "measured" else profile.reason
        return why if len(why) <= _SHORT else "see the gates"
    how = "" if profile.provenance == "measured" else f", {profile.provenance}"
    if len(set(profile.interval[name])) == 1:
        return profile.provenance
    return " to ".join(show_seconds(end) for end in profile.interval[name]) + how


def _seconds(value: float | None) -> Cell:
    return Cell("" if value is None else show_seconds(value), sort=value, number=True)


def _bytes(value: float | None) -> Cell:
    return Cell("" if value is None else show_bytes(value), sort=value, number=True)


def scores(result: RunResult) -> Table:
    """Every metric of every artifact."""
    rows = []
    for score in result.scores:
        drop = "" if score.drop is None else table.in_unit(score, score.drop)
        around = score.drop_interval
        between = " to ".join(table.in_unit(score, end) for end in around) if around else ""
        rows.append(
            (
                Cell(score.candidate),
                Cell(score.metric.replace("_", " ")),
                _split(table.in_unit(score, score.value), score.value, _interval(score)),
                Cell(drop, between, _sortable(score.drop), number=True),
                Cell(f"{score.samples:,}", sort=score.samples, number=True),
            )
        )
    return Table("Every metric", ("variant", "metric", "value", "drop", "samples"), tuple(rows))


def controls(result: RunResult) -> Table | None:
    """Pruned variants beside their controls, if there are any."""
    rows = tuple(
        (
            Cell(name),
            Cell(metric),
            *(Cell(text, number=True) for text in values),
            number(drop),
            Cell(made),
        )
        for name, metric, *values, drop, made in table.controls(result)
    )
    caption = "Pruned variants beside the unpruned model with the same training"
    return Table(caption, table.CONTROLS, rows) if rows else None


def sparse(result: RunResult) -> Table | None:
    """What sparsity buys, if a variant is sparse."""
    rows = tuple(
        (Cell(name), *(Cell(text, number=True) for text in cells))
        for name, *cells in table.sparse(result)
    )
    return Table(f"What sparsity buys. {table.NO_SPEED}", table.SPARSE, rows) if rows else None


def verdicts(result: RunResult) -> Table:
    """Every gate on every artifact."""
    rows = []
    for verdict in result.verdicts:
        strict = "strict" if verdict.strict and verdict.gate != "parity" else ""
        state = "good" if verdict.status == "PASS" else "bad"
        rows.append(
            (
                Cell(verdict.candidate),
                Cell(verdict.target or "all"),
                Cell(verdict.gate.replace("_", " "), strict),
                Cell(verdict.status.replace("_", " "), state=state),
                Cell(verdict.reason),
            )
        )
    return Table("Every gate", ("variant", "target", "gate", "verdict", "why"), tuple(rows))


def figures(result: RunResult, choice: Choice) -> Iterator[tuple[str, str, str]]:
    """Of what was chosen, beside the baseline: (what, value, interval)."""
    for row in table.rows(result, choice.target):
        artifact = row.artifact
        if not row.chosen:
            continue
        metric = result.scores[0].metric.replace("_", " ") if result.scores else "score"
        base = _baseline(result, artifact)
        times = f"{artifact.bytes / base.bytes:.2f}x" if base and base.bytes else ""
        for name, text, other in (
            (metric, row.score, ""),
            (f"{metric} drop", row.drop, ""),
            ("latency, p50", row.latency, ""),
            ("latency ratio", row.ratio, ""),
            ("size", row.size, times if artifact != base else ""),
        ):
            value, _, rest = text.partition(" (")
            if value:
                yield name, value, other or rest.removesuffix(")")


def _baseline(result: RunResult, artifact: Artifact) -> Artifact | None:
    wanted = (result.baseline, artifact.format)
    return next((a for a in result.artifacts if (a.candidate, a.format) == wanted), None)


def environment(result: RunResult) -> tuple[tuple[str, str], ...]:
    """What a reader needs to reproduce a run, as (what, value)."""
    held = result.environment
    cpu = as_mapping(held.get("cpu"))
    libraries = as_mapping(held.get("libraries"))
    rows = [
        ("started", f"{result.started}, took {result.seconds:.1f} s"),
        ("processor", processor(result)),
        ("vector extensions", ", ".join(map(str, cpu.get("extensions") or ())) or "none known"),
        ("system", f"{held.get('system')}, Python {held.get('python')}"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())),
        ("recipe digest", result.recipe_digest),
        ("data fingerprint", result.data_fingerprint),
        ("seed", str(result.seed)),
    ]
    return tuple(rows)


def noise(result: RunResult, target: str) -> str:
    """How the target was measured, in a line."""
    profile = next((p for p in result.profiles if p.target == target), None)
    if profile is None:
        return "Nothing was measured here."
    if said := simulated.about(result, target):
        return said
    threads = f"{profile.threads} thread{'s' if profile.threads != 1 else ''}"
    return (
        f"{profile.runtime}, batch {profile.batch}, {threads}, {profile.rounds} rounds in turns. "
        f"The baseline against itself: {table.noise(result, target)}."
    )


def devices(result: RunResult) -> Iterator[Table]:
    """What artifacts take on devices that are simulated, and what those do not take of them."""
    for target in (choice.target for choice in result.chosen):
        rows = tuple(
            (
                Cell(each.variant),
                *(Cell(text, number=True) for text in (each.ram, each.flash)),
                Cell(each.coverage),
                Cell(each.time, number=True),
                Cell(each.reason, state="good" if each.fits else "bad"),
            )
            for each in simulated.rows(result, target)
        )
        if not rows:
            continue
        said = simulated.about(result, target)
        yield Table(f"{target}. {said}", simulated.HEADINGS, rows)
        if left := tuple(tuple(map(Cell, each)) for each in simulated.fallbacks(result, target)):
            yield Table(f"{simulated.FALLBACKS}: {target}", simulated.FALLBACK_HEADINGS, left)


def as_mapping(value: Json) -> Mapping[str, Json]:
    """A JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}
