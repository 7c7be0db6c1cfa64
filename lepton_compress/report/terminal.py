"""A result on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.artifacts import RunResult
from lepton_compress.report import table


def show(result: RunResult, console: Console) -> None:
    """One table, and under it the choice for each target with its reason."""
    several = len(result.chosen) > 1
    drawn = Table(title=result.recipe, title_justify="left", header_style="bold", box=None)
    if several:
        drawn.add_column("target")
    for index, heading in enumerate(table.headings(result)):
        drawn.add_column(
            heading, justify="left" if index in (0, 6) else "right", no_wrap=index != 6
        )
    for choice in result.chosen:
        for number, row in enumerate(table.rows(result, choice.target)):
            cells = [row.score, row.drop, row.size, row.latency, row.ratio]
            name = Text(("> " if row.chosen else "  ") + row.variant)
            name.stylize("bold green" if row.chosen else "")
            verdict = Text(row.verdict, style="green" if row.passed else "red")
            where = [choice.target if number == 0 else ""] if several else []
            drawn.add_row(*where, name, *cells, verdict)
        drawn.add_section()
    console.print(drawn)
    for choice in result.chosen:
        picked = choice.candidate or "nothing"
        line = Text.assemble(("chosen", "bold"), f" on {choice.target}: ", (picked, "bold"), ", ")
        console.print(line.append(choice.reason), highlight=False)
    for choice in result.chosen:
        said = (
            f"the baseline against itself on {choice.target}: {table.noise(result, choice.target)}"
        )
        console.print(Text(said, style="dim"))
    for note in result.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    if result.folder is not None:
        console.print(f"written to {result.folder}", highlight=False)
    state = ("passed", "bold green") if result.passed else ("failed: see the gates", "bold red")
    console.print(Text.assemble(state))
