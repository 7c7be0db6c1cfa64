"""Which criterion rates the groups of a model, and on which data."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from lepton_compress.artifacts import Model, StepContext
from lepton_compress.compress import importance, observing
from lepton_compress.compress.groups import Group
from lepton_compress.errors import InputError

_ABSOLUTE = ("batch_norm", "taylor")
"""Criteria whose values compare from layer to layer as they are."""
_WITHOUT = {
    "batch_norm": "no batch normalisation scales its channels",
    "activation": "what flows through it cannot be seen",
}


def rated(
    model: Model, groups: Sequence[Group], criterion: str, context: StepContext
) -> tuple[list[Group], list[str]]:
    """The groups by one of the criteria `l1`, `l2`, `batch_norm`, `taylor` and `activation`, and
    notes on those that it says nothing of, which are left out.

    Raises:
        InputError: it says nothing of any group, or there is nothing to take derivatives of.
    """
    if not groups:
        return [], []
    made, notes = _criterion(model, groups, criterion, context)
    without = _WITHOUT.get(criterion, "its weights give no importance")
    found, faults = importance.rate(
        groups, made, without=without, relative=criterion not in _ABSOLUTE
    )
    if not found:
        raise InputError(
            f"importance: {criterion} says nothing of any layer: {without}",
            where="prune",
            mend="take importance: l2",
        )
    return found, [*notes, *(f"{layer} is not pruned: {why}" for layer, why in faults.items())]


def _criterion(
    model: Model, groups: Sequence[Group], criterion: str, context: StepContext
) -> tuple[importance.Criterion, tuple[str, ...]]:
    if criterion in ("l1", "l2"):
        return importance.magnitude(model.value, int(criterion[1])), ()
    if criterion == "batch_norm":
        return importance.batch_norm(model.value), ()
    scratch = copy.deepcopy(model.value)
    names = [spec.name for spec in model.inputs]
    with context.observer.work(f"importance by {criterion}", None) as progress:
        if criterion == "taylor":
            split = context.data.train.named(names)
            return observing.taylor(scratch, groups, split, context.original, progress)
        batches = context.data.calibration.named(names).batches(observing.BATCH)
        return observing.activation(scratch, groups, batches), ()
