"""What the HTML report tells of single steps, layers and samples, as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from lepton_compress.artifacts import Candidate, Json, RunResult, Score, StepRecord
from lepton_compress.outcomes import Change, Changes, ClassDrop, changes, worst_classes
from lepton_compress.report import table
from lepton_compress.report.sections import Cell, Table, as_mapping

MOST_LAYERS = 300
"""Rows of a table of layers; what is beyond stands in result.json."""
MOST_FLIPS = 60
MOST_TEXT = 8000
_MOST_SHORT = 120
_MOST_ITEMS = 8
NODE_HEADINGS = ("node", "computed", "with, or why", "weights' SQNR")
WIDTH_HEADINGS = ("layer", "loses", "width", "MACs saved alone", "parameters saved alone")
RANGE_HEADINGS = ("tensor", "range kept", "range seen")


@dataclass(frozen=True)
class StepView:
    """A step: its record in words, and the whole of its statistics as JSON."""

    name: str
    took: str
    parameters: tuple[tuple[str, str], ...]
    statistics: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    raw: str


@dataclass(frozen=True)
class SamplesView:
    """What happened to single samples and classes of a variant."""

    name: str
    summary: str
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    more: int
    classes: Table | None


def steps(candidate: Candidate, most: int = MOST_TEXT) -> tuple[StepView, ...]:
    """What each step of a candidate did, with at most so many characters of raw statistics."""
    return tuple(_step(record, most) for record in candidate.history)


def _step(record: StepRecord, most: int) -> StepView:
    given = [(name, short(value)) for name, value in record.parameters.items() if value is not None]
    told = [(name.replace("_", " "), short(value)) for name, value in record.statistics.items()]
    raw = ""
    # Piece by piece, so that the account of a deep model is not all written to be cut off.
    for piece in json.JSONEncoder(indent=1, ensure_ascii=False).iterencode(record.statistics):
        raw += piece
        if len(raw) > most:
            raw = raw[:most] + "\n... the rest stands in result.json"
            break
    return StepView(
        name=record.step,
        took=f"{record.seconds:.1f} s" + (" (reused)" if record.cached else ""),
        parameters=tuple((name, value) for name, value in given if value),
        statistics=tuple((name, value) for name, value in told if value),
        notes=record.notes,
        raw=raw if record.statistics else "",
    )


def short(value: Json) -> str:
    """A value of statistics in a few words; empty if it takes more than a line."""
    if isinstance(value, Mapping) and set(value) == {"value", "why"}:
        return f"{short(value['value'])} ({value['why']})"
    if isinstance(value, list) and len(value) == 2 and all(_is_number(each) for each in value):
        return f"{short(value[0])} → {short(value[1])}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping) and len(value) <= _MOST_ITEMS:
        items = {name: short(item) for name, item in value.items() if item is not None}
        said = ", ".join(f"{name} {item}" for name, item in items.items())
        return said if all(items.values()) and len(said) <= _MOST_SHORT else ""
    if isinstance(value, str) and len(value) > _MOST_SHORT:
        return value[: _MOST_SHORT - 3] + "..."
    if isinstance(value, str):
        return value
    return ""


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def layers(candidate: Candidate, most: int = MOST_LAYERS) -> Iterator[Table]:
    """The per-node accounts that its steps left, with at most so many rows each: the widths that
    layers were pruned to, how each node runs and why, the noise of its weights where it was
    measured, and ranges of activations."""
    for record in candidate.history:
        held = record.statistics
        widths = list(islice(_widths(as_mapping(held.get("groups"))), most))
        if widths:
            caption = f"{record.step}: widths of layers{_more(len(held['groups']), most)}"
            yield Table(caption, WIDTH_HEADINGS, tuple(widths))
        weighted = as_mapping(held.get("weighted"))
        rows = list(islice(_nodes(weighted, as_mapping(held.get("sqnr_db"))), most))
        if rows:
            columns = len(NODE_HEADINGS) - all(row[-1].sort is None for row in rows)
            count = sum(len(each) for each in weighted.values() if isinstance(each, list | dict))
            caption = f"{record.step}: nodes with weights{_more(count, most)}"
            yield Table(caption, NODE_HEADINGS[:columns], tuple(row[:columns] for row in rows))
        ranges, seen = as_mapping(held.get("ranges")), as_mapping(held.get("seen"))
        if ranges:
            spans = tuple(
                (Cell(str(name)), _range(kept), _range(seen.get(name)))
                for name, kept in islice(ranges.items(), most)
            )
            caption = f"{record.step}: ranges of activations{_more(len(ranges), most)}"
            yield Table(caption, RANGE_HEADINGS, spans)


def _more(count: int, most: int) -> str:
    over = count - most
    return f" (the first {most}; {over} more stand in result.json)" if over > 0 else ""


def _nodes(weighted: Mapping[str, Json], noise: Mapping[str, Json]) -> Iterator[tuple[Cell, ...]]:
    for kind, held in weighted.items():
        nodes = held if isinstance(held, Mapping) else dict.fromkeys(_list(held), "")
        for node, said in nodes.items():
            held_db = noise.get(node)
            decibels = float(held_db) if isinstance(held_db, int | float) else None
            shown = "" if decibels is None else f"{decibels:.1f} dB"
            yield (
                Cell(str(node)),
                Cell(f"in {kind}", state="bad" if kind == "float" else "good"),
                Cell(str(said)),
                Cell(shown, sort=decibels, number=True),
            )


def _widths(groups: Mapping[str, Json]) -> Iterator[tuple[Cell, ...]]:
    for layer, told in groups.items():
        if not isinstance(told, Mapping) or not {"kind", "width", "macs_saved"} <= told.keys():
            continue  # what another step calls groups
        before, after = told["width"]
        yield (
            Cell(str(layer)),
            Cell(str(told["kind"]) if after < before else "nothing"),
            Cell(f"{before} → {after}", sort=after / before, number=True),
            *(
                Cell(f"{told[name]:,}", sort=told[name], number=True)
                for name in ("macs_saved", "parameters_saved")
            ),
        )


def _list(value: Json) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _range(value: Json) -> Cell:
    if not (isinstance(value, list) and len(value) == 2 and all(_is_number(v) for v in value)):
        return Cell("")
    low, high = value
    return Cell(f"{low:.4g} to {high:.4g}", sort=float(high) - float(low), number=True)


def samples(result: RunResult, most: int = MOST_FLIPS) -> Iterator[SamplesView]:
    """Flips and worst classes of every variant in the first metric, at most so many each way."""
    metric = result.scores[0].metric if result.scores else ""
    held = {(s.candidate, s.format): s for s in result.scores if s.metric == metric}
    several = len({form for _, form in held}) > 1
    for (candidate, form), score in held.items():
        base = held.get((result.baseline, form))
        if base is None or base is score:
            continue
        found = changes(base, score, result.labels)
        if found is not None:
            worst = worst_classes(base, score, result.labels)
            name = f"{candidate} ({form})" if several else candidate
            yield _samples(name, score, found, worst, most)


def _samples(
    name: str, score: Score, found: Changes, worst: tuple[ClassDrop, ...], most: int
) -> SamplesView:
    lost, gained = len(found.lost), len(found.gained)
    ways = ("lost", "gained") if found.flips else ("worse", "better")
    summary = f"{lost} {ways[0]}, {gained} {ways[1]} of {score.samples:,} samples"
    shown = [_limited_flips(each[:most], score) for each in (found.lost, found.gained)]
    rows = tuple(
        (
            Cell(str(each.label), sort=each.label),
            Cell(f"{each.samples:,}", sort=each.samples, number=True),
            *(
                Cell(table.in_unit(score, value), sort=value, number=True)
                for value in (each.before, each.after)
            ),
            Cell(
                table.in_unit(score, each.drop),
                " to ".join(table.in_unit(score, end) for end in each.interval),
                each.drop,
                number=True,
            ),
        )
        for each in worst
    )
    headings = ("class", "samples", "original", name, "drop (95 %)")
    classes = Table(f"Classes of {name} that lost most", headings, rows) if rows else None
    more = max(0, lost - most) + max(0, gained - most)
    return SamplesView(name, summary, shown[0], shown[1], more, classes)


def _limited_flips(found: Sequence[Change], score: Score) -> tuple[str, ...]:
    binary = score.is_share
    return tuple(
        f"{each.sample}"
        + ("" if each.label is None else f" (class {each.label})")
        + ("" if binary else f" {each.before:.3g} → {each.after:.3g}")
        for each in found
    )
