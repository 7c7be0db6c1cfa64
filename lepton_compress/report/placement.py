"""A placement in words and on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.placements import Placed, Placement, Plan, Pool
from lepton_compress.report.fitting import width
from lepton_compress.units import show_bytes, show_percent, show_rate, show_seconds

HEADINGS = ("", "plan", "{percentile}", "p50", "{metric} (95 %)", "up a device", "cost", "leaves")


def show(placement: Placement, console: Console) -> None:
    """The plans, what lost and why, and where the answer turns."""
    console.print(Text(f"{placement.fleet}: {headline(placement)}", style="bold"))
    for placed in placement.placed:
        _table(placement, placed, console)
    for pool in placement.pools:
        console.print(Text(told(pool, placement.currency)))
    for line in lines(placement):
        console.print(Text(line))
    for note in placement.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    state = ("every demand is met", "bold green")
    if not placement.feasible:
        state = ("no plan meets every demand", "bold red")
    console.print(Text.assemble(state))


def headline(placement: Placement) -> str:
    """What it costs, and what was preferred."""
    if placement.cost is None:
        return "no plan meets every demand"
    return f"{money(placement.cost, placement.currency)} a month, {placement.prefer} preferred"


def lines(placement: Placement) -> Iterator[str]:
    """Where the answer turns, what would have to give, and what a simulation says."""
    for change in placement.changes:
        yield change.said
    for relief in placement.reliefs:
        yield relief.said
    for each in placement.simulated:
        names = " and ".join(
            f"{name} {show_seconds(value)} (computed {show_seconds(each.computed[name])})"
            for name, value in each.simulated.items()
        )
        yield (
            f"simulated {each.workload} at {each.site}, {each.requests} requests: {names}; "
            f"{100 * each.worst:.1f} % apart at most"
        )


def title(placed: Placed) -> str:
    """Which workload at which site, and how much of it."""
    many = f"{placed.devices} devices, " if placed.devices > 1 else ""
    asked = f", {placed.percentile} within {show_seconds(placed.limit)}" if placed.limit else ""
    return f"{placed.workload} at {placed.site} ({many}{show_rate(placed.rate)} each{asked})"


def told(pool: Pool, currency: str) -> str:
    """The replicas of a pool in a line."""
    what = f"{pool.variant.name}, behind {pool.part}" if pool.part else pool.variant.name
    wait = f", p99 of the wait {show_seconds(pool.wait['p99'])}" if pool.wait else ""
    number = f"{pool.replicas} replica{'s' if pool.replicas > 1 else ''}"
    return (
        f"{pool.site}: {number} of {what} for {show_rate(pool.rate)}, "
        f"busy {100 * pool.utilization:.0f} %{wait}, {money(pool.cost, currency)} a month"
    )


def rows(placed: Placed, currency: str) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Cells, state ("chosen", "", "bad") and reason of every plan, the chosen one first."""
    if placed.plan is not None:
        plan = placed.plan
        yield (_cells(placed, plan, placed.cost, currency), "chosen", about(plan))
    for runner in placed.runners_up:
        reason = f"{runner.binds}: {runner.reason}" if runner.binds else runner.reason
        cells = _cells(placed, runner.plan, runner.cost, currency)
        yield cells, "bad" if runner.binds else "", reason


def headings(placed: Placed) -> list[str]:
    """Of the columns of `rows`, and behind them that of the reason."""
    said = [
        each.format(percentile=placed.percentile, metric=placed.metric.replace("_", " "))
        for each in HEADINGS[1:]
    ]
    if placed.percentile == "p50":
        said[1] = "p50 asked"
    return [*said, "why"]


def about(plan: Plan) -> str:
    """What a reader must know of a chosen plan beside its figures."""
    parts = []
    if plan.cascade is not None:
        rule = plan.cascade
        parts.append(f"edge answers from a confidence of {rule.threshold:.3f} on")
        if rule.gain_kept is not None:
            parts.append(f"keeps {100 * rule.gain_kept:.0f} % of the cloud's gain")
    if plan.accuracy_down is not None and plan.kind == "cascade":
        parts.append(f"{show_percent(plan.accuracy_down)} while the link is down")
    if plan.kind in ("cloud", "split") and plan.availability < 1:
        parts.append(f"no answer {show_percent(1 - plan.availability)} of the time")
    if plan.edge_utilization > 0:
        parts.append(f"a device is busy {_share(plan.edge_utilization)}")
    if plan.link_utilization > 0:
        parts.append(f"its uplink {_share(plan.link_utilization)}")
    return "; ".join(parts)


def _share(value: float) -> str:
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def _cells(placed: Placed, plan: Plan, cost: float | None, currency: str) -> tuple[str, ...]:
    mark = "" if plan.provenance == "measured" else f" ({plan.provenance})"
    low, high = (_value(each).removesuffix(" %") for each in plan.accuracy_interval)
    return (
        plan.name,
        show_seconds(plan.latency[placed.percentile]) + mark,
        show_seconds(plan.latency["p50"]),
        f"{_value(plan.accuracy)} ({low} to {high})",
        f"{show_bytes(plan.up)}/month" if plan.up else "nothing",
        "" if cost is None else money(cost, currency),
        plan.leaves,
    )


def _value(value: float) -> str:
    return show_percent(value) if abs(value) <= 1 else f"{value:.4g}"


def money(amount: float, currency: str) -> str:
    """An amount in the fleet's currency."""
    return f"{amount:,.{2 if abs(amount) < 100 else 0}f} {currency}".strip()


def _table(placement: Placement, placed: Placed, console: Console) -> None:
    drawn = Table(title=Text(title(placed)), title_justify="left", header_style="bold", box=None)
    last = len(HEADINGS) - 1
    for index, heading in enumerate(headings(placed)):
        side = "left" if index in (0, last - 1, last) else "right"
        drawn.add_column(heading, justify=side, no_wrap=index != last)  # type: ignore[arg-type]
    styles = {"chosen": "bold green", "bad": "dim", "": ""}
    for cells, state, reason in rows(placed, placement.currency):
        name = ("> " if state == "chosen" else "  ") + cells[0]
        drawn.add_row(Text(name, style=styles[state]), *map(Text, cells[1:]), Text(reason))
    drawn.width = max(width(drawn, console), console.width)
    console.print(drawn, crop=False)
    for reason in placed.left_out:
        console.print(Text(f"left out: {reason}", style="dim"))
