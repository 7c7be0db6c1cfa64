"""What is told of a device that is simulated, as text: RAM, flash, operators and fallbacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lepton_compress.artifacts import Fit, Profile, RunResult
from lepton_compress.units import show_bytes, show_percent, show_seconds

HEADINGS = ("variant", "RAM", "flash", "operators on the device", "time", "fits")
FALLBACKS = "Operators that the device does not take"
FALLBACK_HEADINGS = ("variant", "operator", "place", "why", "what helps")
MOST_FALLBACKS = 20
"""Rows of a table of fallbacks; what is beyond stands in result.json."""
FEW_FALLBACKS = 3
"""Where nothing runs on the device, a few of them say why."""
_MOST_LINES = 3
_UNKNOWN = "not told"
FITS = "yes"


@dataclass(frozen=True)
class Row:
    """One variant on a device."""

    variant: str
    ram: str
    flash: str
    coverage: str
    time: str
    reason: str

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against it."""
        return self.reason.partition(";")[0] == FITS


def profiles(result: RunResult, target: str) -> list[Profile]:
    """The profiles of a target that is simulated; empty for one that is measured."""
    held = [each for each in result.profiles if each.target == target]
    return [each for each in held if each.provenance == "simulated"]


def about(result: RunResult, target: str) -> str:
    """By what a target is simulated, in a line; empty for one that is measured."""
    found = profiles(result, target)
    if not found:
        return ""
    fit = next((each.fit for each in found if each.fit is not None), None)
    if fit is None:
        return f"Simulated by {found[0].runtime}."
    told = ", ".join(f"{name} {_plain(value)}" for name, value in fit.configuration.items())
    return f"Simulated by {fit.tool}, nothing was measured ({told})."


def _plain(value: object) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def rows(result: RunResult, target: str) -> Iterator[Row]:
    """What each variant takes."""
    for each in profiles(result, target):
        fit = each.fit
        yield Row(
            variant=_name(result, each),
            ram=_bytes(fit.ram if fit else None),
            flash=_bytes(fit.flash if fit else None),
            coverage=coverage(fit),
            time=show_seconds(each.latency["p50"]) if each.latency else _UNKNOWN,
            reason=each.reason or FITS + _note(fit),
        )


def _note(fit: Fit | None) -> str:
    """What its tool has to say beside figures."""
    said = fit.figures.get("note") if fit else None
    return f"; {said}" if isinstance(said, str) else ""


def coverage(fit: Fit | None) -> str:
    """Operators that the device takes, of all."""
    if fit is None or not fit.operators:
        return ""
    taken = max(0, fit.operators - len(fit.fallbacks))
    return f"{taken} of {fit.operators} ({show_percent(taken / fit.operators)})"


def fallbacks(
    result: RunResult, target: str, most: int = MOST_FALLBACKS
) -> Iterator[tuple[str, ...]]:
    """Operators that stay on the host, with why and what helps; at most so many a variant."""
    for each in profiles(result, target):
        held = each.fit.fallbacks if each.fit else ()
        name, room = _name(result, each), most
        if each.fit is not None and each.fit.problem:
            room = min(most, FEW_FALLBACKS)
        for one in held[:room]:
            yield name, one.operator, one.name, one.reason, one.remedy
        if held[room:]:
            yield name, f"{len(held) - room} more", "", "", "see result.json"


def lines(result: RunResult, target: str) -> Iterator[str]:
    """The same in short, for a terminal."""
    for each in rows(result, target):
        said = f"{each.variant}: RAM {each.ram}, flash {each.flash}"
        said += f", {each.coverage} operators on the device" if each.coverage else ""
        yield said + each.reason.removeprefix(FITS) if each.fits else f"{said}; {each.reason}"
    # Of what does not fit, the reason has been told.
    bad = {_name(result, each) for each in profiles(result, target) if each.reason}
    found = [each for each in fallbacks(result, target) if each[0] not in bad]
    for name, operator, place, why, helps in found[:_MOST_LINES]:
        yield f"{name}: {operator} at {place} stays on the host" + _tail(why, helps)
    if found[_MOST_LINES:]:
        yield f"{len(found) - _MOST_LINES} more operators on the host stand in report.md"


def _tail(why: str, helps: str) -> str:
    return (f": {why}" if why else "") + (f"; {helps}" if helps else "")


def _name(result: RunResult, profile: Profile) -> str:
    several = len({each.format for each in profiles(result, profile.target)}) > 1
    return f"{profile.candidate} ({profile.format})" if several else profile.candidate


def _bytes(value: int | None) -> str:
    return _UNKNOWN if value is None else show_bytes(value)
