"""What the training scripts of the reference models share: the project's own loop, seeded, on two
threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load_file, save_file
from torch import nn

from lepton_compress.artifacts import Split
from lepton_compress.compress.training import Schedule, deterministic, task_loss, train
from lepton_compress.load.forms import flatten
from lepton_compress.report.silent import Silent

if TYPE_CHECKING:
    from lepton_compress.compress.training import Loss

THREADS = 2
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Trained:
    """A network, ready for inference, and the seconds its training took."""

    module: nn.Module
    seconds: float


def fit(
    make: Callable[[], nn.Module],
    split: Split,
    schedule: Schedule,
    *,
    label: str,
    seed: int = 0,
    loss: Loss = lambda outputs, _, targets: task_loss(outputs, targets),
) -> Trained:
    """Make a network and train it from scratch, with the same result each time on a machine.

    Args:
        make: gives the network; its first weights are drawn from the seed.
        split: inputs by the names that forward() has, and targets.
        label: for the log.
        loss: as `lepton_compress.compress.training.train` takes it; by default the task's.
    """
    start = time.perf_counter()
    with deterministic(seed, THREADS):
        module = make()
        train(module, split, loss, schedule, observer=Silent(), label=label)
    return Trained(module, time.perf_counter() - start)


def pictures(raw: np.ndarray, *, mean: ArrayLike = 0.0, std: ArrayLike = 1.0) -> np.ndarray:
    """Pictures (samples, height, width, channels) uint8 as a network takes them: float32, the
    channels first, from 0 to 1, then less the mean and divided by the deviation."""
    # In place, as a training set of pictures is large.
    made = raw.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    made /= 255
    # One number, or one a channel.
    made -= np.asarray(mean, np.float32).reshape(-1, 1, 1)
    made /= np.asarray(std, np.float32).reshape(-1, 1, 1)
    return made


def answers(module: nn.Module, inputs: Mapping[str, np.ndarray], *, batch: int = 64) -> np.ndarray:
    """The first output for samples of any number, (samples, ...)."""
    count = len(next(iter(inputs.values())))
    made = []
    with deterministic(0, THREADS), torch.no_grad():
        for start in range(0, count, batch):
            given = {name: array[start : start + batch] for name, array in inputs.items()}
            feeds = {name: torch.from_numpy(array.copy()) for name, array in given.items()}
            made.append(flatten(module(**feeds))[0].numpy())
    return np.concatenate(made)


def save(module: nn.Module, folder: Path, name: str = WEIGHTS) -> int:
    """Write the weights of a network into a folder, as float32 safetensors; returns bytes."""
    state = {key: tensor.contiguous() for key, tensor in module.state_dict().items()}
    save_file(state, folder / name)
    return (folder / name).stat().st_size


def restored(module: nn.Module, folder: Path, name: str = WEIGHTS) -> nn.Module:
    """A network with the weights of a folder, ready for inference."""
    module.load_state_dict(load_file(folder / name))
    return module.eval()
