"""How variants behave beside the original, as tables of plain values: what flipped, calibration,
how much runs in integers, parts of the data, and corrupted data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lepton_compress.artifacts import Behaviour, Corrupted, Coverage, Group, RunResult, Score
from lepton_compress.report import table
from lepton_compress.report.sections import Cell, Table
from lepton_compress.units import show_percent

MOST_PARTS = 20
MOST_CORRUPTED = 200
_MANY = {"slice": "Slices", "class": "Classes"}


@dataclass(frozen=True)
class PartsView:
    """The parts of the data that a variant was looked at by."""

    name: str
    summary: str
    tables: tuple[Table, ...]


def overview(result: RunResult) -> Table | None:
    """One row a variant: flips, calibration and integer operators; None where nothing is known."""
    rows = []
    for artifact in result.artifacts:
        key = (artifact.candidate, artifact.format)
        found = next((b for b in result.behaviours if (b.candidate, b.format) == key), None)
        covered = next((c for c in result.coverages if (c.candidate, c.format) == key), None)
        if found is not None or covered is not None:
            rows.append(
                (
                    Cell(name_of(result, *key), found.reason if found else ""),
                    *_behaved(found),
                    *_covered(covered),
                )
            )
    headings: tuple[str, ...] = ("variant", "flips", "right before, wrong now", "calibration error")
    headings += ("nodes in integers", "MACs in integers")
    return Table("Beside the original", headings, tuple(rows)) if rows else None


def _behaved(found: Behaviour | None) -> Iterator[Cell]:
    for count in (found.flips, found.negative_flips) if found else (None, None):
        if found is None or count is None:
            yield Cell("", number=True)
        else:
            share = show_percent(count / max(found.samples, 1))
            yield Cell(f"{count:,}", f"{share} of {found.samples:,}", count, number=True)
    error = found.calibration_error if found else None
    if found is None or error is None or math.isnan(error):
        yield Cell("", number=True)
    else:
        yield Cell(show_percent(error), _between(found.calibration_interval), error, number=True)


def _covered(found: Coverage | None) -> Iterator[Cell]:
    pairs = ((found.integer_nodes, found.nodes), (found.integer_macs, found.macs)) if found else ()
    for part, whole in pairs or ((None, None),) * 2:
        if part is None or not whole:
            yield Cell("", number=True)
        else:
            text = show_percent(part / whole)
            yield Cell(text, f"{part:,} of {whole:,}", part / whole, number=True, bar=part / whole)


def _between(interval: tuple[float, float] | None) -> str:
    return " to ".join(map(show_percent, interval)) if interval else ""


def corrupted(result: RunResult, most: int = MOST_CORRUPTED) -> Iterator[Table]:
    """For each metric a table: a row for each corruption and variant, a column a severity."""
    metrics = dict.fromkeys(c.metric for b in result.behaviours for c in b.corrupted)
    for metric in metrics:
        score = next((s for s in result.scores if s.metric == metric), None)
        held = [
            (name_of(result, each.candidate, each.format), one)
            for each in result.behaviours
            for one in each.corrupted
            if one.metric == metric
        ]
        severities = sorted({one.severity for _, one in held})
        kinds = dict.fromkeys(one.corruption for _, one in held)
        names = dict.fromkeys(name for name, _ in held)
        forms = {artifact.format for artifact in result.artifacts}
        bases = {name_of(result, result.baseline, form) for form in forms}
        rows = []
        for kind in kinds:
            for name in names:
                found = {o.severity: o for n, o in held if (n, o.corruption) == (name, kind)}
                base = name in bases
                cells = [_corrupted(found.get(each), score, base=base) for each in severities]
                rows.append((Cell(kind.replace("_", " ")), Cell(name), *cells))
        over = len(rows) - most
        more = f" (the first {most}; {over} more stand in result.json)" if over > 0 else ""
        title = f"{metric.replace('_', ' ').capitalize()} on corrupted data, and its drop{more}"
        headings = ("corruption", "variant", *(f"severity {each}" for each in severities))
        yield Table(title, headings, tuple(rows[:most]))


def _corrupted(one: Corrupted | None, score: Score | None, *, base: bool) -> Cell:
    if one is None or math.isnan(one.value):
        return Cell("" if one is None else "no value", number=True)
    drop = _shown(score, one.drop)
    if one.drop_interval is not None:
        drop += " (" + " to ".join(_shown(score, end) for end in one.drop_interval) + ")"
    said = "" if base else f"drop {drop}"
    return Cell(_shown(score, one.value), said, one.value, number=True)


def parts(result: RunResult, most: int = MOST_PARTS) -> Iterator[PartsView]:
    """Slices and classes of every variant, those that lost most first, at most so many each."""
    for each in result.behaviours:
        if each.candidate == result.baseline or not each.groups:
            continue
        kinds = dict.fromkeys((group.kind, group.metric) for group in each.groups)
        tables = tuple(
            _parts([g for g in each.groups if (g.kind, g.metric) == (kind, metric)], result, most)
            for kind, metric in sorted(kinds, key=lambda pair: pair[0] != "slice")
        )
        worst = max(each.groups, key=lambda group: group.drop)
        score = next((s for s in result.scores if s.metric == worst.metric), None)
        lost = f"most in {worst.kind} {worst.name}: {_shown(score, worst.drop)}"
        said = lost if worst.drop > 0 else "no part is worse"
        yield PartsView(name_of(result, each.candidate, each.format), said, tables)


def _parts(groups: list[Group], result: RunResult, most: int) -> Table:
    kind, metric = groups[0].kind, groups[0].metric
    score = next((s for s in result.scores if s.metric == metric), None)
    ranked = sorted(groups, key=lambda group: -group.drop)
    rows = tuple(
        (
            Cell(group.name, sort=_number(group.name) if kind == "class" else None),
            Cell(f"{group.samples:,}", sort=group.samples, number=True),
            Cell(_shown(score, group.value), sort=group.value, number=True),
            Cell(
                _shown(score, group.drop),
                " to ".join(_shown(score, end) for end in group.drop_interval),
                group.drop,
                number=True,
            ),
        )
        for group in ranked[:most]
    )
    over = len(ranked) - most
    more = f" (the {most} that lost most; {over} more stand in result.json)" if over > 0 else ""
    title = f"{_MANY[kind]}, {metric.replace('_', ' ')}{more}"
    return Table(title, (kind, "samples", "value", "drop (95 %)"), rows)


def _number(text: str) -> float | None:
    return float(text) if text.isdigit() else None


def _shown(score: Score | None, value: float) -> str:
    return f"{value:.4g}" if score is None else table.in_unit(score, value)


def name_of(result: RunResult, candidate: str, form: str) -> str:
    """What a variant is called; with its format where there are several."""
    several = len({artifact.format for artifact in result.artifacts}) > 1
    return f"{candidate} ({form})" if several else candidate
