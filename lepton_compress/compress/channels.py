"""Structured pruning: groups of coupled channels, heads and hidden units, and their removal.

Layers whose channels are tied by additions, concatenations or depthwise convolutions form one
group and lose the same channels (Fang et al., "DepGraph", 2023); torch-pruning finds the groups
(`tracing`), attention is divided into heads (`heads`), and each group is tried on a copy before it
is trusted (`trying`): where removing channels breaks the forward pass, changes the outputs' shape
or computes something else, the group is left whole and a note says so.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lepton_compress.compress import heads, importance, tracing
from lepton_compress.compress.cutting import cut
from lepton_compress.compress.groups import Group, choose
from lepton_compress.compress.tracing import Candidate, tensors
from lepton_compress.compress.trying import ANSWER, Trial
from lepton_compress.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    Example = Mapping[str, np.ndarray]

__all__ = ["Group", "apply", "choose", "cost", "find_groups"]


def cost(module: nn.Module, example: Example) -> dict[str, int]:
    """Multiply-accumulates of one sample, and parameters."""
    batch = len(next(iter(example.values())))
    with _countable(), FlopCounterMode(display=False) as counter, torch.no_grad():
        module(**tensors(example))
    parameters = sum(each.numel() for each in module.parameters())
    return {"macs": counter.get_total_flops() // 2 // batch, "parameters": parameters}


@contextmanager
def _countable() -> Iterator[None]:
    """Without the fused kernels whose products the counter does not see."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the flags warn of settings that are not touched
            with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def find_groups(
    module: nn.Module, example: Example, keep: set[str]
) -> tuple[list[Group], list[str]]:
    """The groups that can be pruned, rated by the magnitude of their weights, and notes on those
    that cannot.

    Raises:
        InputError: the model cannot be traced, or `keep` names no layer.
    """
    unknown = keep - {name for name, _ in module.named_modules()}
    if unknown:
        raise InputError(f"the model has no layer {sorted(unknown)[0]!r}", where="prune: keep")
    trial = Trial(module, example)
    traced = [each for each in tracing.candidates(module, example) if each.group.width > 1]
    packed = [each for each in heads.packed(module) if not each.layers & keep]
    found = {each.layer: each for each in _sound(trial, packed)}
    claimed = _places(found.values())
    plain = [c for c in traced if not c.layers & keep and not _places([c.group]) & claimed]
    faults = {each.group.layer: each.fault or _unread(each.group) for each in plain}
    faults = {layer: why for layer, why in faults.items() if why}
    faults |= trial.faults([each.group for each in plain if each.group.layer not in faults])
    for each in plain:
        layer = each.group.layer
        if layer in faults and faults[layer] != ANSWER and not each.fault:
            mended = _sound(trial, [*heads.in_blocks(module, each), each])
            found |= {group.layer: group for group in mended}
        if layer in found:
            faults.pop(layer, None)
        elif layer not in faults:
            found[layer] = each.group
    faults |= trial.faults(list(found.values()))
    groups = [each for each in found.values() if each.layer not in faults]
    criterion = importance.magnitude(module, 2)
    rated, unrated = importance.rate(groups, criterion, without="its weights give no importance")
    faults |= unrated
    notes = [f"{layer} is not pruned: {why}" for layer, why in faults.items() if why != ANSWER]
    order = {name: index for index, (name, _) in enumerate(module.named_modules())}
    return sorted(rated, key=lambda group: order[group.layer]), notes


def saved(
    module: nn.Module,
    example: Example,
    groups: Sequence[Group],
    kept: Mapping[str, Sequence[int]],
) -> dict[str, dict[str, Any]]:
    """Layer to its kind, its width before and after, and what the model would save by it alone."""
    whole = cost(module, example)
    made: dict[str, dict[str, Any]] = {}
    for group in groups:
        width = [group.width, len(kept[group.layer])]
        trial = copy.deepcopy(module)
        cut(trial, [group], kept)
        left = cost(trial, example) if width[0] != width[1] else whole
        made[group.layer] = {
            "kind": group.kind,
            "width": width,
            **{f"{name}_saved": whole[name] - left[name] for name in whole},
        }
    return made


def _sound(trial: Trial, candidates: Sequence[Candidate]) -> list[Group]:
    """Of the candidates for each layer the first that is sound as it is, or with numbers of its
    modules that follow its width."""
    found: dict[str, Group] = {}
    for each in candidates:
        group = each.group
        if group.layer in found:
            continue
        made = trial.counted(group) if trial.fault([group]) else group
        if made is not None:
            found[group.layer] = made
    return list(found.values())


def _unread(group: Group) -> str:
    """Why channels that no layer reads stay."""
    read = all(any(member.takes for member in part.members) for part in group.parts)
    return "" if read else ANSWER


def _places(groups: Iterable[Group]) -> set[tuple[str, str, int, int]]:
    """Every place that goes with some channel of the groups."""
    return {
        (member.layer, member.tensor, member.axis, place)
        for group in groups
        for member in group.members()
        for places in member.places
        for place in places
    }


def apply(
    module: nn.Module, _: Example, groups: Sequence[Group], kept: Mapping[str, Sequence[int]]
) -> None:
    """Remove every channel that is not kept, in place."""
    cut(module, groups, kept)
