"""Batch normalisation's running statistics, estimated again after training.

The moving average that training leaves belongs to weights of many updates ago; statistics of the
last weights over many batches are what inference should use ("precise batch norm": Wu and Johnson,
"Rethinking 'Batch' in BatchNorm", 2021). It helps most where training was short and the weights
have changed a lot, as after pruning.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCHES = 200
"""More change the estimate no more (there, figure 3)."""


def layers(module: nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics."""
    return [
        each
        for each in module.modules()
        if isinstance(each, _BatchNorm) and each.running_mean is not None
    ]


def statistics(module: nn.Module) -> list[torch.Tensor]:
    """Copies of all running statistics, to put back with `restore`."""
    return [tensor.clone() for each in layers(module) for tensor in each.buffers(recurse=False)]


def restore(module: nn.Module, kept: list[torch.Tensor]) -> None:
    """Put back what `statistics` gave."""
    held = (tensor for each in layers(module) for tensor in each.buffers(recurse=False))
    for tensor, before in zip(held, kept, strict=True):
        tensor.copy_(before)


@torch.no_grad()
def reestimate(module: nn.Module, batches: Iterable[dict[str, torch.Tensor]]) -> int:
    """Replace running statistics by the mean over batches; returns how many were seen.

    Everything else is in inference meanwhile, so that nothing random takes part.

    Args:
        batches: inputs by name, each (samples, ...); at most `BATCHES` are used.
    """
    found = layers(module)
    momenta = [each.momentum for each in found]
    module.eval()
    seen = 0
    try:
        for each in found:
            each.reset_running_stats()
            each.momentum = None  # torch's word for the plain mean
            each.train()
        for batch in batches:
            module(**batch)
            seen += 1
            if seen == BATCHES:
                break
    finally:
        for each, momentum in zip(found, momenta, strict=True):
            each.momentum = momentum
            each.eval()
    return seen
