"""A result as Markdown, for a pull request or a wiki."""

from __future__ import annotations

from collections.abc import Iterator

from lepton_compress.artifacts import Profile, RunResult
from lepton_compress.report import table
from lepton_compress.units import show_bytes, show_seconds


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
    yield from _steps(result)
    yield from _verdicts(result)
    yield from _reproduce(result)


def _target(result: RunResult, target: str) -> Iterator[str]:
    profiles = [each for each in result.profiles if each.target == target]
    yield from ("", f"## {target}", "")
    yield _row(table.headings(result))
    yield _row(["---"] * len(table.HEADINGS))
    for row in table.rows(result, target):
        name = f"**{row.variant}** (chosen)" if row.chosen else row.variant
        yield _row([name, row.score, row.drop, row.size, row.latency, row.ratio, row.verdict])
    yield ""
    if profiles:
        one = profiles[0]
        yield (
            f"Batch {one.batch}, {one.threads} thread{'s' if one.threads > 1 else ''}, "
            f"{one.runtime}. The baseline against itself: {table.noise(result, target)}."
        )
        if one.device:
            yield ""
            yield f"Measured on {table.device(one.device)}."
        yield ""
        yield _row(["variant", "p90", "p99", "cold start", "peak memory", "calls", "rounds", "how"])
        yield _row(["---"] * 8)
        for profile in profiles:
            yield _row(_profile(profile))


def _profile(profile: Profile) -> list[str]:
    if profile.status != "measured":
        return [profile.candidate, "", "", "", "", "", "", f"failed: {profile.reason}"]
    high = [
        show_seconds(profile.latency[name]) if name in profile.latency else "too few calls"
        for name in ("p90", "p99")
    ]
    cold = show_seconds(profile.cold_start) if profile.cold_start is not None else ""
    memory = show_bytes(profile.peak_memory) if profile.peak_memory is not None else ""
    counts = [str(profile.samples), str(profile.rounds), profile.provenance]
    return [profile.candidate, *high, cold, memory, *counts]


def _steps(result: RunResult) -> Iterator[str]:
    yield from ("", "## What each step did", "")
    yield _row(["variant", "step", "took", "result"])
    yield _row(["---"] * 4)
    for candidate in result.candidates:
        for record in candidate.history:
            took = f"{record.seconds:.1f} s" + (" (reused)" if record.cached else "")
            said = [f"{name} {_short(value)}" for name, value in record.statistics.items()]
            said = [each for each in said if len(each) < 80] + list(record.notes)
            said += [each for each in (record.declined, record.unmet) if each and each not in said]
            yield _row([candidate.id, record.step, took, "; ".join(said)])
        macs = "unknown" if candidate.macs is None else f"{candidate.macs:,}"
        yield _row([candidate.id, "", "", f"{candidate.parameters:,} parameters, {macs} MACs"])


def _short(value: object) -> str:
    if isinstance(value, list) and len(value) == 2:
        return f"{_number(value[0])} -> {_number(value[1])}"
    return _number(value)


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _verdicts(result: RunResult) -> Iterator[str]:
    yield from ("", "## Gates", "")
    yield _row(["variant", "target", "gate", "verdict", "why"])
    yield _row(["---"] * 5)
    for verdict in result.verdicts:
        strict = " (strict)" if verdict.strict and verdict.gate != "parity" else ""
        yield _row(
            [
                verdict.candidate,
                verdict.target or "",
                verdict.gate + strict,
                str(verdict.status),
                verdict.reason,
            ]
        )


def _reproduce(result: RunResult) -> Iterator[str]:
    environment = result.environment
    libraries = ", ".join(f"{name} {held}" for name, held in environment["libraries"].items())
    cpu = environment["cpu"]
    yield from ("", "## How to reproduce", "")
    yield f"- recipe digest `{result.recipe_digest}`, seed {result.seed}"
    yield f"- data fingerprint `{result.data_fingerprint}`"
    yield f"- {libraries}, Python {environment['python']}"
    yield f"- {cpu['name']}, {cpu['cores']} cores, {', '.join(cpu['extensions'])}"
    yield f"- started {result.started}, took {result.seconds:.1f} s"
    for note in result.notes:
        yield f"- note: {note}"
    for artifact in result.artifacts:
        yield f"- `{artifact.path}` sha256 `{artifact.sha256}`"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
