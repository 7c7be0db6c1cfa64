"""Training as steps and reference models use it: one loop, seeded, and repeatable bit for bit on
the same machine and number of threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from lepton_compress.artifacts import Observer, Split
from lepton_compress.compress.loop import Loop, Setting
from lepton_compress.compress.losses import task_loss
from lepton_compress.compress.schedule import Schedule, deterministic

if TYPE_CHECKING:
    from lepton_compress.compress.schedule import Loss

__all__ = ["Loss", "Schedule", "Setting", "deterministic", "task_loss", "train"]


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
