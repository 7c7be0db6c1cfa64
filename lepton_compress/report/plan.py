"""A plan on a terminal: the tree of variants, with common beginnings drawn once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from lepton_compress.overviews import Plan, PlannedModel, PlannedStage, PlannedVariant
from lepton_compress.units import show_bytes, show_seconds

_GATES = {
    "score": "score at least (errors: at most) {}",
    "drop": "at most {} worse than the baseline",
    "worst_class": "at most {} worse than the baseline in any class",
    "worst_slice": "at most {} worse than the baseline in any slice",
    "corrupted": "at most {} worse than the baseline under any corruption",
    "flips": "at most {} of the predictions differ from the baseline's",
    "negative_flips": "at most {} of the samples right before and wrong now",
    "calibration_error": "at most {} calibration error",
    "parity": "at most {} from what it was made from",
    "size": "at most {}",
    "size_ratio": "at most {} of the baseline's size",
    "integer_nodes": "at least {} of the nodes in integers",
    "integer_macs": "at least {} of the multiply-accumulates in integers",
    "latency": "at most {} a call",
    "latency_ratio": "at most {} of the baseline's time",
    "cold_start": "at most {} to the first result",
    "peak_memory": "at most {} of memory",
}


def show(plan: Plan, console: Console) -> None:
    """What will be done, and how much of it the workspace has."""
    console.print(_head(plan), soft_wrap=False)
    console.print(_tree(plan), soft_wrap=False)
    console.print()
    console.print(_demands(plan), soft_wrap=False)
    console.print()
    console.print(Text.assemble(*_summary(plan)), soft_wrap=False)
    for note in plan.notes:
        console.print(Text.assemble(("note ", "yellow"), note), soft_wrap=False)


def parameters(given: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Parameters in one line: `to.macs 0.35x`."""
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from parameters(value, f"{before}{name}.")
        else:
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            yield f"{before}{name} {shown}"


def _head(plan: Plan) -> Table:
    grid = _grid()
    grid.add_row("recipe", Text(plan.recipe, style="bold"))
    grid.add_row("model", Text(plan.model.reference))
    if plan.model.weights:
        grid.add_row("weights", Text(plan.model.weights))
    grid.add_row("", Text(_size(plan.model), style="dim"))
    counts = ", ".join(f"{count:,} {name}" for name, count in plan.samples.items())
    grid.add_row("samples", Text(counts))
    return grid


def _size(model: PlannedModel) -> str:
    held = f"{model.numbers:,} numbers in the weights" if model.numbers is not None else ""
    size = show_bytes(model.bytes) if model.bytes is not None else ""
    return ", ".join(each for each in (held, size) if each) or "parameters known after the run"


def _tree(plan: Plan) -> Tree:
    """One node for each result, however many variants need it."""
    root = Tree(Text("model", style="bold"), guide_style="dim")
    nodes: dict[str, Tree] = {}
    for variant in (*plan.variants, *plan.controls):
        at = root
        made = [stage for stage in variant.stages if stage.kind in ("step", "lower")]
        for stage in made:
            if stage.key not in nodes:
                nodes[stage.key] = at.add(_stage(stage))
            at = nodes[stage.key]
        at.add(_variant(variant))
    return root


def _stage(stage: PlannedStage) -> Text:
    line = Text.assemble((stage.name, "bold"))
    if stage.given:
        line.append(f" ({', '.join(parameters(stage.given))})")
    line.append("  ").append_text(_state(stage))
    if stage.parameter_count is not None:
        macs = "" if stage.macs is None else f", {stage.macs:,} MACs"
        line.append(f"  {stage.parameter_count:,} parameters{macs}", style="dim")
    if stage.shared_with:
        line.append(f"  shared by {1 + len(stage.shared_with)} variants", style="dim")
    return line


def _state(stage: PlannedStage) -> Text:
    return Text("cached", style="green") if stage.cached else Text("to do", style="yellow")


def _variant(variant: PlannedVariant) -> Text:
    """The artifacts of a variant, and what is done with them; neighbours share a state."""
    line = Text.assemble(("=> ", "dim"), (variant.name, "bold cyan"), ": ")
    proved = [stage for stage in variant.stages if stage.kind not in ("step", "lower")]
    for number, stage in enumerate(proved):
        line.append(", " if number else "")
        line.append("verify" if stage.kind == "verify" else f"{stage.kind} {stage.name}")
        if stage.bytes is not None:
            line.append(f" {show_bytes(stage.bytes)}", style="dim")
        if number + 1 == len(proved) or proved[number + 1].cached is not stage.cached:
            line.append("  ").append_text(_state(stage))
    return line


def _demands(plan: Plan) -> Table:
    grid = _grid()
    grid.add_column(overflow="fold")
    for number, target in enumerate(plan.targets):
        threads = f"{target.threads} thread{'s' if target.threads > 1 else ''}"
        where = f" on {target.host}" if target.host else ""
        about = f"{target.runtime}{where}, {threads}, batch {target.batch}"
        if target.simulated:
            given = [f"{name} {value}" for name, value in target.options.items()]
            about = ", ".join([f"simulated by {target.runtime}", *given])
        title = "measure on" if number == 0 else ""
        grid.add_row(title, Text(target.name, style="bold"), about)
    if any(not each.simulated for each in plan.targets):
        grid.add_row("", "", Text(", ".join(_measured(plan.measure)), style="dim"))
    for number, gate in enumerate(plan.gates):
        said = _GATES.get(gate.name, "{}").format(gate.written)
        said += " (strict)" if gate.strict else ""
        said += f" on {', '.join(gate.targets)}" if gate.targets else ""
        title = "gates" if number == 0 else ""
        grid.add_row(title, Text(gate.name, style="bold"), said)
    if not plan.gates:
        grid.add_row("gates", Text("none", style="dim"))
    every = "; every variant must pass" if plan.require == "every" else ""
    picked = Text(plan.select.replace("_", " "), style="bold")
    grid.add_row("choose", picked, f"of those that pass{every}")
    return grid


def _measured(how: Mapping[str, Any]) -> Iterator[str]:
    yield f"at least {how['rounds']} rounds, more until decided or {show_seconds(how['cap'])}"
    for rate in how["rates"]:
        yield f"{rate:g} arrivals a second"
    for count in how["callers"]:
        yield f"{count} caller{'s' if count > 1 else ''} at once"
    if how["tune"]:
        yield "settings of sessions tried"


def _summary(plan: Plan) -> Iterator[str | tuple[str, str]]:
    stages = {
        stage.key or (variant.name, stage.kind, stage.name): stage.cached
        for variant in (*plan.variants, *plan.controls)
        for stage in variant.stages
    }
    done = sum(stages.values())
    yield (f"{done} of {len(stages)} results", "bold")
    yield f" are kept in {plan.workspace}; latency is always measured anew"
    if done < len(stages):
        yield "\nparameters and sizes that are not shown are known after the run"


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid
