"""Steps that train, as the pipeline runs them, on the reference models; and what came out beside
what another way made of the same seeds and samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.tasks import Task
from lepton_compress.artifacts import Dataset, Model, Split, StepContext, StepOutcome
from lepton_compress.export.lower import lower
from lepton_compress.load import forms
from lepton_compress.registry import get
from lepton_compress.report.silent import Silent

RESAMPLES = 10_000


def model_of(network: Any, task: Task) -> Model:
    """A network as steps take it."""
    names = list(task.data.calibration.inputs)
    specs = forms.input_specs(task.data.calibration.inputs, names)
    return Model("module", network, specs, task.outputs)


def applied(
    step: str, model: Model, data: Dataset, teacher: Model, seed: int, /, **given: Any
) -> Model:
    """What a step makes of a model."""
    return outcome(step, model, data, teacher, seed, **given).model


def outcome(
    step: str,
    model: Model,
    data: Dataset,
    teacher: Model,
    seed: int,
    /,
    memory: dict[str, Any] | None = None,
    **given: Any,
) -> StepOutcome:
    """A step as the pipeline runs it, on one thread.

    Args:
        memory: of what a step measures once for a model, by its label; for calls alike but for the
            budget.
    """

    def remember(label: str, _: Any, build: Callable[[], Any]) -> Any:
        held = {} if memory is None else memory
        if label not in held:
            held[label] = build()
        return held[label]

    plugin = get("step", step)
    context = StepContext(
        data,
        lambda: forms.duplicate(teacher),
        seed,
        1,
        Silent(),
        lower=lambda made: lower(made, data.calibration),
        remember=remember,
    )
    made: StepOutcome = plugin.call(model, plugin.params.model_validate(given), context)
    return made


def fewer(data: Dataset, count: int, seed: int) -> Dataset:
    """The same data with a few of its training samples."""
    rows = np.random.default_rng(seed).permutation(len(data.train))[:count]
    inputs = {name: array[rows] for name, array in data.train.inputs.items()}
    return replace(data, train=Split(inputs, data.train.targets[rows]))  # type: ignore[index]


def right(model: Model, split: Split) -> np.ndarray:
    """Which samples it has right, (samples,) of 0 and 1."""
    scores = forms.call(model, dict(split.inputs))[model.outputs[0]]
    made: np.ndarray = (scores.argmax(axis=1) == split.targets).astype(np.float64)
    return made


def about(outcomes: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Accuracy by seed, and the mean difference to `base` with its 95 % interval, seeds and samples
    drawn anew together. Both are (seeds, samples)."""
    apart = outcomes - base
    draw = np.random.default_rng(0)
    seeds, samples = apart.shape
    means = []
    for _ in range(RESAMPLES):
        rows = apart[draw.integers(seeds, size=seeds)].mean(axis=0)
        means.append(rows[draw.integers(samples, size=samples)].mean())
    return {
        "accuracy": outcomes.mean(axis=1).tolist(),
        "gain": float(apart.mean()),
        "interval": np.quantile(means, [0.025, 0.975]).tolist(),
    }
