"""What `explain` found, on a terminal: the nodes worst first, and below them the likely causes."""

from __future__ import annotations

import functools
from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lepton_compress.accounts import (
    FOLDED,
    INT8,
    Account,
    Explanation,
    Finding,
    NodeAccount,
    Range,
)
from lepton_compress.units import show_bytes, show_seconds

SHOWN = 15
"""Nodes in the table; all of them with `--all`."""
_ANY_WIDTH = 1000
_SURE, _LIKELY = 0.85, 0.6


def show(found: Explanation, console: Console) -> None:
    """The fifteen worst nodes."""
    _show(found, console, SHOWN)


def show_all(found: Explanation, console: Console) -> None:
    """Every node."""
    _show(found, console, len(found.account.nodes))


def _show(found: Explanation, console: Console, most: int) -> None:
    account = found.account
    _print(console, _head(account), "")
    nodes = sorted((node for node in account.nodes if node.precision != FOLDED), key=_worst_first)
    _print(console, _fitting(console, functools.partial(_table, nodes[:most])))
    hidden = max(0, len(nodes) - most)
    if hidden:
        _print(console, Text(f"{hidden} more nodes with --all", style="dim"))
    why = _reasons(nodes)
    if why:
        _print(console, "", Text("not in int8", style="bold"), *why)
    _print(console, "", _kernels(account))
    _print(console, "", *_findings(found.findings))
    for note in account.notes:
        _print(console, Text(f"note: {note}", style="yellow"))


def _worst_first(node: NodeAccount) -> tuple[float, float]:
    """By noise; where that is not known, by time."""
    unknown = 1e9
    return (unknown if node.sqnr_db is None else node.sqnr_db, -(node.share or 0.0))


def _head(account: Account) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("artifact", Text(account.artifact, style="bold"))
    grid.add_row("against", Text(account.reference))
    outputs = f"{_db(account.output_db)} dB" if account.output_db is not None else "not compared"
    changed = "" if account.changed is None else f", {account.changed:.1%} of decisions changed"
    grid.add_row("outputs", f"{outputs}{changed}, on {account.samples} samples")
    grid.add_row(
        "one call",
        f"{show_seconds(account.latency)}, in float {show_seconds(account.reference_latency)}",
    )
    stored = (
        f"{dtype} {show_bytes(each.bytes)}"
        for dtype, each in sorted(account.stored.items(), key=lambda item: -item[1].bytes)
        if each.bytes
    )
    grid.add_row("on disk", ", ".join(stored))
    whole = sum(node.precision == INT8 for node in account.nodes)
    there = sum(node.precision != FOLDED for node in account.nodes)
    grid.add_row("runs", f"{whole} of {there} nodes in int8")
    return grid


def _fitting(console: Console, draw: Callable[[frozenset[str]], Table]) -> Table:
    """The first form of a table that fits."""
    for columns in _COLUMNS:
        table = draw(columns)
        options = console.options.update(max_width=_ANY_WIDTH)
        if Measurement.get(console, options, table).maximum <= console.width:
            break
    return table


def _table(nodes: list[NodeAccount], columns: frozenset[str]) -> Table:
    """A row for each node; `columns` names those of the optional columns that are shown."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("node", overflow="fold")
    table.add_column("runs in", no_wrap=True)
    for heading in ("dB", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in _OPTIONAL:
        if heading in columns:
            side = "left" if heading == _AS else "right"
            table.add_column(heading, justify=side, no_wrap=heading != _AS, overflow="fold")  # type: ignore[arg-type]
    for node in nodes:
        style = "" if node.precision == INT8 else "yellow"
        table.add_row(*_cells(node, columns), style=style)
    return table


def _cells(node: NodeAccount, columns: frozenset[str]) -> list[Text]:
    share = "" if node.share is None else f"{node.share:.0%}"
    held = node.activation
    optional = {
        _WEIGHTS: _range(node.weight.range if node.weight else None),
        _HOLDS: _range(held.range if held else None),
        _SEEN: _range(held.seen if held else None),
        _AS: node.runs_as,
    }
    cells = [node.name, node.precision, _db(node.sqnr_db), share]
    return [
        Text(cell) for cell in (*cells, *(optional[each] for each in _OPTIONAL if each in columns))
    ]


_OPTIONAL = (_WEIGHTS, _HOLDS, _SEEN, _AS) = ("weights", "can hold", "seen", "runs as")
_COLUMNS = (
    frozenset(_OPTIONAL),
    frozenset({_HOLDS, _SEEN, _AS}),
    frozenset({_HOLDS, _SEEN}),
    frozenset({_AS}),
)
"""What to leave out first on a narrow terminal."""


def _reasons(nodes: list[NodeAccount]) -> list[Text]:
    """Each reason once, with the nodes that it holds for."""
    held: dict[str, list[str]] = {}
    for node in nodes:
        if node.why_not:
            held.setdefault(node.why_not, []).append(node.name)
    lines = []
    for reason, names in held.items():
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        lines.append(Text.assemble((f"  {shown}", "yellow"), f": {reason}"))
    return lines


def _kernels(account: Account) -> Table:
    """What really ran, by kind."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("what ran", overflow="fold")
    table.add_column("type", overflow="fold")
    for heading in ("calls", "time", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in account.kernels:
        table.add_row(
            each.operator,
            Text(each.dtype, style="dim"),
            str(each.calls),
            show_seconds(each.seconds),
            f"{each.share:.0%}",
        )
    return table


def _findings(findings: tuple[Finding, ...]) -> list[Text | Padding]:
    if not findings:
        return [Text("nothing wrong found", style="bold green")]
    lines: list[Text | Padding] = []
    for number, each in enumerate(findings, start=1):
        sure = "sure" if each.confidence >= _SURE else "likely"
        sure = sure if each.confidence >= _LIKELY else "possible"
        colour = "red" if each.about == "accuracy" else "yellow"
        head = Text.assemble(f"{number}. ", (each.title, f"bold {colour}"))
        head.append(f" ({each.about}, {sure})", style="dim")
        mend = Text.assemble(("mend: ", "dim"), each.mend)
        lines += [
            head,
            *(Padding(part, (0, 0, 0, 3), expand=False) for part in (Text(each.evidence), mend)),
        ]
    return lines


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _range(pair: Range | None) -> str:
    return "" if pair is None else f"{pair[0]:.3g} to {pair[1]:.3g}"


def _print(console: Console, *parts: Table | Text | Padding | str) -> None:
    for part in parts:
        console.print(part, soft_wrap=False, highlight=False)
