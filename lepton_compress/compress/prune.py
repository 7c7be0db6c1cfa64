"""The step `prune`: whole channels are removed, so that the model that remains is a smaller dense
one and runs faster without any support from the runtime."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress.pruning_budget import Budget
from lepton_compress.load.forms import duplicate
from lepton_compress.registry import Params, nearest, plugin
from lepton_compress.units import Percent


class Prune(Params):
    """What to remove, and how to choose it."""

    to: Budget | None = Field(None, description="Remove channels until this little is left.")
    ratio: Percent | None = Field(None, description="Remove this share of each layer's channels.")
    scope: Literal["global", "local", "sensitivity"] = Field(
        "global",
        description="`global`: layers compete, by importance (of weights and activations relative "
        "to their layer's mean); `local`: every layer gives the same share; `sensitivity`: each is "
        "pruned alone first, and those give most that lose least (`lepton-compress sensitivity` "
        "draws it).",
    )
    importance: Literal["l1", "l2", "batch_norm", "taylor", "activation"] = Field(
        "l2",
        description="What tells an important channel: the norm of the weights that make and read "
        "it (`l1`, `l2`), the scale of its batch normalisation, the change of the loss without it "
        "(`taylor`, on the train split; without targets by the classes that the original model "
        "chooses), or what it brings to the layers that read it (`activation`, on the calibration "
        "split).",
    )
    round_to: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        "auto",
        description="Widths are kept at multiples of this, which vector units like; `auto` is what "
        "the targets like (their `channels_multiple`), or 8.",
    )
    keep: list[str] = Field([], description="Names of layers that must not be pruned.")

    @property
    def measured(self) -> bool:
        """Whether the target or the first metric has a say."""
        return self.scope == "sensitivity" or (self.to is not None and self.to.latency is not None)

    @property
    def aligns(self) -> bool:
        """Whether the targets decide widths."""
        return self.round_to == "auto"

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.to is None) == (self.ratio is None):
            raise ValueError("give either to or ratio")
        if self.ratio is not None and self.ratio >= 1:
            raise ValueError(
                "ratio: 100 % would remove whole layers; give less, and name those that must stay "
                "whole under keep"
            )
        return self


def _requires(params: Prune, targets: Collection[str]) -> list[str]:
    asked = params.to.target if params.to is not None else None
    if asked is None or asked in targets:
        return []
    return [f"to: the recipe has no target {asked!r}; {nearest(asked, list(targets))}"]


@plugin("step", "prune", Prune, form="module", requires=_requires, measures=True, prunes=True)
def prune(model: Model, params: Prune, context: StepContext) -> StepOutcome:
    """Removes whole channels, attention heads and hidden units, the least important ones.

    What coupled layers lose together is found on torch-pruning's dependency graph (Fang et al.,
    "DepGraph", 2023); a group that cannot be removed without changing the rest stays whole, and a
    note says why.
    """
    from lepton_compress.compress import channels, pruning
    from lepton_compress.compress.training import deterministic

    with deterministic(context.seed, context.threads):
        narrowing, chosen = pruning.decide(model, params, context)
        example, groups, round_to = narrowing.example, narrowing.groups, narrowing.round_to
        before = channels.cost(model.value, example)
    kept = chosen.kept
    if not groups:
        reason = "no layer has channels that can be removed"
        return StepOutcome(model, changed=False, notes=(reason, *chosen.notes))
    if all(len(kept[group.layer]) == group.width for group in groups):
        reason = f"nothing to remove: no layer is wider than round_to={round_to} allows"
        return StepOutcome(model, changed=False, notes=(reason, *chosen.notes))
    pruned = duplicate(model)
    channels.apply(pruned.value, example, groups, kept)
    after = channels.cost(pruned.value, example)
    statistics = {
        "macs": [before["macs"], after["macs"]],
        "parameters": [before["parameters"], after["parameters"]],
        "round_to": round_to,
        "channels": {group.layer: [group.width, len(kept[group.layer])] for group in groups},
        "groups": channels.saved(model.value, example, groups, kept),
        **chosen.statistics,
    }
    return StepOutcome(pruned, True, statistics, chosen.notes, unmet=chosen.unmet)
