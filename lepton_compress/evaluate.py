"""The task's metrics on the artifact itself, sample by sample, in the runtime that will run it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lepton_compress import statistics
from lepton_compress.artifacts import MetricOutcome, Observer, Score, Split
from lepton_compress.errors import PluginError

if TYPE_CHECKING:
    import numpy as np

    from lepton_compress.targets.runner import Runner

_BATCH = 64
_LEAST_RESAMPLES, _MOST_NUMBERS = 100, 50_000_000
"""The numbers that all resamples together may draw, beyond the least."""
Measure = Callable[["Mapping[str, np.ndarray]", "np.ndarray"], MetricOutcome]
_MOST_CLASSES = 1000


def predict(runner: Runner, samples: Split, observer: Observer) -> dict[str, np.ndarray]:
    """Every output for every sample: name to array (samples, ...)."""
    import numpy as np

    split = samples.named([spec.name for spec in runner.inputs])
    parts: dict[str, list[np.ndarray]] = {spec.name: [] for spec in runner.outputs}
    with observer.work("evaluate", -(-len(split) // _BATCH)) as progress:
        for feeds in split.batches(_BATCH):
            for held, array in zip(parts.values(), runner.run(feeds), strict=True):
                held.append(array)
            progress.advance()
    outputs = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    for array in outputs.values():
        array.flags.writeable = False  # the next metric must see what this one saw
    return outputs


def score(
    measure: Measure,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    *,
    candidate: str,
    format: str,
    metric: str,
) -> Score:
    """One metric over all samples, with its 95 % interval. A value that is not finite is none.

    Raises:
        PluginError: the metric returns something else than a `MetricOutcome`, or one whose
            outcomes contradict its value.
    """
    import numpy as np

    made, where = measure(outputs, targets), f"metric {metric}"
    if not isinstance(made, MetricOutcome):
        raise PluginError(f"returned {type(made).__name__}, not a MetricOutcome", where=where)
    outcomes, interval = None, (math.nan, math.nan)
    try:
        value = float(made.value)
        terms = None if made.outcomes is None else np.asarray(made.outcomes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PluginError(f"its value or outcomes are no numbers ({error})", where=where) from error
    replicates = None
    if terms is None and math.isfinite(value) and made.resamples:
        replicates = _replicates(measure, outputs, targets, made.resamples)
        interval = statistics.replicate_interval(replicates, value) or interval
    if terms is not None and math.isfinite(value):
        if terms.shape != (len(targets),) or not math.isclose(
            terms.mean(), value, rel_tol=1e-6, abs_tol=1e-9
        ):
            problem = f"its outcomes are not one number a sample with the mean {value:.6g}"
            raise PluginError(problem, where=where)
        outcomes = tuple(float(term) for term in terms)
        _, interval = statistics.mean_interval(terms)
    return Score(
        candidate=candidate,
        format=format,
        metric=metric,
        higher_is_better=made.higher_is_better,
        value=value if math.isfinite(value) else math.nan,
        interval=interval,
        samples=len(targets),
        outcomes=outcomes,
        replicates=replicates,
    )


def _replicates(
    measure: Measure, outputs: Mapping[str, np.ndarray], targets: np.ndarray, count: int
) -> tuple[float, ...]:
    """The metric on bootstrap resamples, fewer where there is much to compute on."""
    size = max(sum(array.size for array in outputs.values()), 1)
    count = min(count, max(_LEAST_RESAMPLES, _MOST_NUMBERS // size))
    return tuple(
        float(measure({name: array[rows] for name, array in outputs.items()}, targets[rows]).value)
        for rows in statistics.resamples(len(targets), count=count)
    )


def labels(targets: np.ndarray | None) -> tuple[int, ...]:
    """The class of each sample, if the targets are classes: one whole number a sample, few enough
    of them that a class has several samples on average. Else empty."""
    import numpy as np

    if targets is None or targets.ndim != 1 or targets.dtype.kind not in "iub":
        return ()
    if len(np.unique(targets)) > min(_MOST_CLASSES, len(targets) // 2):
        return ()
    return tuple(int(each) for each in targets)


def compare(baseline: Score, score: Score) -> Score:
    """The score with how much worse it is than the baseline's, paired by sample."""
    drop, interval = drop_of(baseline, score)
    return replace(score, drop=drop, drop_interval=interval)


def drop_of(baseline: Score, score: Score) -> tuple[float, tuple[float, float] | None]:
    """How much worse a score is than another on the same samples, and its 95 % interval.

    The interval is paired by sample where both keep their outcomes, and by resample where both
    keep their replicates; else there is none.
    """
    import numpy as np

    sign = 1.0 if score.higher_is_better else -1.0
    drop = sign * (baseline.value - score.value) + 0.0
    if baseline.outcomes is not None and score.outcomes is not None:
        return statistics.paired_drop_interval(
            np.asarray(baseline.outcomes),
            np.asarray(score.outcomes),
            higher_is_better=score.higher_is_better,
        )
    if baseline.replicates is not None and score.replicates is not None:
        losses = sign * (np.asarray(baseline.replicates) - np.asarray(score.replicates))
        return drop, statistics.replicate_interval(losses, drop)
    return drop, None
