"""The step `prune`: whole channels are removed, so that the model that remains is a smaller dense
one and runs faster without any support from the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.errors import InputError
from lepton_compress.load.forms import duplicate
from lepton_compress.registry import Params, plugin
from lepton_compress.units import Factor, Percent

if TYPE_CHECKING:
    from lepton_compress.compress.channels import Example, Group


class Budget(Params):
    """What must be left, as a share of what was there."""

    macs: Factor | None = Field(None, description="Multiply-accumulates, for example `0.5x`.")
    parameters: Factor | None = Field(None, description="Parameters, for example `0.5x`.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [each for each in (self.macs, self.parameters) if each is not None]
        if len(given) != 1 or given[0] >= 1:
            raise ValueError("give either macs or parameters, below 1x")
        return self


class Prune(Params):
    """What to remove, and how to choose it."""

    to: Budget | None = Field(None, description="Remove channels until this little is left.")
    ratio: Percent | None = Field(None, description="Remove this share of each layer's channels.")
    scope: Literal["global", "local"] = Field(
        "global",
        description="`global`: layers compete, by importance (of weights and activations relative "
        "to their layer's mean); `local`: every layer gives the same share.",
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


@plugin("step", "prune", Prune, form="module")
def prune(model: Model, params: Prune, context: StepContext) -> StepOutcome:
    """Removes whole channels, attention heads and hidden units, the least important ones.

    What coupled layers lose together is found on torch-pruning's dependency graph (Fang et al.,
    "DepGraph", 2023); a group that cannot be removed without changing the rest stays whole, and a
    note says why.
    """
    from lepton_compress.compress import channels, exporting, rating
    from lepton_compress.compress.training import deterministic

    names = [spec.name for spec in model.inputs]
    example = next(context.data.calibration.named(names).batches(2))
    round_to = context.multiple if params.round_to == "auto" else params.round_to
    with deterministic(context.seed, context.threads):
        before = channels.cost(model.value, example)
        groups, notes = channels.find_groups(model.value, example, set(params.keep))
        groups, unrated = rating.rated(model, groups, params.importance, context)
        notes += unrated
        kept = _choose(model, example, groups, params, round_to, context) if groups else {}
        while groups and context.lower is not None:
            faults = exporting.faults(model, groups, kept, example, context.lower)
            if not faults:
                break
            notes += [f"{layer} is not pruned: {why}" for layer, why in faults.items()]
            groups = [group for group in groups if group.layer not in faults]
            kept = _choose(model, example, groups, params, round_to, context) if groups else {}
    if not groups:
        reason = "no layer has channels that can be removed"
        return StepOutcome(model, changed=False, notes=(reason, *notes))
    if all(len(kept[group.layer]) == group.width for group in groups):
        reason = f"nothing to remove: no layer is wider than round_to={round_to} allows"
        return StepOutcome(model, changed=False, notes=(reason, *notes))
    pruned = duplicate(model)
    channels.apply(pruned.value, example, groups, kept)
    after = channels.cost(pruned.value, example)
    statistics = {
        "macs": [before["macs"], after["macs"]],
        "parameters": [before["parameters"], after["parameters"]],
        "round_to": round_to,
        "channels": {group.layer: [group.width, len(kept[group.layer])] for group in groups},
        "groups": channels.saved(model.value, example, groups, kept),
    }
    return StepOutcome(pruned, changed=True, statistics=statistics, notes=tuple(notes))


def _choose(
    model: Model,
    example: Example,
    groups: Sequence[Group],
    params: Prune,
    round_to: int,
    context: StepContext,
) -> dict[str, list[int]]:
    """Layer to the channels that stay."""
    from lepton_compress.compress import channels

    if params.ratio is not None:
        return channels.choose(groups, params.ratio, params.scope, round_to)
    budget = params.to
    if budget is None:  # excluded by the parameters' own check
        raise InputError("needs a target", where="prune")
    with context.observer.work("searching", None) as progress:
        return channels.search(
            model.value,
            example,
            groups,
            scope=params.scope,
            round_to=round_to,
            measure="macs" if budget.macs is not None else "parameters",
            share=budget.macs or budget.parameters or 1.0,
            progress=progress,
        )
