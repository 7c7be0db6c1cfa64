"""Structured pruning: groups of coupled channels, which of them to keep, and their removal.

Layers whose channels are tied by additions, concatenations or depthwise convolutions form one
group and lose the same channels (Fang et al., "DepGraph", 2023); torch-pruning finds the groups.
Each group is tried on a copy before it is trusted: where removing channels breaks the forward pass
or changes the outputs' shape, the group is left alone and a note says so.
"""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lepton_compress.artifacts import Progress
from lepton_compress.errors import InputError
from lepton_compress.load.forms import flatten

if TYPE_CHECKING:
    import numpy as np

    Example = Mapping[str, np.ndarray]

_ROOTS = (nn.Conv1d, nn.Conv2d, nn.Linear)
_SEARCH_STEPS = 24
_ANSWER = "its channels are the model's answer"
_CEILING = 0.9
"""No group loses more than this share under `global`, so that none becomes a bottleneck."""


@dataclass(frozen=True)
class Group:
    """Coupled channels, named by the layer that produces them.

    `importance` has one value a channel: the L2 norm of the weights that go with it, over all
    layers of the group (Li et al., 2017), divided by the group's mean.
    """

    layer: str
    width: int
    importance: tuple[float, ...]


def cost(module: nn.Module, example: Example) -> dict[str, int]:
    """Multiply-accumulates of one sample, and parameters."""
    batch = len(next(iter(example.values())))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(**_tensors(example))
    parameters = sum(each.numel() for each in module.parameters())
    return {"macs": counter.get_total_flops() // 2 // batch, "parameters": parameters}


def find_groups(
    module: nn.Module, example: Example, keep: set[str]
) -> tuple[list[Group], list[str]]:
    """The groups that can be pruned, and notes on those that cannot.

    Raises:
        InputError: the model cannot be traced, or `keep` names no layer.
    """
    unknown = keep - {name for name, _ in module.named_modules()}
    if unknown:
        raise InputError(f"the model has no layer {sorted(unknown)[0]!r}", where="prune: keep")
    scratch = copy.deepcopy(module)
    graph = _trace(scratch, example)
    names = {each: name for name, each in scratch.named_modules()}
    rate = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="mean")
    found, faults = {}, {}
    for group in graph.get_all_groups(root_module_types=list(_ROOTS), ignored_layers=[]):
        layer = names[group[0].dep.target.module]
        if not {names.get(dep.target.module) for dep, _ in group} & keep:
            found[layer] = group
            if not _fits(graph, group):
                faults[layer] = "a shortcut without weights changes the number of channels"
    faults |= _faults(module, example, [layer for layer in found if layer not in faults])
    groups, notes = [], []
    for layer, group in found.items():
        why = faults.get(layer, "")
        importance = None if why else rate(group)
        if not why and (importance is None or not bool(torch.isfinite(importance).all())):
            why = "its weights give no importance"
        if why and why != _ANSWER:
            notes.append(f"{layer} is not pruned: {why}")
        if importance is not None and not why:
            width = graph.get_out_channels(group[0].dep.target.module)
            groups.append(Group(layer, width, tuple(float(value) for value in importance)))
    return groups, notes


def choose(
    groups: Sequence[Group], ratio: float, scope: str, round_to: int
) -> dict[str, list[int]]:
    """Layer to the channels that stay when `ratio` of all (local: of each) channels go.

    Widths are rounded up to a multiple of `round_to`; ties go to the lower index.
    """
    if scope == "local":
        counts = {group.layer: group.width * (1 - ratio) for group in groups}
    else:
        ranked = sorted(value for group in groups for value in group.importance)
        cut = min(int(len(ranked) * ratio), len(ranked) - 1)
        threshold = ranked[cut]
        counts = {
            group.layer: max(
                sum(value >= threshold for value in group.importance),
                group.width * (1 - _CEILING),
            )
            for group in groups
        }
    kept = {}
    for group in groups:
        width = min(group.width, max(1, math.ceil(counts[group.layer] / round_to)) * round_to)
        best = sorted(range(group.width), key=lambda index, g=group: (-g.importance[index], index))  # type: ignore[misc]
        kept[group.layer] = sorted(best[:width])
    return kept


