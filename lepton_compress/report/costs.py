"""What artifacts cost beside the median of a call, as tables of plain values: time by operator,
requests and callers at once, and settings of the session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lepton_compress.artifacts import (
    QUANTILES,
    Json,
    OperatorTime,
    Profile,
    RunResult,
    Trial,
    Tuning,
)
from lepton_compress.report.behaviour import name_of
from lepton_compress.report.sections import Cell, Table
from lepton_compress.units import show_rate, show_seconds

MOST_OPERATORS = 8
_PERCENTILES = ("p50", "p90", "p99")
PROFILED = (
    "Measured in a pass of its own under the runtime's profiler, which slows each node down: for "
    "comparing with each other, not with latencies."
)


@dataclass(frozen=True)
class CostView:
    """A variant on a target, a line of it, and its table."""

    name: str
    summary: str
    table: Table


def operators(result: RunResult, most: int = MOST_OPERATORS) -> Iterator[CostView]:
    """Where the time of each variant goes, on each target; at most so many rows each."""
    several = len(result.chosen) > 1
    for profile in result.profiles:
        if not profile.operators:
            continue
        name = name_of(result, profile.candidate, profile.format)
        name += f" on {profile.target}" if several else ""
        rows = [_operator(each) for each in profile.operators[:most]]
        rest = profile.operators[most:]
        if rest:
            rows.append(_operator(_sum(rest)))
        headings = ("operator", "types", "nodes", "share", "of one call")
        caption = f"Time by operator of {name}, under the profiler"
        yield CostView(name, brief(profile.operators), Table(caption, headings, tuple(rows)))


def brief(times: tuple[OperatorTime, ...], most: int = 3) -> str:
    """The operators that take most, in a line."""
    said = [f"{each.operator} {show_share(each.share)}" for each in times[:most]]
    return ", ".join(said)


def show_share(share: float) -> str:
    """In whole per cents; times under a profiler are no more exact than that."""
    return f"{100 * share:.0f} %"


def _sum(times: tuple[OperatorTime, ...]) -> OperatorTime:
    kinds = f"{len(times)} more"
    nodes, seconds = sum(each.nodes for each in times), sum(each.seconds for each in times)
    return OperatorTime(kinds, "", nodes, seconds, sum(each.share for each in times))


def _operator(one: OperatorTime) -> tuple[Cell, ...]:
    return (
        Cell(one.operator),
        Cell(one.dtype),
        Cell(f"{one.nodes:,}", sort=one.nodes, number=True),
        Cell(show_share(one.share), sort=one.share, number=True, bar=one.share),
        Cell(show_seconds(one.seconds), sort=one.seconds, number=True),
    )


def loads(result: RunResult) -> Table | None:
    """Requests that arrive by themselves."""
    rows = [
        (
            *_where(result, profile),
            Cell(show_rate(each.rate), sort=each.rate, number=True),
            *(_time(each.latency, each.interval, name) for name in _PERCENTILES),
            Cell(f"{each.arrivals:,}", sort=each.arrivals, number=True),
        )
        for profile in result.profiles
        for each in profile.loads
    ]
    headings = ("variant", "target", "rate", *_PERCENTILES, "arrivals")
    title = "Requests that arrive by themselves (Poisson), waiting included"
    return Table(title, headings, tuple(rows)) if rows else None


def rests(result: RunResult) -> Table | None:
    """Calls after rests."""
    rows = [
        (
            *_where(result, profile),
            Cell(show_seconds(each.gap), sort=each.gap, number=True),
            *(
                Cell(show_seconds(value), sort=value, number=True)
                for value in (each.quantiles[QUANTILES.index(share)] for share in (0.5, 0.9))
            ),
            Cell(f"{each.calls:,}", sort=each.calls, number=True),
        )
        for profile in result.profiles
        for each in profile.idle
    ]
    headings = ("variant", "target", "rest", "p50", "p90", "calls")
    title = "Calls after a rest, as they are where requests are few"
    return Table(title, headings, tuple(rows)) if rows else None


def callers(result: RunResult) -> Table | None:
    """Callers at the same time."""
    rows = []
    for profile in result.profiles:
        for each in profile.callers:
            low, high = each.throughput_interval
            pace = Cell(
                f"{each.throughput:,.0f}", f"{low:,.0f} to {high:,.0f}", each.throughput, True
            )
            rows.append(
                (
                    *_where(result, profile),
                    Cell(str(each.callers), _cpus(each.cpus), each.callers, number=True),
                    pace,
                    *(_time(each.latency, each.interval, name) for name in _PERCENTILES),
                    Cell(f"{each.calls:,}", sort=each.calls, number=True),
                )
            )
    headings = ("variant", "target", "callers", "samples/s", *_PERCENTILES, "calls")
    title = "Callers at the same time that never pause"
    return Table(title, headings, tuple(rows)) if rows else None


def _cpus(count: int) -> str:
    return "" if not count else f"on {count} CPU" + ("s" if count > 1 else "")


def _where(result: RunResult, profile: Profile) -> tuple[Cell, Cell]:
    name = name_of(result, profile.candidate, profile.format)
    return Cell(name), Cell(profile.target)


def _time(
    held: Mapping[str, float], intervals: Mapping[str, tuple[float, float]], name: str
) -> Cell:
    if name not in held:
        return Cell("too few", number=True)
    around = " to ".join(map(show_seconds, intervals[name])) if name in intervals else ""
    return Cell(show_seconds(held[name]), around, held[name], number=True)


def tunings(result: RunResult) -> Iterator[CostView]:
    """What settings of the session were tried for each variant on each target, and found."""
    for profile in result.profiles:
        if profile.tuning is None:
            continue
        name = f"{name_of(result, profile.candidate, profile.format)} on {profile.target}"
        rows = tuple(_trial(each) for each in profile.tuning.trials)
        headings = ("settings", "found", "over the default (95 %)", "default to itself", "measured")
        table = Table(f"Settings tried for {name}", headings, rows)
        yield CostView(name, told(profile.tuning), table)


def told(tuning: Tuning) -> str:
    """What came of it, in a line."""
    if tuning.ratio is None:
        return f"the default stays: {tuning.reason}"
    return f"{settings(tuning.settings)}: {_factor(tuning.ratio, tuning.ratio_interval)} the time"


def settings(held: Mapping[str, Json]) -> str:
    """Settings in a line."""
    return ", ".join(f"{name}={value}" for name, value in held.items())


def _trial(one: Trial) -> tuple[Cell, ...]:
    said = one.reason or ("faster" if one.faster else "no gain")
    around = one.ratio_interval
    between = f"{around[0]:.3f} to {around[1]:.3f}" if around else ""
    return (
        Cell(settings(one.settings)),
        Cell(said, state="good" if one.faster else ""),
        Cell("" if one.ratio is None else f"{one.ratio:.3f}x", between, one.ratio, number=True),
        Cell("" if one.noise is None else f"{one.noise:.3f}x", sort=one.noise, number=True),
        Cell("alone" if one.number == 1 else "once more"),
    )


def _factor(value: float, interval: tuple[float, float] | None) -> str:
    around = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{value:.2f}x{around}"
