"""Training as steps and reference models use it: one loop, seeded, and repeatable bit for bit on
the same machine and number of threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.artifacts import Model, Observer, Split
from lepton_compress.compress.loop import Loop, Setting
from lepton_compress.compress.losses import task_loss
from lepton_compress.compress.schedule import Schedule, deterministic
from lepton_compress.errors import InputError
from lepton_compress.load.forms import flatten

if TYPE_CHECKING:
    from lepton_compress.compress.schedule import Loss

__all__ = ["Loss", "Schedule", "Setting", "deterministic", "distillation", "task_loss", "train"]


def train(
    module: nn.Module,
    split: Split,
    loss: Loss,
    schedule: Schedule,
    *,
    observer: Observer,
    label: str,
    told: Callable[[float], None] | None = None,
    setting: Setting | None = None,
) -> dict[str, Any]:
    """Train a module in place and leave it ready for inference; returns statistics.

    Under `accelerate launch` every process calls this with the same arguments: each takes its part
    of every batch, all end with the same weights, and the first alone writes checkpoints.

    Args:
        module: takes the split's inputs by name.
        split: inputs (samples, ...) and, if the loss wants them, targets (samples, ...).
        loss: from (outputs, batch of inputs, batch of targets or None) to a scalar.
        told: is given, before each update, the share of the training that is done.
        setting: the metric that judges epochs, the folder of checkpoints, what to train alone.

    Raises:
        LeptonError: the loss is no longer finite.
        InputError: there are too few samples for one batch, the loss does not suit them, or the
            device does not compute in the precision.
    """
    given = setting or Setting()
    if told is not None:
        given = replace(given, told=told)
    return Loop(module, split, loss, schedule, given, observer, label).run()


def distillation(
    teacher: Model, temperature: float, share: float, targets: Any | None, *, where: str
) -> tuple[Loss, tuple[str, ...]]:
    """The loss against a teacher's outputs (Hinton, Vinyals and Dean, 2015), and notes.

    Class scores are compared softened by the temperature, with the gradient's scale kept; other
    outputs by their mean squared difference.

    Args:
        temperature: what class scores are divided by.
        share: of the loss that comes from the labels, if there are any.
        targets: of the train split; whole numbers say that outputs are class scores.
        where: the step, to name in errors.

    Raises:
        InputError: the teacher is no torch module.
    """
    if teacher.form != "module":
        raise InputError("the teacher is not a torch module", where=where)
    notes: tuple[str, ...] = ()
    if targets is None and share:
        share, notes = 0.0, ("the train split has no targets: distilled from the teacher alone",)
    classes = targets is not None and targets.dtype.kind in "biu"

    def loss(outputs: list[Tensor], batch: dict[str, Tensor], wanted: Tensor | None) -> Tensor:
        with torch.no_grad():
            taught = flatten(teacher.value(**batch))
        learnt = torch.stack(
            [
                _distance(mine, theirs, temperature, classes=classes)
                for mine, theirs in zip(outputs, taught, strict=True)
            ]
        ).mean()
        if wanted is None or not share:
            return learnt
        return (1 - share) * learnt + share * task_loss(outputs, wanted)

    return loss, notes


def _distance(mine: Tensor, theirs: Tensor, temperature: float, *, classes: bool) -> Tensor:
    if mine.ndim < 2 or mine.shape[1] == 1 or not classes:
        return functional.mse_loss(mine, theirs)
    soft = functional.kl_div(
        functional.log_softmax(mine / temperature, dim=1),
        functional.log_softmax(theirs / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return soft * temperature**2
