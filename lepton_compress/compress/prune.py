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
        description="`global`: layers compete, by importance relative to their own mean; "
        "`local`: every layer gives the same share; `sensitivity`: each is pruned alone first, "
        "and those give most that lose least (`lepton-compress sensitivity` draws it).",
    )
    round_to: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="Widths are kept at multiples of this, which vector units like."
    )
    keep: list[str] = Field([], description="Names of layers that must not be pruned.")

    @property
    def measured(self) -> bool:
        """Whether the target or the first metric has a say."""
        return self.scope == "sensitivity" or (self.to is not None and self.to.latency is not None)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.to is None) == (self.ratio is None):
            raise ValueError("give either to or ratio")
        if self.ratio is not None and self.ratio >= 1:
            raise ValueError("ratio: 100 % would remove whole layers")
        return self


def _requires(params: Prune, targets: Collection[str]) -> list[str]:
    asked = params.to.target if params.to is not None else None
    if asked is None or asked in targets:
        return []
    return [f"to: the recipe has no target {asked!r}; {nearest(asked, list(targets))}"]


@plugin("step", "prune", Prune, form="module", requires=_requires, measures=True)
def prune(model: Model, params: Prune, context: StepContext) -> StepOutcome:
    """Removes whole channels, the least important ones by weight magnitude of their group."""
    from lepton_compress.compress import channels, pruning
    from lepton_compress.compress.training import deterministic

    names = [spec.name for spec in model.inputs]
    example = next(context.data.calibration.named(names).batches(2))
    with deterministic(context.seed, context.threads):
        before = channels.cost(model.value, example)
        groups, notes = channels.find_groups(model.value, example, set(params.keep))
        if not groups:
            reason = "no layer has channels that can be removed"
            return StepOutcome(model, changed=False, notes=(reason, *notes))
        chosen = pruning.choose(model, example, groups, params, context)
    kept = chosen.kept
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
        **chosen.statistics,
    }
    said = (*chosen.notes, *notes)
    return StepOutcome(pruned, changed=True, statistics=statistics, notes=said, unmet=chosen.unmet)
