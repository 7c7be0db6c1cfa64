"""The peer: torch-pruning by the recipe of its README (section "High-level Pruners" of 1.6).

`BasePruner` with `GroupMagnitudeImportance(p=2)`, every layer the same share of its channels,
`round_to=8`, the classifier left whole. Its trained copy is taken as it comes; what its examples
tell a user of transformers to add, the number of heads, is added.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.tasks import Task

ROUND_TO = 8


def pruned(task: Task, ratio: float) -> Any:
    """A copy of the task's network with that share of its channels removed."""
    import torch
    import torch_pruning as tp

    network = copy.deepcopy(task.network)
    example = tuple(torch.from_numpy(each[:1]) for each in task.data.calibration.inputs.values())
    with warnings.catch_warnings():
        # A parameter beside any layer (position embeddings): its last dimension goes along.
        warnings.filterwarnings("ignore", "Unwrapped parameters", UserWarning)
        pruner = tp.pruner.BasePruner(
            network,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=[network.scores],
            round_to=ROUND_TO,
            num_heads=heads(network),
        )
        pruner.step()
    network.zero_grad()
    return network


def heads(network: Any) -> dict[Any, int]:
    """Attention's projections with their number of heads."""
    return {
        getattr(each, name): each.heads
        for each in network.modules()
        if hasattr(each, "heads")
        for name in ("query", "key", "value")
    }
