"""Making a table fit a terminal without cutting a number."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_ANY_WIDTH = 1000


def shorten(cell: str, brief: bool) -> str:
    """Without the interval in brackets, where it must be brief."""
    return cell.partition(" (")[0] if brief else cell


def width(drawn: Table, console: Console) -> int:
    """Columns that a table takes if nothing is cut."""
    options = console.options.update(max_width=_ANY_WIDTH)
    return Measurement.get(console, options, drawn).maximum
