"""How a module is trained, and what makes a training repeat itself."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[list[Tensor], dict[str, Tensor], Tensor | None], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How to train: AdamW, a linear warm-up over the first `warmup` share of the steps, then a
    cosine down to zero (Loshchilov and Hutter, 2017).

    Attributes:
        epochs: passes over the training samples, at most.
        batch_size: samples between two updates, of all processes together.
        learning_rate: at its highest.
        clip: the largest norm of the gradient.
        precision: "auto", "float32", "bfloat16" or "float16", as `workers.Workers` takes it.
        validation: share of the samples that is held out, to judge each epoch by; 0 for none.
        patience: epochs without a better one after which training stops.
        batch_norm: "keep", "reestimate" or "auto", as `batch_norm.settle` takes it.
        checkpoint: seconds between two checkpoints.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip: float = 5.0
    precision: str = "auto"
    validation: float = 0.0
    patience: int = 10
    batch_norm: str = "auto"
    checkpoint: float = 60.0

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of an update, counted from 0."""
        rising = max(1, round(steps * self.warmup))
        if step < rising:
            return self.learning_rate * ((step + 1) / rising)
        falling = math.pi * (step - rising) / max(1, steps - rising)
        return self.learning_rate * (0.5 * (1 + math.cos(falling)))


@contextlib.contextmanager
def deterministic(seed: int, threads: int) -> Iterator[None]:
    """Make torch repeat itself inside, and leave its settings as they were."""
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    if torch.cuda.is_available():  # cuBLAS reads it once, and is random in its sums without
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)  # the number of threads decides the order of sums
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(before)
