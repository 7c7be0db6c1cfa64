"""Targets on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.overviews import TargetPage, TargetRow
from lepton_compress.units import show_bytes

BUILTIN = "built-in"


def show_listing(rows: Sequence[TargetRow], console: Console) -> None:
    """A row for each; of a broken one, why it cannot be used."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("target", style="bold", no_wrap=True)
    table.add_column("runtime", no_wrap=True)
    strangers = any(row.origin != BUILTIN for row in rows)
    if strangers:
        table.add_column("origin", style="dim")
    table.add_column("RAM", justify="right", no_wrap=True)
    table.add_column("flash", justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold", ratio=1)
    for row in rows:
        about = Text(f"broken: {row.broken}", style="red") if row.broken else Text(row.about)
        origin = [row.origin] if strangers else []
        limits = [_limit(row.ram), _limit(row.flash)]
        table.add_row(row.name, row.runtime, *origin, *limits, about)
    console.print(table, soft_wrap=False, highlight=False)


def show_page(page: TargetPage, console: Console) -> None:
    """What its file says, and how a recipe takes it."""
    console.print(Text.assemble((page.name, "bold"), (f"  target, {page.origin}", "dim")))
    console.print(Text(page.about), soft_wrap=False)
    console.print()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in _facts(page):
        grid.add_row(name, Text(text))
    console.print(grid, soft_wrap=False, highlight=False)


def _facts(page: TargetPage) -> Iterator[tuple[str, str]]:
    yield "runtime", page.runtime + (", simulated" if page.simulated else ", measured")
    for name, value in page.options.items():
        yield name.replace("_", " "), str(value)
    if not page.simulated:
        yield "threads", str(page.threads)
    if page.needs_host:
        yield "host", "must be given: it is another machine"
    for name, limit in (("RAM", page.ram), ("flash", page.flash)):
        if limit is not None:
            yield name, f"{_limit(limit)} ({limit:,} bytes)"
    yield "computes in", ", ".join(page.dtypes)
    yield "operators", ", ".join(page.operators)
    if page.channels_multiple is not None:
        yield "widths", f"multiples of {page.channels_multiple} channels"
    yield "source", page.source
    yield "file", page.file
    yield "in a recipe", page.use


def _limit(value: int | None) -> str:
    return "" if value is None else show_bytes(value)
