"""What `quantize_auto` chooses among the schemes that it tried, and what it says of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lepton_compress.artifacts import Model, StepOutcome
from lepton_compress.compress.race import Timing
from lepton_compress.compress.trial import Trial
from lepton_compress.registry import Params
from lepton_compress.units import show_percent

_KINDS = {
    "quantize": "static int8",
    "quantize_dynamic": "dynamic int8",
    "quantize_weights": "8-bit weights",
}


@dataclass(frozen=True)
class Scheme:
    """A plain step with its parameters, behind repairs of the float graph; what it made, and how
    that did."""

    step: str
    params: Params
    outcome: StepOutcome
    trial: Trial
    repairs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        kept = len(self.kept)
        behind = f"{', '.join(self.repairs)}, " if self.repairs else ""
        return f"{behind}{_KINDS[self.step]}" + (f", {kept} nodes in float" if kept else "")

    @property
    def kept(self) -> list[str]:
        """The nodes left in float."""
        return list(getattr(self.params, "keep", []))

    @property
    def recipe(self) -> list[Any]:
        """As a recipe would write it."""
        own = self.params.model_dump(mode="json", exclude_defaults=True)
        return [*self.repairs, {self.step: own} if own else self.step]


def by_time(
    model: Model,
    rows: Sequence[tuple[Scheme, Timing]],
    about: dict[str, Any],
) -> StepOutcome:
    """The fastest within the budget; float where none is faster than it.

    Args:
        model: the float graph.
        rows: each scheme with its timing against float.
        about: the statistics, with `target`, `budget`, `judged_by` and `judged_on`.
    """
    budget, place = about["budget"], about["target"]
    within = [row for row in rows if row[0].trial.drop <= budget]
    faster = [row for row in rows if row[1].faster]
    good = [row for row in within if row[1].faster]
    if not faster or (within and not good):
        scheme, timing = min(within or rows, key=lambda row: row[1].ratio)
        why = (
            f"float stays: the fastest int8 graph{' within the budget' if within else ''} "
            f"({scheme.name}) takes {_ratio(timing)} of its time on {place}"
        )
        return StepOutcome(model, changed=False, statistics=about, notes=(why,), declined=why)
    if good:
        scheme, timing = min(good, key=lambda row: (row[1].ratio, row[0].trial.noise))
    else:
        scheme, timing = min(faster, key=lambda row: (row[0].trial.drop, row[1].ratio))
    note = f"{scheme.name}: {_ratio(timing)} of float's time on {place}, {_lost(scheme, about)}"
    return _taken(scheme, note, about, met=bool(good))


def by_accuracy(schemes: Sequence[Scheme], about: dict[str, Any]) -> StepOutcome:
    """The one within the budget with the fewest nodes in float, as no time can be told; where there
    is none, the one that loses least.

    Args:
        schemes: at least one.
        about: as for `by_time`.
    """
    within = [each for each in schemes if each.trial.drop <= about["budget"]]
    if within:
        scheme = min(within, key=lambda each: (len(each.kept), each.trial.noise))
    else:
        scheme = min(schemes, key=lambda each: (each.trial.drop, len(each.kept)))
    note = (
        f"{scheme.name}: {_lost(scheme, about)}; chosen by accuracy alone, as {about['target']} "
        "cannot be timed on this machine"
    )
    return _taken(scheme, note, about, met=bool(within))


def timed(what: str, timing: Timing, against: str) -> dict[str, Any]:
    """A row of what was tried."""
    return {
        "what": what,
        "ratio": timing.ratio,
        "ratio_interval": list(timing.interval),
        "against": against,
    }


def _taken(scheme: Scheme, note: str, about: dict[str, Any], *, met: bool) -> StepOutcome:
    unmet = "" if met else f"the budget of {show_percent(about['budget'])} is not met: {note}"
    made = scheme.outcome
    statistics = made.statistics | about | {"recipe": scheme.recipe}
    notes = (note, *made.notes)
    return StepOutcome(made.model, changed=True, statistics=statistics, notes=notes, unmet=unmet)


def _lost(scheme: Scheme, about: dict[str, Any]) -> str:
    lost = show_percent(scheme.trial.drop)
    return f"{lost} of {about['judged_by']} lost on {about['judged_on']}"


def _ratio(timing: Timing) -> str:
    low, high = timing.interval
    return f"{timing.ratio:.2f}x ({low:.2f} to {high:.2f})"
