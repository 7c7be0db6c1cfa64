"""Pruned, distilled and in int8, against the float original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.pruning.against import RATE, RATES, graph_of, timed
from benchmarks.trained import about, applied, fewer, model_of, right

if TYPE_CHECKING:
    from benchmarks.tasks import Task

BUDGET = {"bytes": "0.6x"}
"""With weights in a quarter of the bytes, more than six times smaller."""
TRAINING = {"epochs": 6, "batch_size": 32}
SAMPLES = 4000


def cell(name: str, task: Task, seeds: Sequence[int]) -> dict[str, Any]:
    """Accuracy, latency and size of the original and of what the steps make of it."""
    original = model_of(task.network, task)
    narrow = applied("prune", original, task.data, original, 0, to=BUDGET)
    given = {**TRAINING, "learning_rate": RATES.get(name, RATE)}
    graphs = []
    for seed in seeds:
        data = fewer(task.data, SAMPLES, seed)
        taught = applied("distil", narrow, data, original, seed, **given)
        graphs.append(applied("quantize", graph_of(taught, task), data, original, seed))
    whole = graph_of(original, task)
    base = right(whole, task.data.evaluation)
    outcomes = np.array([right(each, task.data.evaluation) for each in graphs])
    times = timed({"original": whole, "small": graphs[0]}, task, "original")
    return {
        "original": {"accuracy": float(base.mean()), **times["original"]},
        "small": {**about(outcomes, np.tile(base, (len(seeds), 1))), **times["small"]},
    }
