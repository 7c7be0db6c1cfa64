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
        description="`global`: layers compete, by importance relative to their own mean; "
        "`local`: every layer gives the same share.",
    )
    round_to: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="Widths are kept at multiples of this, which vector units like."
    )
    keep: list[str] = Field([], description="Names of layers that must not be pruned.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.to is None) == (self.ratio is None):
            raise ValueError("give either to or ratio")
        if self.ratio is not None and self.ratio >= 1:
            raise ValueError("ratio: 100 % would remove whole layers")
        return self


@plugin("step", "prune", Prune, form="module", prunes=True)
def prune(model: Model, params: Prune, context: StepContext) -> StepOutcome:
    """Removes whole channels, the least important ones by weight magnitude of their group."""
    from lepton_compress.compress import channels
    from lepton_compress.compress.training import deterministic

    names = [spec.name for spec in model.inputs]
    example = next(context.data.calibration.named(names).batches(2))
    with deterministic(context.seed, context.threads):
        before = channels.cost(model.value, example)
        groups, notes = channels.find_groups(model.value, example, set(params.keep))
        kept = _choose(model, example, groups, params, context) if groups else {}
    if not groups:
        reason = "no layer has channels that can be removed"
        return StepOutcome(model, changed=False, notes=(reason, *notes))
    removed = [group for group in groups if len(kept[group.layer]) < group.width]
    if not removed:
        reason = f"nothing to remove: no layer is wider than round_to={params.round_to} allows"
        return StepOutcome(model, changed=False, notes=(reason, *notes))
    pruned = duplicate(model)
    channels.apply(pruned.value, example, groups, kept)
    after = channels.cost(pruned.value, example)
    statistics = {
        "macs": [before["macs"], after["macs"]],
        "parameters": [before["parameters"], after["parameters"]],
        "channels": {group.layer: [group.width, len(kept[group.layer])] for group in groups},
    }
    return StepOutcome(pruned, changed=True, statistics=statistics, notes=tuple(notes))


def _choose(
    model: Model,
    example: Example,
    groups: Sequence[Group],
    params: Prune,
    context: StepContext,
) -> dict[str, list[int]]:
    """Layer to the channels that stay."""
    from lepton_compress.compress import channels

    if params.ratio is not None:
        return channels.choose(groups, params.ratio, params.scope, params.round_to)
    budget = params.to
    if budget is None:  # excluded by the parameters' own check
        raise InputError("needs a target", where="prune")
    with context.observer.work("searching", None) as progress:
        return channels.search(
            model.value,
            example,
            groups,
            scope=params.scope,
            round_to=params.round_to,
            measure="macs" if budget.macs is not None else "parameters",
            share=budget.macs or budget.parameters or 1.0,
            progress=progress,
        )
