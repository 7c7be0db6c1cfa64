"""Ours against the peer at its own latency.

The peer removes a share of the channels. Its net is exported and timed in turns with the original,
and `prune: {to: {latency: ...}}` is asked for that time. Both nets then
get the same training (step `finetune`, the same epochs, seeds and samples) and the same export.
What is told of them is of the trained artifacts: accuracy on the evaluation split, and latency in
one measurement with the original, in turns, each in a process of its own.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from benchmarks.pruning import peer
from benchmarks.trained import about, applied, fewer, model_of, outcome, right
from lepton_compress.artifacts import Model, Place
from lepton_compress.errors import InputError
from lepton_compress.export.lower import lower
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.measure import measure
from lepton_compress.profile.session import Limits
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.silent import Silent

if TYPE_CHECKING:
    from benchmarks.tasks import Task

RATIOS = (0.5, 0.75)
"""Of its channels that each layer loses with the peer; 0.5 is its README's."""
SHARES = (1.0,)
"""Of the peer's time that ours are asked for."""
SAMPLES = 2000
TRAINING = {"epochs": 4, "batch_size": 32}
RATES = {"sentiment_transformer": 3e-4}
RATE = 1e-3
SESSIONS = 3
SLOWEST = 0.98
"""Share of the original's time to ask for where the peer's net is no faster."""
HERE = Place("here", "onnxruntime-cpu", 1, 1)


def cell(
    name: str, task: Task, ratio: float, seeds: Sequence[int], memory: dict[str, Any]
) -> dict[str, Any]:
    """The peer at one ratio and ours at its latency: accuracy, latency, widths.

    Args:
        memory: of layers' times, the same dictionary for all cells of a model.
    """
    original = model_of(task.network, task)
    starts = {"torch-pruning": model_of(peer.pruned(task, ratio), task)}
    share = share_of(starts["torch-pruning"], original, task)
    told: dict[str, Any] = {"ratio": ratio, "share": share, "ways": {}}
    for part in SHARES:
        asked = min(share * part, SLOWEST)
        way = f"ours at {part:g}x"
        try:
            made = outcome(
                "prune",
                original,
                task.data,
                original,
                0,
                memory=memory,
                to={"latency": f"{asked:.4f}x"},
            )
        except InputError as error:
            told["ways"][way] = {"refused": str(error)}
            continue
        if made.unmet:
            told["ways"][way] = {"refused": made.unmet}
            continue
        starts[way] = made.model
        told["ways"][way] = {
            "asked": asked,
            "channels": made.statistics["channels"],
            "measured": made.statistics["latency"],  # by the step, before training
        }
    rate = RATES.get(name, RATE)
    given = {**TRAINING, "learning_rate": rate}
    trained = {way: tuned(each, task, original, seeds, given) for way, each in starts.items()}
    base = trained["torch-pruning"][1]
    whole = graph_of(original, task)
    times = timed(
        {"original": whole, **{way: graphs[0] for way, (graphs, _) in trained.items()}}, task
    )
    for way, (_, outcomes) in trained.items():
        told["ways"].setdefault(way, {}).update(about(outcomes, base), **times[way])
    told["original"] = {"accuracy": float(right(whole, task.data.evaluation).mean())}
    told["original"].update(times["original"])
    return told


def tuned(
    start: Model, task: Task, original: Model, seeds: Sequence[int], given: Mapping[str, Any]
) -> tuple[list[Model], np.ndarray]:
    """Trained and exported once a seed: the graphs, and which samples each has right, (seeds,
    samples)."""
    graphs = []
    for seed in seeds:
        data = fewer(task.data, SAMPLES, seed)
        graphs.append(graph_of(applied("finetune", start, data, original, seed, **given), task))
    return graphs, np.array([right(each, task.data.evaluation) for each in graphs])


def graph_of(model: Model, task: Task) -> Model:
    """As all are exported."""
    return lower(model, task.data.calibration)


def share_of(model: Model, original: Model, task: Task) -> float:
    """A net's share of the original's time, as the step `prune` measures its own."""
    from lepton_compress.compress.race import race

    graphs = {"whole": graph_of(original, task).value, "net": graph_of(model, task).value}
    one = {name: array[:1] for name, array in task.data.calibration.inputs.items()}
    sets = [race(graphs, one, HERE, cap=1.0, seed=number) for number in range(SESSIONS)]
    return statistics.median(each["net"].ratio for each in sets)


def timed(
    graphs: Mapping[str, Model], task: Task, baseline: str = "torch-pruning"
) -> dict[str, dict[str, Any]]:
    """Median latency in seconds, its ratio to the baseline's with the interval, and the bytes of
    the file."""
    with tempfile.TemporaryDirectory() as folder:
        subjects = []
        for number, (way, graph) in enumerate(graphs.items()):
            path = Path(folder) / f"{number}.onnx"
            onnx.save(graph.value, path)
            subjects.append(Subject(way, "onnx", path))
        profiles = measure(
            subjects,
            baseline=baseline,
            target=TargetSpec(name="here", runtime="onnxruntime-cpu", threads=1),
            inputs={name: array[:1] for name, array in task.data.calibration.inputs.items()},
            limits=Limits(),
            rounds=30,
            cap=10.0,
            seed=0,
            observer=Silent(),
        )
        return {
            each.candidate: {
                "seconds": each.latency["p50"],
                "latency": each.ratio,
                "latency_interval": each.ratio_interval,
                "noise": each.noise,
                "bytes": subject.path.stat().st_size,
            }
            for each, subject in zip(profiles, subjects, strict=True)
        }
