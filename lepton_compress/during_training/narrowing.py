"""Structured pruning of a module that is being trained: its parameters get smaller where they are,
and the optimiser's state with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lepton_compress.compress.cutting import cut
from lepton_compress.compress.groups import Group, removed

Stay = Mapping[int, Tensor]
"""Axis to the places along it that are left."""


def narrow(
    module: nn.Module,
    groups: Sequence[Group],
    kept: Mapping[str, Sequence[int]],
    optimizers: Sequence[Optimizer],
) -> list[str]:
    """Remove channels in place, and make the optimisers follow.

    Args:
        kept: group to its channels that stay.

    Returns:
        The names of the parameters that have become smaller.
    """
    before = dict(module.named_parameters(remove_duplicate=False))
    stay: dict[str, dict[int, Tensor]] = {}
    for (layer, tensor, axis), gone in removed(groups, kept).items():
        name = f"{layer}.{tensor}" if layer else tensor
        if name in before:
            size = before[name].shape[axis]
            left = [place for place in range(size) if place not in gone]
            stay.setdefault(name, {})[axis] = torch.tensor(left)
    cut(module, groups, kept)
    after = dict(module.named_parameters(remove_duplicate=False))
    for name in stay:
        after[name].requires_grad_(before[name].requires_grad)
    for optimizer in optimizers:
        _follow(optimizer, {before[name]: (after[name], stay[name]) for name in stay})
    return sorted(stay)


def _follow(optimizer: Any, exchanged: Mapping[nn.Parameter, tuple[nn.Parameter, Stay]]) -> None:
    """Let an optimiser train the new parameters, with what it knew of their entries."""
    while hasattr(optimizer, "optimizer"):  # accelerate wraps the one it was given
        optimizer = optimizer.optimizer
    for group in optimizer.param_groups:
        group["params"] = [
            exchanged[each][0] if each in exchanged else each for each in group["params"]
        ]
    for old, (new, stay) in exchanged.items():
        if old not in optimizer.state:
            continue
        held = optimizer.state.pop(old)
        arrays = {n: v for n, v in held.items() if isinstance(v, Tensor) and v.ndim}
        # Sums over rows and columns, as Adafactor keeps them, start anew.
        if all(value.shape == old.shape for value in arrays.values()):
            kept = {name: _kept(value, stay) for name, value in arrays.items()}
            optimizer.state[new] = {**held, **kept}


def _kept(value: Tensor, stay: Stay) -> Tensor:
    for axis, places in stay.items():
        value = value.index_select(axis, places.to(value.device))
    return value


@contextlib.contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """On the CPU and in inference inside, so that looking at it changes no statistics; as it was
    afterwards. Parameters stay the objects that they are."""
    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    modes = {each: each.training for each in module.modules()}
    module.cpu().eval()
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training
        module.to(device)
