"""What `inspect` found, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.artifacts import TensorSpec
from lepton_compress.overviews import (
    CandidateRow,
    EntryOverview,
    Held,
    Inspection,
    ModuleRow,
    RangesOverview,
    ResultOverview,
)
from lepton_compress.units import show_bytes

UNKNOWN = "unknown"


def show(
    found: Inspection | ResultOverview | EntryOverview | RangesOverview, console: Console
) -> None:
    """Facts first, tables under them."""
    if isinstance(found, ResultOverview):
        _show_result(found, console)
    elif isinstance(found, EntryOverview):
        _show_entry(found, console)
    elif isinstance(found, RangesOverview):
        _show_ranges(found, console)
    else:
        _show_model(found, console)


def _show_model(found: Inspection, console: Console) -> None:
    grid = _grid()
    grid.add_row("model", Text(found.subject, style="bold"))
    for name, value in found.about.items():
        grid.add_row(name, Text(value))
    if found.bytes is not None:
        grid.add_row("size", f"{show_bytes(found.bytes)} ({found.bytes:,} bytes)")
    if found.kind != "weights":
        grid.add_row("parameters", _count(found.parameters))
        grid.add_row("MACs", f"{_count(found.macs)}{' a sample' if found.macs is not None else ''}")
    for title, specs in (("inputs", found.inputs), ("outputs", found.outputs)):
        for number, spec in enumerate(specs):
            grid.add_row(title if number == 0 else "", _spec(spec))
    _print(console, grid)
    if found.weights:
        _print(console, "", _weights(found.weights))
    if found.operators:
        _print(console, "", _operators(found.operators))
    if found.modules:
        title = "node" if found.kind == "onnx" else "module"
        _print(console, "", _modules(found.modules, title))
    for note in found.notes:
        _print(console, Text(f"note: {note}", style="yellow"))


def _show_result(found: ResultOverview, console: Console) -> None:
    state = Text("passed", style="bold green") if found.passed else Text("failed", style="bold red")
    head = Text.assemble((found.recipe, "bold"), f"  started {found.started}  ")
    _print(console, head.append_text(state))
    table = _table("candidate", "steps", "parameters", "MACs", "size", "chosen on", right={2, 3, 4})
    for row in found.candidates:
        table.add_row(
            Text(_artifact(row, found.candidates), style="bold"),
            " > ".join(row.steps),
            _count(row.parameters),
            _count(row.macs),
            show_bytes(row.bytes),
            Text(", ".join(row.chosen_on), style="green"),
        )
    _print(console, "", table)
    _print(console, "", _compared(found.candidates))


def _show_entry(found: EntryOverview, console: Console) -> None:
    grid = _grid()
    grid.add_row("kept result", Text(found.label, style="bold"))
    grid.add_row("key", found.key)
    grid.add_row("folder", Text(found.subject))
    grid.add_row("size", show_bytes(found.bytes))
    grid.add_row("files", ", ".join(found.files) or "none")
    if "seconds" in found.details:
        grid.add_row("took", f"{found.details['seconds']:.1f} s")
    _print(console, grid)
    if found.model is not None:
        _print(console, "")
        _show_model(found.model, console)


def _show_ranges(found: RangesOverview, console: Console) -> None:
    grid = _grid()
    grid.add_row("ranges", Text(found.subject, style="bold"))
    grid.add_row("found by", f"{found.calibrator} on {found.samples} samples")
    grid.add_row("data", found.data)
    grid.add_row("model", found.model)
    grid.add_row("lepton-compress", found.tool)
    table = _table("tensor", "low", "high", "seen from", "to", right={1, 2, 3, 4})
    for name, pair in found.ranges.items():
        ends = [f"{end:.4g}" for end in (*pair, *found.seen.get(name, ()))]
        table.add_row(Text(name), *ends)
    _print(console, grid, "", table)


def _weights(held: Mapping[str, Held]) -> Table:
    table = _table("stored as", "tensors", "numbers", "bytes", right={1, 2, 3})
    for dtype, each in held.items():
        table.add_row(dtype, f"{each.tensors:,}", f"{each.numbers:,}", f"{each.bytes:,}")
    if len(held) > 1:
        every = list(held.values())
        table.add_section()
        table.add_row(
            "all",
            f"{sum(each.tensors for each in every):,}",
            f"{sum(each.numbers for each in every):,}",
            f"{sum(each.bytes for each in every):,}",
        )
    return table


def _operators(operators: Mapping[str, Mapping[str, int]]) -> Table:
    """A row for each operator, a column for each element type."""
    dtypes = sorted({dtype for counts in operators.values() for dtype in counts})
    table = _table("operator", *dtypes, right=set(range(1, 1 + len(dtypes))))
    for name, counts in operators.items():
        table.add_row(name, *(str(counts.get(dtype, "")) for dtype in dtypes))
    return table


def _compared(rows: Sequence[CandidateRow]) -> Table:
    """A row for each operator and element type, a column for each artifact."""
    kinds = sorted(
        {(name, t) for row in rows for name in row.operators for t in row.operators[name]}
    )
    headings = [_artifact(row, rows) for row in rows]
    table = _table("operator", "type", *headings, right=set(range(2, 2 + len(rows))))
    for name, dtype in kinds:
        counts = (row.operators.get(name, {}).get(dtype, "") for row in rows)
        table.add_row(name, Text(dtype, style="dim"), *map(str, counts))
    return table


def _artifact(row: CandidateRow, rows: Sequence[CandidateRow]) -> str:
    """The candidate's name, with the format where there are several."""
    several = len({each.format for each in rows}) > 1
    return f"{row.candidate} ({row.format})" if several else row.candidate


def _modules(rows: Sequence[ModuleRow], title: str) -> Table:
    """Names in full, since steps' parameters take them."""
    known = any(row.macs is not None for row in rows)
    table = _table(title, "type", "parameters", *(["MACs"] if known else []), right={2, 3})
    for row in rows:
        counts = [f"{row.parameters:,}" if row.parameters else ""]
        counts += [f"{row.macs:,}" if row.macs else ""] if known else []
        table.add_row(Text(row.name), row.type, *counts)
    return table


def _spec(spec: TensorSpec) -> Text:
    shape = ", ".join(map(str, spec.shape))
    return Text.assemble((spec.name, "bold"), f"  {spec.dtype}[{shape}]")


def _count(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count:,}"


def _table(*headings: str, right: set[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for index, heading in enumerate(headings):
        justify = "right" if index in right else "left"
        table.add_column(heading, justify=justify, no_wrap=index in right, overflow="fold")  # type: ignore[arg-type]
    return table


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _print(console: Console, *parts: Table | Text | str) -> None:
    for part in parts:
        console.print(part, soft_wrap=False, highlight=False)
