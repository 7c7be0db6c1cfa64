"""Cuts on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.place.cuts import Cut, Cuts, Halves
from lepton_compress.units import show_bytes, show_seconds


def show(found: Cuts, console: Console) -> None:
    """A row for each cut, from the input to the output."""
    said = f"{found.artifact}: {show_bytes(found.input_bytes)} go in, "
    said += f"{show_bytes(found.output_bytes)} come out; the whole takes "
    said += f"{show_seconds(found.edge_whole)} on {found.edge}"
    if found.cloud != found.edge:
        said += f", {show_seconds(found.cloud_whole)} on {found.cloud}"
    console.print(Text(said), soft_wrap=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("cut behind", style="bold", overflow="fold")
    table.add_column("crosses", overflow="fold")
    for name in ("bytes", "of the input", "edge", "cloud"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("times", no_wrap=True)
    table.add_column("halves against the whole", overflow="fold")
    for cut in found.cuts:
        share = cut.bytes / found.input_bytes if found.input_bytes else 0.0
        table.add_row(
            Text(cut.name),
            Text(_crossing(cut)),
            show_bytes(cut.bytes),
            f"{share:.2f}x",
            show_seconds(cut.edge_seconds),
            show_seconds(cut.cloud_seconds),
            Text(cut.provenance, style="" if cut.provenance == "measured" else "yellow"),
            _compared(cut),
        )
    console.print(table, soft_wrap=False, highlight=False)
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    if found.halves is not None:
        console.print(_written(found.halves))


def _crossing(cut: Cut) -> str:
    each = [f"{one.dtype}[{','.join(map(str, one.shape[1:]))}]" for one in cut.crossing]
    return " + ".join(each) + ("" if cut.features else ", the raw input")


def _compared(cut: Cut) -> str:
    if cut.difference is None:
        return ""
    return "bit for bit" if cut.difference == 0 else f"within {cut.difference:.1g}"


def _written(made: Halves) -> Text:
    same = "bit for bit" if made.exact else f"within {made.difference:.1g}"
    return Text(
        f"written: {made.edge} ({show_bytes(made.edge_bytes)}) and {made.cloud} "
        f"({show_bytes(made.cloud_bytes)}), which answer as the whole does, {same}, on "
        f"{made.samples} samples",
        style="green",
    )
