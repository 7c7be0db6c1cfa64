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
    measure: Callable[[Mapping[str, np.ndarray], np.ndarray], MetricOutcome],
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
    import numpy as np

    sign = 1.0 if score.higher_is_better else -1.0
    drop, interval = sign * (baseline.value - score.value), None
    if baseline.outcomes is not None and score.outcomes is not None:
        drop, interval = statistics.paired_drop_interval(
            np.asarray(baseline.outcomes),
            np.asarray(score.outcomes),
            higher_is_better=score.higher_is_better,
        )
    return replace(score, drop=drop, drop_interval=interval)
