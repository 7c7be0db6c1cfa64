"""Metrics on an artifact's outputs. Each takes every output of the evaluation split at once.

Signature: outputs (name to array, each (samples, ...)), targets (samples, ...), parameters and the
recipe's folder; gives a `MetricOutcome`. A metric that is a mean gives its terms, one a sample, so
that drops can be judged with paired intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import Field

from lepton_compress.artifacts import MetricOutcome
from lepton_compress.budget import Name
from lepton_compress.errors import InputError
from lepton_compress.load.references import resolve
from lepton_compress.registry import Params, nearest, plugin

if TYPE_CHECKING:
    import numpy as np

Outputs: TypeAlias = "Mapping[str, np.ndarray]"


class Named(Params):
    """Has a name of its own, so that one metric may stand twice with other parameters."""

    name: Name | None = Field(None, description="For the results; the metric's by default.")


class OnOutput(Named):
    """Looks at one output."""

    output: str | None = Field(None, description="Its name; the first output by default.")


@plugin("metric", "accuracy", OnOutput)
def accuracy(
    outputs: Outputs, targets: np.ndarray, params: OnOutput, folder: Path
) -> MetricOutcome:
    """Share of samples whose label gets the highest score (one score: above 0.5 is class 1)."""
    scores = pick(outputs, params)
    if scores.ndim == 1 or scores.shape[-1] == 1:
        labels = labels_of(targets, 2)
        predicted = scores.reshape(len(scores), -1)[:, 0] > 0.5
    else:
        labels = labels_of(targets, scores.shape[-1])
        predicted = scores.argmax(axis=-1)
    if predicted.shape != labels.shape:
        raise InputError(
            f"the model predicts {predicted.shape[1:]} a sample but the labels are "
            f"{labels.shape[1:]}",
            where="metrics: accuracy",
        )
    hits = ((predicted == labels) & _numbers(scores, labels)).astype("float64")
    hits = hits.reshape(len(hits), -1).mean(axis=1)
    return MetricOutcome(float(hits.mean()), True, hits)


class TopK(OnOutput):
    """Looks at the k highest scores."""

    k: Annotated[int, Field(ge=1)] = Field(5, description="How many scores may hold the label.")


@plugin("metric", "top_k", TopK)
def top_k(outputs: Outputs, targets: np.ndarray, params: TopK, folder: Path) -> MetricOutcome:
    """Share of samples whose label is among the k highest scores."""
    import numpy as np

    scores = pick(outputs, params)
    if scores.ndim != 2 or scores.shape[1] < params.k:
        raise InputError(
            f"top {params.k} needs at least {params.k} scores a sample, not {scores.shape[1:]}",
            where="metrics: top_k",
        )
    labels = labels_of(targets, scores.shape[1])
    if labels.shape != scores.shape[:1]:
        raise InputError(f"the labels are {labels.shape[1:]} a sample", where="metrics: top_k")
    best = np.argsort(-scores, axis=1, kind="stable")[:, : params.k]
    hits = (best == labels[:, None]).any(axis=1) & _numbers(scores, labels)
    hits = hits.astype("float64")
    return MetricOutcome(float(hits.mean()), True, hits)


@plugin("metric", "mean_absolute_error", OnOutput)
def mean_absolute_error(
    outputs: Outputs, targets: np.ndarray, params: OnOutput, folder: Path
) -> MetricOutcome:
    """Mean of the absolute differences from the targets."""
    return _error(abs(_difference(outputs, targets, params)))


@plugin("metric", "mean_squared_error", OnOutput)
def mean_squared_error(
    outputs: Outputs, targets: np.ndarray, params: OnOutput, folder: Path
) -> MetricOutcome:
    """Mean of the squared differences from the targets."""
    return _error(_difference(outputs, targets, params) ** 2)


class PythonMetric(Named):
    """Calls a Python function."""

    function: str = Field(
        description="Called with (outputs by name, targets); returns a number, or one a sample."
    )
    higher_is_better: bool = Field(True, description="Whether more of it is better; errors: false.")
    resamples: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0,
        description="Of a function that returns one number: bootstrap resamples on which it is "
        "called again, for the intervals.",
    )


@plugin("metric", "python", PythonMetric)
def python(
    outputs: Outputs, targets: np.ndarray, params: PythonMetric, folder: Path
) -> MetricOutcome:
    """What a Python function returns: a number, or one number a sample, whose mean counts."""
    return call(resolve(params.function, folder), params, outputs, targets)


def call(
    function: Callable[..., Any], params: PythonMetric, outputs: Outputs, targets: np.ndarray
) -> MetricOutcome:
    """The outcome of a user's own metric.

    Raises:
        InputError: it raises, or returns something else than numbers.
    """
    import numpy as np

    try:
        given = function(outputs, targets)
        if given is None:  # numpy would read it as a NaN
            raise TypeError("it returns nothing")
        made = np.asarray(given, dtype=np.float64)
    except (Exception, SystemExit) as error:
        said = f"raised {type(error).__name__}: {error}"
        raise InputError(said, where=params.function) from error
    if made.ndim == 0:
        return MetricOutcome(float(made), params.higher_is_better, resamples=params.resamples)
    if made.shape != (len(targets),):
        raise InputError(
            f"returned shape {made.shape} for {len(targets)} samples",
            where=params.function,
            mend="return a number, or one number a sample",
        )
    return MetricOutcome(float(made.mean()), params.higher_is_better, made)


def pick(outputs: Outputs, params: OnOutput) -> np.ndarray:
    """The output that a metric looks at.

    Raises:
        InputError: the model has none of that name.
    """
    if params.output is None:
        return next(iter(outputs.values()))
    if params.output not in outputs:
        raise InputError(
            f"the model has no output {params.output!r}",
            where="metrics",
            mend=nearest(params.output, list(outputs)),
        )
    return outputs[params.output]


def _numbers(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where every score is a number; a NaN, which sorts as it likes, is no prediction."""
    found: np.ndarray = ~(scores != scores).reshape(*labels.shape, -1).any(axis=-1)
    return found


def labels_of(targets: np.ndarray, classes: int) -> np.ndarray:
    """Targets as class numbers, int64.

    Raises:
        InputError: they are no whole numbers, or there is no score for one of them.
    """
    import numpy as np

    if targets.dtype.kind == "f" and not np.array_equal(targets, np.round(targets)):
        raise InputError("labels are not whole numbers", where="evaluation targets")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"labels run from {low} to {high}, but the model scores {classes} classes "
            f"(0 to {classes - 1})",
            where="evaluation targets",
            mend="renumber the labels, or check that model and data belong together",
        )
    return targets.astype(np.int64)


def _difference(outputs: Outputs, targets: np.ndarray, params: OnOutput) -> np.ndarray:
    values = pick(outputs, params).astype("float64")
    if values.size != targets.size:
        raise InputError(
            f"outputs are {values.shape[1:]} a sample but targets {targets.shape[1:]}",
            where="evaluation targets",
        )
    difference: np.ndarray = values.reshape(len(values), -1) - targets.reshape(len(targets), -1)
    return difference


def _error(terms: np.ndarray) -> MetricOutcome:
    means = terms.mean(axis=1)
    return MetricOutcome(float(means.mean()), False, means)
