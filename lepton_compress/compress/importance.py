"""How important each channel, head or hidden unit of a group is.

A criterion gives one value a channel for each part of a group. Where a group has several parts,
which keep equally many channels each, the most important channel of every part goes first, and the
group's values are the sums of theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lepton_compress.compress.cutting import NORMS
from lepton_compress.compress.groups import Group, Member, Part

Criterion = Callable[[Part], Tensor | None]
"""From a part to one value a channel of its own, not negative; None where it has no say."""


def magnitude(module: nn.Module, power: int) -> Criterion:
    """The sum of `|w|^power` over all weights that make, scale or read a channel: its L1 norm, or
    its squared L2 norm (Li et al., "Pruning Filters for Efficient ConvNets", 2017, for a layer;
    Fang et al., "DepGraph", 2023, for a group)."""
    trained = {id(each) for each in module.parameters()}

    def criterion(part: Part) -> Tensor | None:
        known = [
            m for m in part.members if "bias" not in m.tensor and id(_held(module, m)) in trained
        ]
        return over(known, lambda m: _held(module, m).abs() ** power) if known else None

    return criterion


def batch_norm(module: nn.Module) -> Criterion:
    """The mean of `|scale|` over the batch normalisations that a channel passes (Liu et al.,
    "Learning Efficient Convolutional Networks through Network Slimming", 2017)."""

    def criterion(part: Part) -> Tensor | None:
        known = [
            member
            for member in part.members
            if isinstance(module.get_submodule(member.layer), NORMS) and member.tensor == "weight"
        ]
        return over(known, lambda m: _held(module, m).abs()) / len(known) if known else None

    return criterion


def rate(
    groups: Sequence[Group], criterion: Criterion, *, without: str, relative: bool = True
) -> tuple[list[Group], dict[str, str]]:
    """Groups with their importance, and layer to why for those that get none.

    Args:
        relative: divide by the group's mean, so that groups of different layers compare.
        without: why a group has no importance where the criterion says nothing of it.
    """
    rated, faults = [], {}
    for group in groups:
        parts, total = [], torch.zeros(group.width, dtype=torch.float64)
        for part in group.parts:
            values = criterion(part)
            if values is None or not bool(torch.isfinite(values).all()):
                faults[group.layer] = without
                break
            order = list(range(group.width))
            if len(group.parts) > 1:
                order.sort(key=lambda at, v=values: (-float(v[at]), at))  # type: ignore[misc]
            parts.append(dataclasses.replace(part, order=tuple(order)))
            total += values[order]
        else:
            mean = float(total.mean()) if relative else 1.0
            values = total / mean if mean else total
            held = tuple(float(value) for value in values)
            rated.append(dataclasses.replace(group, importance=held, parts=tuple(parts)))
    return rated, faults


def over(members: Sequence[Member], values: Callable[[Member], Tensor]) -> Tensor:
    """By channel, the sum of values at the places of all members; `values` gives a tensor of the
    axes of the member's own, as long as it along the member's axis."""
    total = torch.zeros(len(members[0].places), dtype=torch.float64)
    for member in members:
        along = values(member).detach().double().movedim(member.axis, 0)
        sums = along.reshape(len(along), -1).sum(1)
        places = [place for each in member.places for place in each]
        channels = [at for at, each in enumerate(member.places) for _ in each]
        total.index_add_(0, torch.tensor(channels), sums[torch.tensor(places, dtype=torch.long)])
    return total


def _held(module: nn.Module, member: Member) -> Tensor:
    held: Any = getattr(module.get_submodule(member.layer), member.tensor)
    return torch.as_tensor(held)
