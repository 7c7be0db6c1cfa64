"""The training loop that steps and reference models share: seeded, and repeatable bit for bit on
the same machine and number of threads."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.artifacts import Observer, Split
from lepton_compress.errors import InputError, LeptonError
from lepton_compress.load.forms import flatten

if TYPE_CHECKING:
    import numpy as np

    Loss = Callable[[list[Tensor], dict[str, Tensor], Tensor | None], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How to train: AdamW, a linear warm-up over the first `warmup` share of the steps, then a
    cosine down to zero (Loshchilov and Hutter, 2017)."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip: float = 5.0


@contextlib.contextmanager
def deterministic(seed: int, threads: int) -> Iterator[None]:
    """Make torch repeat itself inside, and leave its settings as they were."""
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)  # the number of threads decides the order of sums
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(before)


def train(
    module: nn.Module,
    split: Split,
    loss: Loss,
    schedule: Schedule,
    *,
    observer: Observer,
    label: str,
    told: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Train a module in place and leave it ready for inference; returns statistics.

    Args:
        module: takes the split's inputs by name.
        split: inputs (samples, ...) and, if the loss wants them, targets (samples, ...).
        loss: from (outputs, batch of inputs, batch of targets or None) to a scalar.
        told: is given, before each update, the share of the training that is done.

    Raises:
        LeptonError: the loss is no longer finite.
        InputError: there are too few samples for one batch.
    """
    inputs = {name: torch.from_numpy(_owned(array)) for name, array in split.inputs.items()}
    targets = None if split.targets is None else torch.from_numpy(_owned(split.targets))
    count = len(split)
    if count < 2:
        raise InputError("training needs at least two samples", where="data: train")
    size = min(schedule.batch_size, count)
    steps = math.ceil(count / size) * schedule.epochs
    trained = [each for each in module.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(steps, schedule.warmup))
    losses: list[float] = []
    done = 0
    module.train()
    with observer.work(label, steps) as progress:
        for epoch in range(schedule.epochs):
            total = 0.0
            for rows in torch.split(torch.randperm(count), size):
                if len(rows) == 1 and count > 1:
                    continue  # batch normalisation has no variance over one sample
                if told is not None:
                    told(done / steps)
                done += 1
                batch = {name: tensor[rows] for name, tensor in inputs.items()}
                wanted = None if targets is None else targets[rows]
                value = _loss_of(loss, flatten(module(**batch)), batch, wanted)
                if not torch.isfinite(value):
                    raise LeptonError(
                        f"the loss became {value.item()} in epoch {epoch + 1}",
                        where=label,
                        mend="lower learning_rate",
                    )
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(trained, schedule.clip)
                optimizer.step()
                scheduler.step()
                total += value.item() * len(rows)
                progress.advance(note=f"loss {value.item():.4f}")
            losses.append(total / count)
    module.eval()
    return {"epochs": schedule.epochs, "steps": steps, "loss": [losses[0], losses[-1]]}


def _loss_of(
    loss: Loss, outputs: list[Tensor], batch: dict[str, Tensor], targets: Tensor | None
) -> Tensor:
    try:
        return loss(outputs, batch, targets)
    except (RuntimeError, IndexError, ValueError) as error:  # torch's, on shapes and labels
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the loss of the outputs {[list(each.shape) for each in outputs]} against the "
            f"targets {None if targets is None else list(targets.shape)} fails: {said}",
            where="data: train",
            mend="check the targets' shape, type and range against the model's first output",
        ) from error


def task_loss(outputs: list[Tensor], targets: Tensor | None) -> Tensor:
    """The loss of the task, told by the targets' type and the first output's shape: cross-entropy
    for whole numbers against several scores, binary cross-entropy against one, else mean squared
    error."""
    if targets is None:
        raise InputError("the train split has no targets", where="data: train", mend="use distil")
    first = outputs[0]
    if targets.is_floating_point():
        return functional.mse_loss(first, targets.to(first.dtype).reshape(first.shape))
    if first.ndim == 1 or first.shape[1] == 1:
        if not bool(((first >= 0) & (first <= 1)).all()):
            raise InputError(
                "the model's single score is no probability",
                where="model",
                mend="end its forward() with a sigmoid",
            )
        return functional.binary_cross_entropy(
            first.reshape(-1), targets.reshape(-1).to(first.dtype)
        )
    return functional.cross_entropy(first, targets.long())


def _owned(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable else array.copy()


def _cosine(steps: int, warmup: float) -> Callable[[int], float]:
    rising = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return factor