def search(
    module: nn.Module,
    example: Example,
    groups: Sequence[Group],
    *,
    scope: str,
    round_to: int,
    measure: str,
    share: float,
    progress: Progress,
) -> dict[str, list[int]]:
    """The least pruning that brings a cost down to a share of what it was.

    Raises:
        InputError: even the narrowest model allowed costs more; the reachable share is named.
    """
    whole = cost(module, example)[measure]

    def left(ratio: float) -> tuple[float, dict[str, list[int]]]:
        kept = choose(groups, ratio, scope, round_to)
        trial = copy.deepcopy(module)
        apply(trial, example, groups, kept)
        reached = cost(trial, example)[measure] / whole
        progress.advance(note=f"{measure} {reached:.2f}x")
        return reached, kept

    lowest, best = left(1.0)
    if lowest > share:
        raise InputError(
            f"{measure} cannot go below {lowest:.2f}x with round_to={round_to}",
            where="prune: to",
            mend="raise the target or lower round_to",
        )
    low, high = 0.0, 1.0
    for _ in range(_SEARCH_STEPS):
        middle = (low + high) / 2
        reached, kept = left(middle)
        if reached <= share:
            high, best = middle, kept
        else:
            low = middle
        if high - low < 1 / (2 * sum(group.width for group in groups)):
            break
    return best


def apply(
    module: nn.Module, example: Example, groups: Sequence[Group], kept: Mapping[str, list[int]]
) -> None:
    """Remove every channel that is not kept, in place."""
    graph = _trace(module, example)
    modules = dict(module.named_modules())
    for group in groups:
        gone = sorted(set(range(group.width)) - set(kept[group.layer]))
        if gone:
            _remove(graph, modules[group.layer], gone)


def _remove(graph: Any, layer: nn.Module, channels: list[int]) -> None:
    remover = graph.get_pruner_of_module(layer).prune_out_channels
    group = graph.get_pruning_group(layer, remover, idxs=channels)
    group.prune()


def _fits(graph: Any, group: Any) -> bool:
    """Whether every layer of a group has the channels that the group says it has.

    Where a forward() pads or cuts channels itself, the tracer loses count of them.
    """
    for dep, channels in group:
        layer = dep.target.module
        outward = graph.is_out_channel_pruning_fn(dep.pruning_fn)
        width = (graph.get_out_channels if outward else graph.get_in_channels)(layer)
        if width is not None and channels and max(channels) >= width:
            return False
    return True


def _faults(module: nn.Module, example: Example, layers: Sequence[str]) -> dict[str, str]:
    """Layer to why its channels cannot be removed, for those whose cannot.

    Most can, so halves are tried together: a few trials instead of one a layer.
    """
    wanted = _output_shapes(module, example)

    def search(some: Sequence[str]) -> dict[str, str]:
        why = _fault(module, example, some, wanted) if some else ""
        if not why:
            return {}
        if len(some) == 1:
            return {some[0]: why}
        middle = len(some) // 2
        found = search(some[:middle]) | search(some[middle:])
        # Each half runs alone, but not both together: one of them must stay whole.
        return found or dict.fromkeys(some[middle:], why)

    return search(layers)


def _fault(
    module: nn.Module, example: Example, layers: Sequence[str], wanted: list[torch.Size]
) -> str:
    """Why no channel of each of these layers can be removed together; "" if it can."""
    trial = copy.deepcopy(module)
    targets = dict(trial.named_modules())
    try:
        graph = _trace(trial, example)
        for layer in layers:
            _remove(graph, targets[layer], [0])
        shapes = _output_shapes(trial, example)
    except Exception as error:  # whatever the user's forward() raises on other widths
        lines = str(error).splitlines() or [type(error).__name__]
        return f"the model does not run without one of its channels ({lines[0]})"
    return "" if shapes == wanted else _ANSWER


def _output_shapes(module: nn.Module, example: Example) -> list[torch.Size]:
    with torch.no_grad():
        return [tensor.shape for tensor in flatten(module(**_tensors(example)))]


def _trace(module: nn.Module, example: Example) -> Any:
    with _quiet(), torch.enable_grad():
        try:
            return torch_pruning.DependencyGraph().build_dependency(module, _tensors(example))
        except Exception as error:  # tracing runs the user's code
            raise InputError(
                f"the model cannot be traced for pruning: {type(error).__name__}: {error}",
                where="prune",
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _tensors(example: Example) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in example.items()}
