"""Whether a pruned model still becomes a graph, and which groups are to blame where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lepton_compress.artifacts import Model
from lepton_compress.compress.cutting import cut
from lepton_compress.compress.groups import Group
from lepton_compress.errors import InputError
from lepton_compress.load import forms

TOLERANCE = 1e-3
"""Of the largest output; an export is compared more strictly where artifacts are verified."""


def faults(
    model: Model,
    groups: Sequence[Group],
    kept: Mapping[str, Sequence[int]],
    feeds: Mapping[str, np.ndarray],
    lower: Callable[[Model], Model],
) -> dict[str, str]:
    """Layer to why the graph of a model without its channels is none, for those to blame.

    All are tried together first, so that a sound model takes one export. Nothing is blamed where
    the model as it is cannot be exported either.
    """
    narrowed = [group for group in groups if len(kept[group.layer]) < group.width]

    def fault(some: Sequence[Group]) -> str:
        trial = forms.duplicate(model)
        cut(trial.value, some, kept)
        try:
            graph = lower(trial)
            ours, theirs = (list(forms.call(each, feeds).values()) for each in (graph, trial))
        except InputError as error:
            return f"without its channels the model cannot be exported ({error.problem})"
        for one, other in zip(ours, theirs, strict=True):
            scale = float(np.abs(other).max(initial=0.0)) or 1.0
            if one.shape != other.shape or not np.allclose(one, other, 0, TOLERANCE * scale):
                return "without its channels the exported graph computes something else"
        return ""

    def search(some: Sequence[Group], why: str) -> dict[str, str]:
        if not why:
            return {}
        if len(some) == 1:
            return {some[0].layer: why}
        halves = some[: len(some) // 2], some[len(some) // 2 :]
        found: dict[str, str] = {}
        for half in halves:
            found |= search(half, fault(half))
        return found or {group.layer: why for group in halves[1]}

    why = fault(narrowed) if narrowed else ""
    return search(narrowed, why) if why and not fault([]) else {}
