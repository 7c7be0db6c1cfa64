"""Which channels the step `prune` keeps: by a ratio, by a budget, by what each group loses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lepton_compress.artifacts import Json, Model, StepContext
from lepton_compress.compress import channels, prune_to_latency, pruning_sensitivity, rating
from lepton_compress.compress.narrowing import Narrowing, search
from lepton_compress.compress.prune import Prune
from lepton_compress.compress.pruning_sensitivity import RATIOS, SAMPLES, Curve, Loss
from lepton_compress.compress.training import deterministic
from lepton_compress.compress.trial import Judge
from lepton_compress.compress.width_search import Widths, greedy, within

if TYPE_CHECKING:
    from lepton_compress.compress.channels import Example
    from lepton_compress.compress.groups import Group

Kept = Mapping[str, list[int]]


@dataclass(frozen=True)
class Chosen:
    """The channels that stay, and what the step has to tell of the choice."""

    kept: Kept
    statistics: dict[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unmet: str = ""


@dataclass(frozen=True)
class Sensitivity:
    """The curves of all groups.

    Attributes:
        judged_by: what a drop is of.
        judged_on: which samples.
        reached: of the whole model in the metric; None where there are no labels.
        share: whether drops are read in per cent.
    """

    curves: tuple[Curve, ...]
    judged_by: str
    judged_on: str
    reached: float | None
    share: bool


def choose(
    model: Model,
    example: Example,
    groups: Sequence[Group],
    round_to: int,
    params: Prune,
    context: StepContext,
) -> Chosen:
    """The channels to keep; none of no groups.

    Raises:
        InputError: the budget is out of reach, or cannot be measured.
    """
    if not groups:
        return Chosen({})
    narrowing = Narrowing(model, example, groups, round_to)
    loss: Callable[[str, int], float] = narrowing.lost
    statistics: dict[str, Json] = {}
    note: tuple[str, ...] = ()
    if params.scope == "sensitivity":
        found = sensitivity(narrowing, context)
        statistics = {"sensitivity": summary(found)}
        note = (f"sensitivity is {found.judged_by} on {found.judged_on}",)
        loss = Loss(narrowing, found.curves)
    if params.to is not None and params.to.latency is not None:
        made = prune_to_latency.search(narrowing, params.to, context, scope=params.scope, loss=loss)
        statistics |= {"latency": made.statistics}
        return Chosen(narrowing.kept(made.widths), statistics, (made.note, *note), made.unmet)
    if params.scope == "sensitivity":
        return Chosen(_along(narrowing, params, context, loss), statistics, note)
    if params.ratio is not None:
        held = narrowing.groups
        return Chosen(channels.choose(held, params.ratio, params.scope, narrowing.round_to))
    return Chosen(_within(narrowing, params, context))


def grouped(model: Model, params: Prune, context: StepContext) -> tuple[Narrowing, list[str]]:
    """What of a module can be pruned with such parameters, and notes on what cannot.

    Raises:
        InputError: it cannot be traced, or `keep` names no layer.
    """
    names = [spec.name for spec in model.inputs]
    example = next(context.data.calibration.named(names).batches(2))
    round_to = context.multiple if params.round_to == "auto" else params.round_to
    with deterministic(context.seed, context.threads):
        groups, notes = channels.find_groups(model.value, example, set(params.keep))
        groups, unrated = rating.rated(model, groups, params.importance, context)
    return Narrowing(model, example, groups, round_to), [*notes, *unrated]


def sensitivity(
    narrowing: Narrowing,
    context: StepContext,
    ratios: Sequence[float] = RATIOS,
    samples: int = SAMPLES,
) -> Sensitivity:
    """What pruning each group alone loses, measured now or before.

    Args:
        ratios: of its channels that a group loses.
        samples: at most so many, of the train split or else of the calibration split.
    """

    def build() -> Json:
        judge = Judge(
            narrowing.model,
            context.data,
            context.metric,
            samples=samples,
            threads=context.threads,
            observer=context.observer,
        )
        curves = pruning_sensitivity.measure(narrowing, judge, ratios, context.observer)
        return {
            "curves": pruning_sensitivity.as_json(curves),
            "judged_by": judge.measures,
            "judged_on": f"{judge.samples} samples of the {judge.source} split",
            "reached": judge.reached if judge.metric is not None else None,
            "share": judge.metric is None or (judge.higher and abs(judge.reached) <= 1),
        }

    about = {
        "groups": [[each.layer, list(each.importance)] for each in narrowing.groups],
        "round_to": narrowing.round_to,
        "ratios": list(ratios),
        "samples": samples,
        "metric": context.metric_mark,
    }
    held = context.remembered("sensitivity", about, build)
    curves = tuple(pruning_sensitivity.from_json(held["curves"]))
    about_it = (held[each] for each in ("judged_by", "judged_on", "reached", "share"))
    return Sensitivity(curves, *about_it)


def summary(found: Sensitivity) -> dict[str, Json]:
    """For a result: what each group loses at each width."""
    curves = {
        each.layer: {str(width): drop for width, drop in zip(each.widths, each.drops, strict=True)}
        for each in found.curves
    }
    return {"judged_by": found.judged_by, "judged_on": found.judged_on, "drops": curves}


def _within(narrowing: Narrowing, params: Prune, context: StepContext) -> Kept:
    """By importance alone, down to a budget that is counted."""
    assert params.to is not None  # noqa: S101 - there is a budget where there is no ratio
    # Between two ratios nearer than this no group changes by more than a channel.
    count = 2 * sum(group.width for group in narrowing.groups) + 1
    ratios = [float(each) for each in np.linspace(0, 1, count)]
    candidates = [
        functools.partial(
            channels.choose, narrowing.groups, ratio, params.scope, narrowing.round_to
        )
        for ratio in ratios
    ]
    with context.observer.work("searching", None) as progress:
        return search(narrowing, params.to.limit, candidates, progress)


def _along(
    narrowing: Narrowing,
    params: Prune,
    context: StepContext,
    loss: Callable[[str, int], float],
) -> Kept:
    """By what each group loses, down to a ratio or to a budget that is counted."""
    options = narrowing.options
    if params.ratio is not None:
        whole = sum(widths[-1] for widths in options.values())

        def share(widths: Widths) -> float:
            return sum(widths.values()) / whole

        path = greedy(options, loss, share)
        place, _ = within(path, share, 1 - params.ratio)
        return narrowing.kept(path[place])
    assert params.to is not None  # noqa: S101 - there is a budget where there is no ratio
    one = {name: array[:1] for name, array in narrowing.example.items()}
    sizes = narrowing.sizes(one)
    path = greedy({name: options[name] for name in sizes.whole}, loss, sizes.macs)
    candidates = [functools.partial(narrowing.kept, widths) for widths in path]
    with context.observer.work("searching", None) as progress:
        return search(narrowing, params.to.limit, candidates, progress)
