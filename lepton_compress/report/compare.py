"""Two runs beside each other, on a terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.comparison import Comparison, LatencyPair, Pair, ScorePair, Side
from lepton_compress.report.fitting import shorten, width
from lepton_compress.report.markdown import row
from lepton_compress.units import show_bytes, show_percent, show_seconds

HEADINGS = ("variant", "{}", "drop (95 %)", "flips", "size", "target", "p50", "ratio", "gates")
_SIZE, _TARGET, _RATIO, _GATES = 4, 5, 7, 8
_UNPAIRED = (
    "Scores, sizes and times read first -> second. Ratios are between runs that did not take turns."
)


@dataclass(frozen=True)
class Line:
    """A line of the table, as text."""

    cells: tuple[str, ...]
    worse: bool


def lines(found: Comparison) -> Iterator[Line]:
    """A line for each pair and target."""
    for pair in found.pairs:
        score = next(iter(pair.scores), None)
        for latency in pair.latencies or (None,):
            name = pair.one if pair.one == pair.other else f"{pair.one} -> {pair.other}"
            cells = (
                name,
                _score(score),
                _drop(score),
                _flips(score),
                _size(pair),
                latency.target if latency else "",
                _times(latency),
                _ratio(latency),
                _gates(pair),
            )
            yield Line(cells, worse=len(pair.verdicts_other) > len(pair.verdicts_one))


def headings(found: Comparison) -> list[str]:
    """Of the columns."""
    metric = next((s.metric for pair in found.pairs for s in pair.scores), "score")
    return [each.format(metric.replace("_", " ")) for each in HEADINGS]


def show(found: Comparison, console: Console) -> None:
    """The two runs, what differs around them, and the table."""
    for side in (found.one, found.other):
        console.print(Text(_about(side)), soft_wrap=True)
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    # What is left out stands in --markdown and --json; the paired interval goes last.
    for brief in ((), (_SIZE, _RATIO, _GATES), range(len(HEADINGS))):
        drawn = _draw(found, brief)
        if width(drawn, console) <= console.width:
            break
    drawn.width = width(drawn, console)
    console.print(drawn, crop=False)
    for text in _remarks(found):
        console.print(Text(text, style="dim"), soft_wrap=True)


def _draw(found: Comparison, brief: Collection[int]) -> Table:
    """The table; the columns in `brief` without what stands in brackets."""
    drawn = Table(header_style="bold", box=None)
    for index, heading in enumerate(headings(found)):
        left = index in (0, _TARGET, _GATES)
        text = shorten(heading, index in brief)
        drawn.add_column(text, justify="left" if left else "right", no_wrap=True)
    for line in lines(found):
        *cells, gates = (shorten(cell, i in brief) for i, cell in enumerate(line.cells))
        said = gates.replace("; ", "\n") if brief else gates
        drawn.add_row(*map(Text, cells), Text(said, style="red" if line.worse else ""))
    return drawn


def markdown(found: Comparison) -> str:
    """The same as Markdown."""
    held = [f"# {found.one.reference} -> {found.other.reference}", ""]
    held += [f"- {_about(side)}" for side in (found.one, found.other)]
    held += [f"- **note**: {note}" for note in found.notes]
    names = headings(found)
    held += ["", row(names), row(["---"] * len(names))]
    held += [row(list(line.cells)) for line in lines(found)]
    held += ["", *_remarks(found)]
    return "\n".join(held) + "\n"


def _about(side: Side) -> str:
    chosen = ", ".join(f"{name or 'nothing'} on {target}" for target, name in side.chosen.items())
    state = "passed" if side.passed else "FAILED"
    return (
        f"{side.reference}: {side.recipe}, {side.started}, {side.processor}; chosen {chosen}; "
        f"{state}"
    )


def _remarks(found: Comparison) -> Iterator[str]:
    for side, names in ((found.one, found.only_one), (found.other, found.only_other)):
        if names:
            yield f"Only in {side.reference}: {', '.join(names)}."
    if not found.pairs:
        yield "No variant stands in both."
    elif any(each.ratio is not None for pair in found.pairs for each in pair.latencies):
        yield _UNPAIRED


def _score(score: ScorePair | None) -> str:
    if score is None:
        return ""
    return _change(_in_unit(score, score.one), _in_unit(score, score.other))


def _in_unit(score: ScorePair, value: float) -> str:
    if math.isnan(value):
        return "no value"
    return show_percent(value) if score.is_share else f"{value:.4g}"


def _drop(score: ScorePair | None) -> str:
    if score is None or math.isnan(score.drop):
        return ""
    shown = _in_unit(score, score.drop)
    if score.interval is None:
        return f"{shown} (not paired)"
    low, high = (_in_unit(score, end).removesuffix(" %") for end in score.interval)
    return f"{shown} ({low} to {high})"


def _flips(score: ScorePair | None) -> str:
    if score is None or score.lost is None:
        return ""
    return f"-{score.lost} +{score.gained}" if score.lost or score.gained else "none"


def _size(pair: Pair) -> str:
    if pair.same_file:
        return f"{show_bytes(pair.bytes_one)} (same file)"
    ratio = f" ({pair.bytes_other / pair.bytes_one:.2f}x)" if pair.bytes_one else ""
    return _change(show_bytes(pair.bytes_one), show_bytes(pair.bytes_other)) + ratio


def _times(pair: LatencyPair | None) -> str:
    if pair is None:
        return ""
    one, other = ("unknown" if v is None else show_seconds(v) for v in (pair.one, pair.other))
    told = pair.simulated and {pair.one, pair.other} != {None}
    return f"{_change(one, other)}, simulated" if told else _change(one, other)


def _change(one: str, other: str) -> str:
    """Both values, the unit once if it is the same; one if they read the same."""
    unit = other.rpartition(" ")[2]
    if one == other:
        return one
    return f"{one.removesuffix(f' {unit}')} -> {other}"


def _ratio(pair: LatencyPair | None) -> str:
    if pair is None:
        return ""
    if pair.simulated and None in (pair.one, pair.other):
        return ""  # there is nothing to compare
    if pair.ratio is None:
        own = (pair.to_baseline_one, pair.to_baseline_other)
        known = ["unknown" if each is None else f"{each:.2f}x" for each in own]
        return f"to own baselines {' -> '.join(known)}"
    if pair.interval is None:
        return f"{pair.ratio:.2f}x"
    return f"{pair.ratio:.2f}x ({pair.interval[0]:.2f} to {pair.interval[1]:.2f})"


def _gates(pair: Pair) -> str:
    before, after = ("; ".join(each) or "PASS" for each in (pair.verdicts_one, pair.verdicts_other))
    return after if before == after else f"{after} (was {before})"
