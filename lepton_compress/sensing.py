"""How much each group of a model matters: each is pruned alone, and the loss is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress import branches, registry
from lepton_compress.artifacts import Json, Observer, StepContext
from lepton_compress.branches import Branches, Node
from lepton_compress.compress.prune import Prune
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.job import Job, check_model, open_job
from lepton_compress.overviews import GroupSensitivity, Sensitivities
from lepton_compress.recipe import read
from lepton_compress.store import Store

if TYPE_CHECKING:
    from lepton_compress.artifacts import Model

PRUNE = "prune"


def sensitivity(
    recipe: str | Path,
    *,
    variant: str | None = None,
    ratios: Sequence[float] = (0.25, 0.5, 0.75),
    metric: str | None = None,
    samples: int = 512,
    workspace: str | Path = ".lepton",
    trust_pickle: bool = False,
    observer: Observer,
) -> Sensitivities:
    """Prune each group alone at several ratios and evaluate what is left.

    Args:
        variant: whose step `prune` says how channels are rated and which are kept, and whose steps
            before it are carried out first; by default the first with such a step, else the model
            as it is.
        ratios: shares of its channels that a group loses, above 0 and below 1.
        metric: one of the recipe's; the first by default.
        samples: at most so many of the train split, or of the calibration split where that has
            next to none.

    Raises:
        UserError: the recipe cannot be used, or the model has nothing to prune.
    """
    if not ratios or not all(0 < each < 1 for each in ratios):
        raise RecipeError("ratios are above 0 and below 1", where="sensitivity: --ratios")
    job = open_job(read(Path(recipe)), trust_pickle=trust_pickle)
    store = Store(Path(workspace))
    name, node, params = _start(job, variant)
    if node.form != "module":
        raise InputError(
            "channels are pruned in torch modules, and the model is none",
            where=job.source.where("model"),
            mend="give the model as a Python factory",
        )
    tree = Branches(job, store, observer)
    plugin = registry.get("step", PRUNE)
    context, title = _with_metric(job, tree.context(node, plugin.function), metric)

    def build() -> Json:
        check_model(job, store)
        return _measured(tree.model(node), params, context, sorted(set(ratios)), samples)

    about = {
        "parameters": params.model_dump(mode="json", include={"importance", "keep"}),
        "round_to": _round_to(params, context),
        "ratios": sorted(set(ratios)),
        "samples": samples,
        "metric": context.metric_mark,
    }
    held = context.remembered("sensitivity of groups", about, build)
    groups = (
        GroupSensitivity(each["layer"], each["width"], tuple(each["widths"]), tuple(each["drops"]))
        for each in held["curves"]
    )
    return Sensitivities(
        recipe=job.recipe.name,
        variant=name,
        metric=title,
        judged_by=held["judged_by"],
        judged_on=held["judged_on"],
        reached=held["reached"],
        share=held["share"],
        groups=tuple(groups),
        notes=tuple(held["notes"]),
    )


def _start(job: Job, variant: str | None) -> tuple[str, Node, Prune]:
    """The variant's name, the model that its first `prune` is given, and that step."""
    variants = job.recipe.variants
    if variant is not None and variant not in variants:
        raise RecipeError(
            f"the recipe has no variant {variant!r}",
            where="sensitivity: --variant",
            mend=registry.nearest(variant, list(variants)),
        )
    planned = branches.plan(job)
    for name in variants if variant is None else [variant]:
        for node in planned[name].path():
            if node.step is not None and node.step.name == PRUNE and node.parent is not None:
                params = node.step.bound()
                assert isinstance(params, Prune)  # noqa: S101 - of a step of that name
                return name, node.parent, params
    if variant is not None:
        raise RecipeError(
            f"the variant {variant!r} has no step {PRUNE}",
            where="sensitivity: --variant",
            mend="name another, or none",
        )
    return "", next(planned["baseline"].path()), Prune(ratio="50 %")


def _with_metric(job: Job, context: StepContext, asked: str | None) -> tuple[StepContext, str]:
    """The context with the metric that is asked for."""
    names = [each.name for each in job.metrics]
    if asked is None:
        return context, names[0]
    if asked not in names:
        raise RecipeError(
            f"the recipe has no metric {asked!r}",
            where="sensitivity: --metric",
            mend=registry.nearest(asked, names),
        )
    found = job.metrics[names.index(asked)]

    def measure(outputs: Any, targets: Any) -> Any:
        return found.measure(job.around.finish(outputs), targets)

    mark = found.mark + job.around.mark
    return dataclasses.replace(context, metric=measure, metric_mark=mark), asked


def _round_to(params: Prune, context: StepContext) -> int:
    return context.multiple if params.round_to == "auto" else params.round_to


def _measured(
    model: Model, params: Prune, context: StepContext, ratios: Sequence[float], samples: int
) -> Json:
    from lepton_compress.compress import pruning, pruning_sensitivity

    narrowing, notes = pruning.grouped(model, params, context)
    if not narrowing.groups:
        said = "; ".join(notes) or "there is none"
        raise InputError(f"no layer has channels that can be removed ({said})", where="model")
    found = pruning.sensitivity(narrowing, context, ratios, samples)
    return {
        "curves": pruning_sensitivity.as_json(found.curves),
        "judged_by": found.judged_by,
        "judged_on": found.judged_on,
        "reached": found.reached,
        "share": found.share,
        "notes": notes,
    }
