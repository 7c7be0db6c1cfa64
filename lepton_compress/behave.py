"""How an artifact's predictions differ from those of the baseline's artifact, sample by sample.

Sources:
    Yan et al., Positive-Congruent Training (CVPR 2021): negative flips.
    Guo et al., On Calibration of Modern Neural Networks (ICML 2017): expected calibration error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lepton_compress import statistics
from lepton_compress.artifacts import Behaviour, Group, Score

if TYPE_CHECKING:
    import numpy as np

    Outputs = Mapping[str, np.ndarray]

BINS = 15
MOST_CLASSES = 1000
"""Beyond, no class has enough samples to say anything of it."""
MOST_SHOWN = 50
"""Classes of a confusion matrix that a reader can look at."""
_SURE = 1e-12
"""The least probability that is told from none."""
NO_CLASSES = "the outputs are no scores of the targets' classes"


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of each sample.

    Attributes:
        labels: (samples,) int64; -1 where a score is not a number.
        confidence: (samples,) float64 from 0 to 1 of the predicted class; None where the scores
            are neither probabilities nor logits of several classes.
        classes: how many there are.
    """

    labels: np.ndarray
    confidence: np.ndarray | None
    classes: int


def predictions(outputs: Outputs, targets: np.ndarray, output: str | None) -> Predictions | None:
    """The classes that outputs predict, as the metric `accuracy` reads them; None if they do not.

    Args:
        outputs: name to array (samples, ...).
        targets: (samples,) whole numbers for there to be classes.
        output: name of the output to look at; the first by default.
    """
    import numpy as np

    values = outputs.get(output or next(iter(outputs)))
    one = values is not None and (values.ndim == 1 or values.shape[1:] == (1,))
    if values is None or targets.ndim != 1 or not (one or values.ndim == 2):
        return None
    classes = 2 if one else values.shape[1]
    whole = targets.dtype.kind in "biu" or np.array_equal(targets, np.round(targets))
    if not whole or values.dtype.kind != "f" or targets.min() < 0 or targets.max() >= classes:
        return None
    scores = values.reshape(len(values), -1).astype(np.float64)
    known = np.asarray(np.isfinite(scores).all(axis=1))
    if one:
        labels, likely = (scores[:, 0] > 0.5).astype(np.int64), _of_one(scores[:, 0], known)
    else:
        labels, likely = scores.argmax(axis=1), _of_several(scores, known)
    return Predictions(np.where(known, labels, -1), likely, classes)


def _of_one(scores: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    import numpy as np

    if not known.all() or scores.min() < 0 or scores.max() > 1:
        return None
    made: np.ndarray = np.maximum(scores, 1 - scores)
    return made


def _of_several(scores: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    import numpy as np

    if not known.all():
        return None
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-2):
        best: np.ndarray = scores.max(axis=1)
        return best
    made: np.ndarray = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    return made


def class_scores(outputs: Outputs, targets: np.ndarray, output: str | None) -> np.ndarray | None:
    """Logits, or logarithms of probabilities, of every class: (samples, classes) float32.

    Of a single score two columns are made. Differences of a row's entries are what counts, so that
    both kinds can be calibrated by a temperature.

    Args:
        outputs, targets, output: as of `predictions`.

    Returns:
        None where the outputs predict no class, or with no confidence that is known.
    """
    import numpy as np

    said = predictions(outputs, targets, output)
    if said is None or said.confidence is None:
        return None
    values = outputs[output or next(iter(outputs))]
    scores = values.reshape(len(values), -1).astype(np.float64)
    if scores.shape[1] == 1:
        scores = np.hstack([1 - scores, scores])
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-2):
        scores = np.log(np.maximum(scores, _SURE))
    made: np.ndarray = scores.astype(np.float32)
    return made


def behaviour(
    now: Outputs,
    base: Outputs,
    targets: np.ndarray,
    scores: Sequence[tuple[Score, Score]],
    slices: Mapping[str, np.ndarray],
    *,
    output: str | None = None,
) -> Behaviour:
    """Everything about an artifact's behaviour but its corruptions.

    Args:
        now, base: outputs of the artifact and of the baseline's, name to (samples, ...).
        targets: (samples, ...).
        scores: the baseline's and the artifact's in each metric.
        slices: name to a mask (samples,) of booleans.
        output: which output predicts; the first by default.
    """
    import numpy as np

    ours, theirs = (predictions(each, targets, output) for each in (now, base))
    name = scores[0][1] if scores else None
    made: dict[str, Any] = {
        "candidate": name.candidate if name else "",
        "format": name.format if name else "",
        "samples": len(targets),
    }
    parts = [("slice", title, mask) for title, mask in slices.items()]
    if ours is None or theirs is None:
        return Behaviour(**made, groups=tuple(_groups(scores, parts)), reason=NO_CLASSES)
    true = targets.astype(np.int64)
    right, before = ours.labels == true, theirs.labels == true
    made["flips"] = int((ours.labels != theirs.labels).sum())
    made["negative_flips"] = int((before & ~right).sum())
    if ours.confidence is not None:
        value, interval = calibration_error(ours.confidence, right)
        made |= {"calibration_error": value, "calibration_interval": interval}
    if ours.classes <= MOST_SHOWN and (ours.labels >= 0).all():
        cells = np.bincount(true * ours.classes + ours.labels, minlength=ours.classes**2)
        made["confusion"] = tuple(map(tuple, cells.reshape(ours.classes, -1).tolist()))
    if ours.classes <= MOST_CLASSES:
        kinds = [("class", str(each), true == each) for each in np.unique(true)]
        parts = [*kinds, *parts]
    return Behaviour(**made, groups=tuple(_groups(scores, parts)))


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, *, seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
    """Expected calibration error over equal bins of confidence, with its bootstrap interval.

    The error of a resample is biased upwards, as that of any finite sample is; the interval is
    shifted by the difference between the resamples' mean and the value, once, to undo it.

    Args:
        confidence: (samples,) from 0 to 1, of the predicted class.
        right: (samples,) whether the prediction was right.
    """
    import numpy as np

    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gap = right - confidence

    def error(rows: Any) -> float:
        sums = np.bincount(place[rows], weights=gap[rows], minlength=BINS)
        return float(np.abs(sums).sum() / len(gap))

    value = error(slice(None))
    drawn = np.array([error(rows) for rows in statistics.resamples(len(gap), seed=seed)])
    centred = np.maximum(drawn - (drawn.mean() - value), 0.0)
    return value, statistics.replicate_interval(centred, value)


def masks(slices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name to a mask (samples,) for every slice: of booleans those that are true, of anything
    else one slice for each value, called `name=value`."""
    import numpy as np

    found: dict[str, np.ndarray] = {}
    for name, array in slices.items():
        if array.dtype.kind == "b":
            found[name] = array
            continue
        for value in np.unique(array):
            found[f"{name}={value}"] = array == value
    return found


def _groups(
    scores: Sequence[tuple[Score, Score]], parts: Sequence[tuple[Any, str, np.ndarray]]
) -> Iterator[Group]:
    """Each part of the data in each metric that is a mean over samples."""
    import numpy as np

    for base, now in scores:
        if base.outcomes is None or now.outcomes is None:
            continue
        before, after = np.asarray(base.outcomes), np.asarray(now.outcomes)
        for kind, name, mask in parts:
            drop, interval = statistics.paired_drop_interval(
                before[mask], after[mask], higher_is_better=now.higher_is_better
            )
            value = float(after[mask].mean())
            if math.isfinite(value):
                yield Group(kind, name, now.metric, int(mask.sum()), value, drop, interval)
