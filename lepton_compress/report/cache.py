"""What a workspace keeps, on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.overviews import CacheListing, CacheRow, Pruned
from lepton_compress.units import show_bytes

SHOWN = 12
"""Digits of a key, enough to find its folder by."""
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def show_listing(listing: CacheListing, console: Console) -> None:
    """A row for each result, and the total."""
    if not listing.entries:
        console.print(f"nothing is kept in {listing.store}", highlight=False)
        return
    _print_rows(listing.entries, console)
    count = len(listing.entries)
    head = (f"{count} results, {show_bytes(listing.bytes)}", "bold")
    console.print(Text.assemble(head, f" in {listing.store}"))
    if listing.unfinished:
        console.print(Text(f"{listing.unfinished} more being made, or left unfinished"))


def show_pruned(pruned: Pruned, console: Console) -> None:
    """What went, what it freed and what stays."""
    if pruned.removed:
        _print_rows(pruned.removed, console)
    said = "would free" if pruned.dry_run else "freed"
    head = (f"{said} {show_bytes(pruned.freed)}", "bold")
    console.print(Text.assemble(head, f" of {len(pruned.removed)} results in {pruned.store}"))
    console.print(Text(f"{pruned.kept} results stay, {show_bytes(pruned.kept_bytes)}"))
    if pruned.busy:
        console.print(Text(f"{pruned.busy} are being made just now, and stay", style="yellow"))


def ago(seconds: float) -> str:
    """A stretch of time in its largest whole unit: `3 h ago`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def _print_rows(rows: Iterable[CacheRow], console: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("result", overflow="fold")
    table.add_column("key", no_wrap=True, style="dim")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("last used", justify="right", no_wrap=True)
    now = time.time()
    for row in rows:
        table.add_row(row.label, row.key[:SHOWN], show_bytes(row.bytes), ago(now - row.used))
    console.print(table, soft_wrap=False, highlight=False)
