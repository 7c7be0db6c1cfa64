"""A training as a step of the pipeline does it: its data, metric, seed and checkpoints."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Model, StepContext
from lepton_compress.compress import losses
from lepton_compress.compress.loop import Loop, Setting
from lepton_compress.compress.params import Supervised, Training
from lepton_compress.compress.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from lepton_compress.compress.schedule import Loss


def fit(
    module: nn.Module,
    model: Model,
    loss: Loss,
    params: Training,
    context: StepContext,
    *,
    stage: str = "training",
    told: Callable[[float], None] | None = None,
    part: str = "",
    keep: bool = False,
) -> dict[str, Any]:
    """Train a module in place on the train split; returns statistics.

    To be called inside `deterministic`.

    Args:
        module: what is trained: `model`'s own, or one that computes the same outputs.
        stage: its name, where a step trains more than once.
        told, part, keep: as `loop.Setting` has them.

    Raises:
        LeptonError, InputError: as `training.train`.
    """
    folder = context.checkpoints
    setting = Setting(
        told=told,
        metric=context.metric,
        names=model.outputs,
        folder=None if folder is None else folder / stage.replace(" ", "-"),
        part=part,
        keep=keep,
    )
    names = [spec.name for spec in model.inputs]
    split = context.data.train.named(names)
    return Loop(module, split, loss, schedule(params), setting, context.observer, stage).run()


def schedule(params: Training) -> Schedule:
    """The schedule that parameters ask for."""
    given = params.model_dump(include={each.name for each in fields(Schedule)})
    return Schedule(**given)


def loss_of(params: Supervised, model: Model, context: StepContext) -> Loss:
    """The loss that parameters ask for.

    Raises:
        InputError: the train split has no labels to compute it from, or there is no such function.
    """
    if params.loss in losses.LOSSES and context.data.train.targets is None:
        losses.labelled(None)
    return losses.named(params.loss, params.label_smoothing, model.outputs, context.folder)
