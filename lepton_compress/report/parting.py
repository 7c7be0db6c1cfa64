"""Where a LiteRT artifact parts from its source, on a terminal: its layers in order."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.accounts import Divergence, LayerGap


def show(found: Divergence, console: Console) -> None:
    """All layers; the first one that computes something else is marked."""
    console.print(_head(found), soft_wrap=True)
    console.print()
    console.print(_table(found))
    console.print()
    console.print(_conclusion(found))
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"))


def _head(found: Divergence) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("artifact", Text(found.artifact, style="bold"))
    grid.add_row("source", Text(found.source))
    if found.reference:
        grid.add_row("in float", Text(found.reference))
    grid.add_row("samples", str(found.samples))
    grid.add_row("XNNPACK", f"outputs {found.delegate:.2g} from those of the built-in kernels")
    return grid


def _table(found: Divergence) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("computed by", overflow="fold")
    headings = ["alone", "limit", "with those before", "unit"]
    if found.reference:
        headings.append("quantised")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    marked = False
    for each in found.layers:
        here = each.parts and not marked
        marked = marked or here
        table.add_row(*_cells(each, here, found), style=_style(each, here))
    return table


def _style(gap: LayerGap, first: bool) -> str:
    return "bold red" if first else "red" if gap.parts else ""


def _cells(gap: LayerGap, first: bool, found: Divergence) -> list[Text]:
    held = [
        f"> {gap.layer}" if first else gap.layer,
        gap.operator,
        _number(gap.alone),
        _number(gap.limit),
        _number(gap.together),
        gap.unit,
    ]
    if found.reference:
        held.append("" if gap.quantized is None else f"{gap.quantized:.2g}")
    return [Text(each) for each in held]


def _number(value: float) -> str:
    return f"{value:.2g}"


def _conclusion(found: Divergence) -> Text:
    if found.first:
        return Text(f"{found.first} is the first that computes something else", style="bold red")
    return Text("every layer computes what its source computes", style="bold green")
