"""What a target's own file says that its device does not take, beside what its runtime says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Fallback, Fit
from lepton_compress.targets.remedies import remedy

if TYPE_CHECKING:
    from lepton_compress.targets.flatbuffer import Operator

NEUTRAL = ("", "bool", "int32", "int64", "uint32")
"""Types of indices, shapes and truth values, which say nothing of where the work is done."""


def restricted(
    fit: Fit,
    held: Sequence[Operator],
    *,
    operators: Sequence[str],
    dtypes: Sequence[str],
    alone: bool,
) -> Fit:
    """The fit, with every operator that the device does not take counted as such.

    Args:
        fit: as the runtime tells it.
        held: the artifact's operators.
        operators: that the device takes; empty for all.
        dtypes: that it computes in; empty for all.
        alone: whether it has no processor beside it for the rest, so that the artifact does not
            fit. Of one that has, the time of what falls back is not known.
    """
    if fit.problem:
        return fit
    known = {(each.operator, each.name) for each in fit.fallbacks}
    mixed = any(not _why(each, operators, dtypes) for each in held)
    more = tuple(
        Fallback(
            each.type, each.place, why, remedy(each.type, each.dtype, edge=each.edge, mixed=mixed)
        )
        for each in held
        if (why := _why(each, operators, dtypes)) and (each.type, each.place) not in known
    )
    if not more:
        return fit
    made = replace(fit, fallbacks=(*fit.fallbacks, *more), seconds=None)
    if not alone and len(made.fallbacks) < made.operators:
        return made
    first, many = more[0], len(more)
    others = f", and {many - 1} more like that" if many > 1 else ""
    helps = f"; {first.remedy}" if first.remedy else ""
    problem = f"{first.operator} at {first.name!r} does not run there ({first.reason}){others}"
    return replace(made, problem=problem + helps)


def _why(operator: Operator, operators: Sequence[str], dtypes: Sequence[str]) -> str:
    """Why the device does not take it; empty where it does."""
    if operators and operator.type not in operators:
        return "it is not among the operators of the target's file"
    if dtypes and operator.dtype not in (*dtypes, *NEUTRAL):
        return f"it gives {operator.dtype}, and the target computes in {', '.join(dtypes)}"
    return ""
