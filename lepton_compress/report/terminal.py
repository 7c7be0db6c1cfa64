"""A result on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.artifacts import Choice, Profile, RunResult
from lepton_compress.report import costs, simulated, table
from lepton_compress.report.fitting import shorten, width
from lepton_compress.units import show_seconds

_VERDICT = len(table.HEADINGS) - 1
_MARK = "(simulated)"
"""What no figure loses, however narrow the terminal."""


def show(result: RunResult, console: Console) -> None:
    """One table, and under it the choice for each target with its reason."""
    drawn = _draw(result, brief=False)
    if width(drawn, console) > console.width:
        drawn = _draw(result, brief=True)  # the intervals stand in report.md
    # On a terminal narrower still, lines break; a cell cut short would be a wrong number.
    drawn.width = width(drawn, console)
    console.print(drawn, crop=False)
    if over := table.front(result):
        console.print(Text(f"* nothing is as good in {over} and better in one", style="dim"))
    for name, metric, value, other, drop, _ in table.controls(result):
        said = f"{name}: {metric} {value}, unpruned with the same training {other}, drop {drop}"
        console.print(Text(said, style="dim"))
    for name, zeros, size, deflated, base, packed in table.sparse(result):
        said = f"{name}: {zeros} of the weights set to zero; {size}, deflated {deflated}; original"
        console.print(Text(f"{said} {base}, deflated {packed}; no faster by it", style="dim"))
    for choice in result.chosen:
        picked = choice.candidate or "nothing"
        line = Text.assemble(("chosen", "bold"), f" on {choice.target}: ", (picked, "bold"), ", ")
        console.print(line.append(choice.reason), highlight=False)
    for choice in result.chosen:
        for said in _about(result, choice):
            console.print(Text(said, style="dim"))
    for note in result.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    if result.folder is not None:
        console.print(f"written to {result.folder}", highlight=False, markup=False)
    state = ("passed", "bold green") if result.passed else ("failed: see the gates", "bold red")
    console.print(Text.assemble(state))


def _about(result: RunResult, choice: Choice) -> Iterator[str]:
    """How a target was measured or simulated, and more of what was chosen on it."""
    target = choice.target
    if about := simulated.about(result, target):
        yield f"{target}: {about}"
        yield from simulated.lines(result, target)
        return
    yield f"the baseline against itself on {target}: {table.noise(result, target)}"
    one = next((each for each in result.profiles if each.target == target), None)
    if one is not None and one.device:
        yield f"{target} was measured on {table.device(one.device)}"
    chosen = (choice.candidate, choice.format, target)
    for each in result.profiles:
        if (each.candidate, each.format, each.target) == chosen:
            yield from _costs(each)


def _costs(profile: Profile) -> Iterator[str]:
    """More of what was chosen, in a line each."""
    where = f"{profile.candidate} on {profile.target}"
    if profile.operators:
        yield f"time by operator of {where}, under the profiler: {costs.brief(profile.operators)}"
    for each in profile.callers:
        calls = f"{each.callers} caller{'s' if each.callers > 1 else ''} of {where}"
        late = f", p99 {show_seconds(each.latency['p99'])}" if "p99" in each.latency else ""
        yield f"{calls}: {each.throughput:,.0f} samples/s{late}"
    if profile.tuning is not None:
        yield f"session of {where}: {costs.told(profile.tuning)}"


def _draw(result: RunResult, *, brief: bool) -> Table:
    several = len(result.chosen) > 1
    drawn = Table(title=Text(result.recipe), title_justify="left", header_style="bold", box=None)
    if several:
        drawn.add_column("target", no_wrap=True)
    for index, heading in enumerate(table.headings(result)):
        side = "left" if index in (0, _VERDICT) else "right"
        drawn.add_column(shorten(heading, brief), justify=side, no_wrap=True)  # type: ignore[arg-type]
    for choice in result.chosen:
        for number, row in enumerate(table.rows(result, choice.target)):
            cells = [row.score, row.drop, row.size, row.latency, row.ratio]
            cells = [each if _MARK in each else shorten(each, brief) for each in cells]
            name = Text(("> " if row.chosen else "  ") + row.variant)
            name.stylize("bold green" if row.chosen else "")
            name.append(" *" if row.front else "", "dim")
            said = row.verdict.replace("; ", "\n") if brief else row.verdict
            verdict = Text(said, style="green" if row.passed else "red")
            where = [choice.target if number == 0 else ""] if several else []
            drawn.add_row(*where, name, *cells, verdict)
        drawn.add_section()
    return drawn
