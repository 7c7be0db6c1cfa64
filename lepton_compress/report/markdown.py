"""A result as Markdown, for a pull request or a wiki."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lepton_compress.artifacts import QUANTILES, Profile, RunResult, Status, Verdict
from lepton_compress.outcomes import changes, worst_classes
from lepton_compress.report import behaviour, costs, simulated, table
from lepton_compress.report.details import short
from lepton_compress.report.sections import processor
from lepton_compress.units import show_bytes, show_rate, show_seconds

_MOST_SAMPLES = 20


def markdown(result: RunResult) -> str:
    """The whole report."""
    return "\n".join(_lines(result)).rstrip() + "\n"


def _lines(result: RunResult) -> Iterator[str]:
    yield f"# {result.recipe}: {'passed' if result.passed else 'FAILED'}"
    yield ""
    for choice in result.chosen:
        where = f"On **{choice.target}**"
        if choice.candidate is None:
            yield f"- {where}: nothing can be shipped. {choice.reason}"
        else:
            met = "" if choice.met else " (does not meet the gates)"
            yield f"- {where}: **{choice.candidate}**{met}: {choice.reason}"
    for choice in result.chosen:
        yield from _target(result, choice.target)
    yield from _controls(result)
    yield from _sparse(result)
    yield from _gates(result)
    yield from _samples(result)
    yield from _behaviour(result)
    yield from _steps(result)
    yield from _reproduce(result)


def _target(result: RunResult, target: str) -> Iterator[str]:
    profiles = [each for each in result.profiles if each.target == target]
    yield from ("", f"## {target}", "")
    yield row(table.headings(result))
    yield row(["---"] * len(table.HEADINGS))
    for one in table.rows(result, target):
        marks = [m for m, is_so in (("chosen", one.chosen), ("front", one.front)) if is_so]
        name = f"**{one.variant}**" if one.chosen else one.variant
        name += f" ({', '.join(marks)})" if marks else ""
        yield row([name, one.score, one.drop, one.size, one.latency, one.ratio, one.verdict])
    yield ""
    held = any(each.members for each in result.fronts if each.target == target)
    if held and (over := table.front(result)):
        yield f"Front: nothing measured is as good in {over} and better in one."
    if profiles:
        if said := simulated.about(result, target):
            yield said
            yield from _simulated(result, target)
            return
        first = profiles[0]
        yield (
            f"Batch {first.batch}, {first.threads} thread{'s' if first.threads > 1 else ''}, "
            f"{first.runtime}. The baseline against itself: {table.noise(result, target)}."
        )
        if first.device:
            yield ""
            yield f"Measured on {table.device(first.device)}."
        yield ""
        heads = ["p90", "p99", "samples/s", "cold start", "peak memory", "calls", "rounds", "how"]
        yield row(["variant", *heads])
        yield row(["---"] * 9)
        for profile in profiles:
            yield row(_profile(profile))
        yield from _loads(profiles)
        yield from _rests(profiles)
        yield from _callers(profiles)
        yield from _operators(profiles)
        yield from _tunings(profiles)


def _simulated(result: RunResult, target: str) -> Iterator[str]:
    """What the device has to hold, and what its accelerator does not take."""
    yield from ("", row(list(simulated.HEADINGS)), row(["---"] * len(simulated.HEADINGS)))
    for each in simulated.rows(result, target):
        yield row([each.variant, each.ram, each.flash, each.coverage, each.time, each.reason])
    if fallbacks := list(simulated.fallbacks(result, target)):
        yield from ("", f"{simulated.FALLBACKS}:", "", row(list(simulated.FALLBACK_HEADINGS)))
        yield row(["---"] * len(simulated.FALLBACK_HEADINGS))
        for cells in fallbacks:
            yield row(list(cells))


def _profile(profile: Profile) -> list[str]:
    if profile.status != "measured":
        return [profile.candidate, "", "", "", "", "", "", "", f"failed: {profile.reason}"]
    high = [
        show_seconds(profile.latency[name]) if name in profile.latency else "too few calls"
        for name in ("p90", "p99")
    ]
    samples = f"{profile.throughput:,.0f}" if profile.throughput is not None else ""
    cold = show_seconds(profile.cold_start) if profile.cold_start is not None else ""
    memory = show_bytes(profile.peak_memory) if profile.peak_memory is not None else ""
    counts = [str(profile.samples), str(profile.rounds), profile.provenance]
    return [profile.candidate, *high, samples, cold, memory, *counts]


def _loads(profiles: list[Profile]) -> Iterator[str]:
    """Requests that arrived by themselves."""
    if not any(profile.loads for profile in profiles):
        return
    yield from ("", "Requests that arrive by themselves (Poisson), waiting included:", "")
    yield row(["variant", "rate", "p50", "p90", "p99 (95 %)", "arrivals"])
    yield row(["---"] * 6)
    for profile in profiles:
        for each in profile.loads:
            held = {name: show_seconds(value) for name, value in each.latency.items()}
            if "p99" in held:
                low, high = map(show_seconds, each.interval["p99"])
                held["p99"] += f" ({low} to {high})"
            cells = [held.get(name, "too few arrivals") for name in ("p50", "p90", "p99")]
            yield row([profile.candidate, show_rate(each.rate), *cells, str(each.arrivals)])


def _rests(profiles: list[Profile]) -> Iterator[str]:
    """Calls after rests."""
    if not any(profile.idle for profile in profiles):
        return
    yield from ("", "Calls after a rest, as they are where requests are few:", "")
    yield row(["variant", "rest", "p50", "p90", "calls"])
    yield row(["---"] * 5)
    for profile in profiles:
        for each in profile.idle:
            shown = [each.quantiles[QUANTILES.index(share)] for share in (0.5, 0.9)]
            times = [show_seconds(value) for value in (each.gap, *shown)]
            yield row([profile.candidate, *times, str(each.calls)])


def _callers(profiles: list[Profile]) -> Iterator[str]:
    """Callers at the same time."""
    if not any(profile.callers for profile in profiles):
        return
    yield from ("", "Callers at the same time that never pause:", "")
    yield row(["variant", "callers", "CPUs", "samples/s (95 %)", "p50", "p99 (95 %)", "calls"])
    yield row(["---"] * 7)
    for profile in profiles:
        for each in profile.callers:
            low, high = each.throughput_interval
            pace = f"{each.throughput:,.0f} ({low:,.0f} to {high:,.0f})"
            held = {name: show_seconds(value) for name, value in each.latency.items()}
            if "p99" in held:
                held["p99"] += " ({} to {})".format(*map(show_seconds, each.interval["p99"]))
            cells = [held.get(name, "too few calls") for name in ("p50", "p99")]
            head = [profile.candidate, str(each.callers), str(each.cpus or ""), pace]
            yield row([*head, *cells, str(each.calls)])


def _operators(profiles: list[Profile]) -> Iterator[str]:
    """Where the time goes."""
    if not any(profile.operators for profile in profiles):
        return
    yield from ("", f"Time by operator. {costs.PROFILED}", "")
    yield row(["variant", "operators by their share of the time"])
    yield row(["---"] * 2)
    for profile in profiles:
        if profile.operators:
            yield row([profile.candidate, costs.brief(profile.operators, costs.MOST_OPERATORS)])


def _tunings(profiles: list[Profile]) -> Iterator[str]:
    """Settings of the session that are faster."""
    if not any(profile.tuning for profile in profiles):
        return
    yield from ("", "Settings of the session (all other figures are of the default):", "")
    yield row(["variant", "found", "tried"])
    yield row(["---"] * 3)
    for profile in profiles:
        if profile.tuning is not None:
            count = str(len(profile.tuning.trials))
            yield row([profile.candidate, costs.told(profile.tuning), count])


def _behaviour(result: RunResult) -> Iterator[str]:
    """Flips, calibration, integer operators, corrupted data; the parts of what was chosen."""
    chosen = {behaviour.name_of(result, c.candidate or "", c.format or "") for c in result.chosen}
    tables = [behaviour.overview(result), *behaviour.corrupted(result)]
    for view in behaviour.parts(result):
        if view.name in chosen:
            tables += [
                replace(each, caption=f"{each.caption} ({view.name})") for each in view.tables
            ]
    held = [each for each in tables if each is not None and each.rows]
    if held:
        yield from ("", "## Behaviour")
    for each in held:
        yield from ("", f"{each.caption}:", "", row(list(each.headings)))
        yield row(["---"] * len(each.headings))
        for cells in each.rows:
            yield row([c.text + (f" ({c.small})" if c.small else "") for c in cells])


def _steps(result: RunResult) -> Iterator[str]:
    yield from ("", "## What each step did", "")
    yield row(["variant", "step", "took", "result"])
    yield row(["---"] * 4)
    for candidate in result.candidates:
        for record in candidate.history:
            took = f"{record.seconds:.1f} s" + (" (reused)" if record.cached else "")
            told = {name: short(value) for name, value in record.statistics.items()}
            said = [f"{name} {value}" for name, value in told.items() if value]
            said += record.notes
            said += [each for each in (record.declined, record.unmet) if each and each not in said]
            yield row([candidate.id, record.step, took, "; ".join(said)])
        macs = "unknown" if candidate.macs is None else f"{candidate.macs:,}"
        yield row([candidate.id, "", "", f"{candidate.parameters:,} parameters, {macs} MACs"])


def _controls(result: RunResult) -> Iterator[str]:
    if not result.controls:
        return
    yield from ("", "## Beside the unpruned model with the same training", "")
    yield row(list(table.CONTROLS))
    yield row(["---"] * len(table.CONTROLS))
    for cells in table.controls(result):
        yield row(list(cells))


def _sparse(result: RunResult) -> Iterator[str]:
    if not (held := list(table.sparse(result))):
        return
    yield from ("", "## What sparsity buys", "", row(list(table.SPARSE)))
    yield row(["---"] * len(table.SPARSE))
    for cells in held:
        yield row(list(cells))
    yield from ("", table.NO_SPEED)


def _gates(result: RunResult) -> Iterator[str]:
    """What does not pass in sight, the rest folded."""
    bad = [each for each in result.verdicts if each.status is not Status.PASS]
    good = [each for each in result.verdicts if each.status is Status.PASS]
    yield from ("", "## Gates", "")
    yield from _verdicts(result, bad) if bad else ["Every variant passes every gate."]
    if good:
        said = f"{len(good)} verdicts that pass" if len(good) > 1 else "one verdict that passes"
        yield from ("", f"<details><summary>{said}</summary>", "", *_verdicts(result, good))
        yield from ("", "</details>")


def _verdicts(result: RunResult, verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield row(["variant", "target", "gate", "verdict", "why"])
    yield row(["---"] * 5)
    for each in verdicts:
        strict = " (strict)" if each.strict and each.gate != "parity" else ""
        gate = each.gate + strict
        name = behaviour.name_of(result, each.candidate, each.format)
        yield row([name, each.target or "", gate, str(each.status), each.reason])


def _samples(result: RunResult) -> Iterator[str]:
    """Flips and worst classes of what was chosen."""
    metric = result.scores[0].metric if result.scores else ""
    chosen = {(choice.candidate, choice.format) for choice in result.chosen}
    held = {(s.candidate, s.format): s for s in result.scores if s.metric == metric}
    for key, score in held.items():
        base = held.get((result.baseline, key[1]))
        if key not in chosen or base is None or base is score:
            continue
        found = changes(base, score, result.labels)
        if found is None:
            continue
        ways = ("lost", "gained") if found.flips else ("worse", "better")
        name = behaviour.name_of(result, *key)
        yield from ("", f"## Samples: {name} against the original", "")
        for way, changed in zip(ways, (found.lost, found.gained), strict=True):
            ids = ", ".join(str(each.sample) for each in changed[:_MOST_SAMPLES])
            more = f", and {len(changed) - _MOST_SAMPLES} more" if changed[_MOST_SAMPLES:] else ""
            yield f"- {len(changed)} {way}" + (f": {ids}{more}" if ids else "")
        worst = worst_classes(base, score, result.labels)
        if worst:
            yield from ("", row(["class", "samples", "original", name, "drop (95 %)"]))
            yield row(["---"] * 5)
        for each in worst:
            shown = [table.in_unit(score, v) for v in (each.before, each.after, each.drop)]
            low, high = (table.in_unit(score, v).removesuffix(" %") for v in each.interval)
            yield row(
                [str(each.label), str(each.samples), *shown[:2], f"{shown[2]} ({low} to {high})"]
            )


def _reproduce(result: RunResult) -> Iterator[str]:
    environment = result.environment
    libraries = ", ".join(f"{name} {held}" for name, held in environment["libraries"].items())
    yield from ("", "## How to reproduce", "")
    yield f"- recipe digest `{result.recipe_digest}`, seed {result.seed}"
    yield f"- data fingerprint `{result.data_fingerprint}`"
    yield f"- {libraries}, Python {environment['python']}"
    extensions = ", ".join(environment["cpu"]["extensions"])
    yield f"- {processor(result)}{', ' if extensions else ''}{extensions}"
    yield f"- started {result.started}, took {result.seconds:.1f} s"
    for note in result.notes:
        yield f"- note: {note}"
    for artifact in result.artifacts:
        yield f"- `{artifact.path}` sha256 `{artifact.sha256}`"


def row(cells: list[str]) -> str:
    """One line of a table, in which nothing ends a cell or the line."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
