"""Plug-ins on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lepton_compress.overviews import ParameterRow, PluginPage, PluginRow

BUILTIN = "built-in"


def show_listing(rows: Sequence[PluginRow], console: Console) -> None:
    """A row for each; of a broken one, why it cannot be used. Where all come with the tool, their
    origin is not worth a column."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("kind", style="dim", no_wrap=True)
    table.add_column("name", style="bold", no_wrap=True)
    strangers = any(row.origin != BUILTIN for row in rows)
    if strangers:
        table.add_column("origin", style="dim")
    table.add_column("what it does", overflow="fold", ratio=1)
    before = ""
    for row in rows:
        about = Text(f"broken: {row.broken}", style="red") if row.broken else Text(row.summary)
        origin = [row.origin] if strangers else []
        table.add_row("" if row.kind == before else row.kind, row.name, *origin, about)
        before = row.kind
    console.print(table, soft_wrap=False, highlight=False)


def show_page(page: PluginPage, console: Console) -> None:
    """What it does, and its parameters."""
    form = f", works on a {page.form}" if page.form else ""
    head = Text.assemble((page.name, "bold"), (f"  {page.kind}, {page.origin}{form}", "dim"))
    console.print(head)
    console.print(Text(page.summary), soft_wrap=False)
    if page.about:
        text = " ".join(page.about.replace("\n\n", "\0").split()).replace("\0", "\n\n")
        console.print(Text(text), soft_wrap=False)
    console.print()
    if not page.parameters:
        console.print("It takes no parameters.")
    for row in page.parameters:
        _show_parameter(row, console)


def _show_parameter(row: ParameterRow, console: Console) -> None:
    """The name with its type and default, and under it what it means."""
    line = Text.assemble((row.name, "bold"), f"  {row.type}")
    if row.default is None:
        line.append("  required", style="yellow")
    else:
        line.append(f"  default {row.default}", style="dim")
    console.print(line, soft_wrap=False)
    if row.description:
        console.print(Padding(Text(row.description), (0, 0, 0, 4)), soft_wrap=False)
