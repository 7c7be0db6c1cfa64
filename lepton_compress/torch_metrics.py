"""Metrics that are no mean over the samples, computed by torchmetrics (and pycocotools for boxes).

Same signature as in `metrics`. They have no terms; their intervals come from bootstrap resamples
of the samples, the same ones for every artifact, so that drops are paired.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lepton_compress.artifacts import MetricOutcome
from lepton_compress.errors import InputError, MissingExtraError
from lepton_compress.metrics import OnOutput, Outputs, labels_of, pick
from lepton_compress.registry import plugin

if TYPE_CHECKING:
    import numpy as np

NAN = math.nan


class Resampled(OnOutput):
    """Looks at one output, and is computed again on resamples of the samples."""

    resamples: Annotated[int, Field(ge=0, le=10_000)] = Field(
        500, description="Bootstrap resamples for the intervals; 0 for none."
    )


class Averaged(Resampled):
    """Of each class, and averaged."""

    average: Literal["macro", "weighted", "micro"] = Field(
        "macro", description="Each class alike, by its samples, or all samples alike."
    )


@plugin("metric", "f1", Averaged)
def f1(outputs: Outputs, targets: np.ndarray, params: Averaged, folder: Path) -> MetricOutcome:
    """Harmonic mean of precision and recall (one score: of class 1, above 0.5)."""
    return _by_class("f1_score", outputs, targets, params)


@plugin("metric", "precision", Averaged)
def precision(
    outputs: Outputs, targets: np.ndarray, params: Averaged, folder: Path
) -> MetricOutcome:
    """Share of the samples predicted as a class that are of it."""
    return _by_class("precision", outputs, targets, params)


@plugin("metric", "recall", Averaged)
def recall(outputs: Outputs, targets: np.ndarray, params: Averaged, folder: Path) -> MetricOutcome:
    """Share of the samples of a class that are predicted as it."""
    return _by_class("recall", outputs, targets, params)


@plugin("metric", "auroc", Resampled)
def auroc(outputs: Outputs, targets: np.ndarray, params: Resampled, folder: Path) -> MetricOutcome:
    """Area under the ROC curve, each class against the rest, classes averaged alike."""
    return _by_ranking("binary_auroc", outputs, targets, params)


@plugin("metric", "average_precision", Resampled)
def average_precision(
    outputs: Outputs, targets: np.ndarray, params: Resampled, folder: Path
) -> MetricOutcome:
    """Area under the precision-recall curve, each class against the rest, classes averaged."""
    return _by_ranking("binary_average_precision", outputs, targets, params)


@plugin("metric", "r2", Resampled)
def r2(outputs: Outputs, targets: np.ndarray, params: Resampled, folder: Path) -> MetricOutcome:
    """Share of the targets' variance that the outputs explain, averaged over their columns."""
    import torch
    from torchmetrics.functional.regression import r2_score

    values = pick(outputs, params)
    if values.size != targets.size:
        raise InputError(
            f"outputs are {values.shape[1:]} a sample but targets {targets.shape[1:]}",
            where="evaluation targets",
        )
    made, true = (each.reshape(len(each), -1).astype("float64") for each in (values, targets))
    # Without variance there is nothing to explain.
    if len(true) < 2 or not (true.std(axis=0) > 0).all() or made.shape != true.shape:
        return _outcome(NAN, params)
    return _outcome(float(r2_score(torch.from_numpy(made), torch.from_numpy(true))), params)


class Words(Resampled):
    """Compares sequences of word numbers."""

    blank: int | None = Field(
        None, description="The blank of CTC: repeats are merged and it is dropped."
    )
    padding: int = Field(-1, description="Stands behind the end of shorter sequences.")


@plugin("metric", "word_error_rate", Words)
def word_error_rate(
    outputs: Outputs, targets: np.ndarray, params: Words, folder: Path
) -> MetricOutcome:
    """Words inserted, left out or mistaken over the words that should be there.

    Outputs are word numbers (samples, length), or scores of each word (samples, length, words),
    of which the best counts; targets are word numbers (samples, length).
    """
    from torchmetrics.functional.text import word_error_rate as rate

    values = pick(outputs, params)
    found = values.argmax(axis=-1) if values.ndim == 3 else values
    if found.ndim != 2 or targets.ndim != 2:
        raise InputError(
            f"needs word numbers (length) a sample, not outputs {values.shape[1:]} and "
            f"targets {targets.shape[1:]}",
            where="metrics: word_error_rate",
        )
    said = [_sentence(row, params, merge=True) for row in found]
    meant = [_sentence(row, params, merge=False) for row in targets]
    if not any(meant):
        return _outcome(NAN, params, higher=False)
    return _outcome(float(rate(said, meant)), params, higher=False)


class Boxes(OnOutput):
    """Looks at one output with the boxes that were found."""

    iou: Literal["50:95", "50", "75"] = Field(
        "50:95", description="Overlap from which a box counts, in per cent."
    )


@plugin("metric", "mean_average_precision", Boxes)
def mean_average_precision(
    outputs: Outputs, targets: np.ndarray, params: Boxes, folder: Path
) -> MetricOutcome:
    """Mean average precision of boxes as COCO defines it.

    The output is (samples, boxes, 6): left, top, right, bottom, score, class; targets are
    (samples, boxes, 5): left, top, right, bottom, class. A class below 0 is padding.
    """
    values = pick(outputs, params)
    if values.ndim != 3 or values.shape[2] != 6 or targets.ndim != 3 or targets.shape[2] != 5:
        raise InputError(
            f"needs (boxes, 6) a sample and targets (boxes, 5), not {values.shape[1:]} and "
            f"{targets.shape[1:]}",
            where="metrics: mean_average_precision",
        )
    return MetricOutcome(_coco(values, targets, params), True)


def _outcome(value: float, params: Resampled, *, higher: bool = True) -> MetricOutcome:
    return MetricOutcome(value, higher, resamples=params.resamples)


def _by_class(name: str, outputs: Outputs, targets: np.ndarray, params: Averaged) -> MetricOutcome:
    import torch
    from torchmetrics.functional import classification

    scores, labels, classes = _scores(outputs, targets, params)
    if not _finite(scores):
        return _outcome(NAN, params)
    true = torch.from_numpy(labels)
    if classes == 1:
        predicted = torch.from_numpy((scores[:, 0] > 0.5).astype("int64"))
        return _outcome(float(getattr(classification, f"binary_{name}")(predicted, true)), params)
    measure = getattr(classification, f"multiclass_{name}")
    predicted = torch.from_numpy(scores.argmax(axis=1))
    made = measure(predicted, true, num_classes=classes, average=params.average)
    return _outcome(float(made), params)


def _by_ranking(
    name: str, outputs: Outputs, targets: np.ndarray, params: Resampled
) -> MetricOutcome:
    """The mean over the classes of which the data has both members and others."""
    import torch
    from torchmetrics.functional import classification

    several = targets.ndim == 2 and targets.shape[1] > 1  # each sample may be of several classes
    if several:
        scores = pick(outputs, params)
        if scores.shape != targets.shape:
            raise InputError(
                f"the model scores {scores.shape[1:]} a sample but the labels are "
                f"{targets.shape[1:]}",
                where="evaluation targets",
            )
        members = targets.astype(bool)
        scores = _ranks(scores)
    else:
        scores, labels, classes = _scores(outputs, targets, params)
        if classes <= 2:  # the second class against the first
            members = (labels == 1)[:, None]
            scores = _ranks(scores[:, -1:] - (scores[:, :1] if classes == 2 else 0))
        else:
            members = labels[:, None] == range(classes)
            scores = _ranks(_probabilities(scores))
    if not _finite(scores):
        return _outcome(NAN, params)
    measure = getattr(classification, name)
    found = [
        float(measure(torch.from_numpy(column), torch.from_numpy(true.astype("int64"))))
        for column, true in zip(scores.T.copy(), members.T, strict=True)
        if 0 < true.sum() < len(true)
    ]
    return _outcome(sum(found) / len(found) if found else NAN, params)


def _scores(
    outputs: Outputs, targets: np.ndarray, params: OnOutput
) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores (samples, classes), labels (samples,), and how many scores a sample has."""
    values = pick(outputs, params)
    scores = values.reshape(len(values), -1).astype("float64")
    if values.ndim > 2 or targets.size != len(scores):
        raise InputError(
            f"needs class scores and one label a sample, not outputs {values.shape[1:]} and "
            f"targets {targets.shape[1:]}",
            where="metrics",
        )
    labels = labels_of(targets.reshape(-1), max(scores.shape[1], 2))
    return scores, labels, scores.shape[1]


def _probabilities(scores: np.ndarray) -> np.ndarray:
    import numpy as np

    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    made: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return made


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Each column's scores as ranks between 0 and 1, ties alike: torchmetrics would put other
    numbers through a sigmoid, which makes ties of large ones. A NaN stays one."""
    import numpy as np

    made = np.empty(scores.shape, dtype=np.float64)
    for column in range(scores.shape[1]):
        values, places = np.unique(scores[:, column], return_inverse=True)
        made[:, column] = (places + 1) / (len(values) + 1)
    made[np.isnan(scores)] = np.nan
    return made


def _finite(scores: np.ndarray) -> bool:
    import numpy as np

    return bool(np.isfinite(scores).all())


def _sentence(row: np.ndarray, params: Words, *, merge: bool) -> str:
    words = [int(word) for word in row if int(word) != params.padding]
    if merge and params.blank is not None:
        kept = [word for place, word in enumerate(words) if place == 0 or words[place - 1] != word]
        words = [word for word in kept if word != params.blank]
    return " ".join(map(str, words))


def _coco(found: np.ndarray, true: np.ndarray, params: Boxes) -> float:
    """By pycocotools, which prints what it does."""
    import contextlib
    import io

    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtraError(
            "mean_average_precision needs pycocotools",
            where="metrics",
            mend="pip install 'lepton-compress[detection]'",
        ) from error
    boxes = [
        {"id": 0, "image_id": image, **_box(row), "category_id": int(row[4]), "iscrowd": 0}
        for image, rows in enumerate(true)
        for row in rows
        if row[4] >= 0
    ]
    for number, box in enumerate(boxes, start=1):
        box["id"] = number
    results = [
        {"image_id": image, **_box(row), "category_id": int(row[5]), "score": float(row[4])}
        for image, rows in enumerate(found)
        for row in rows
        if row[5] >= 0 and math.isfinite(row[4])
    ]
    if not boxes:
        return NAN
    if not results:
        return 0.0
    classes = sorted({box["category_id"] for box in [*boxes, *results]})
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(len(true))],
        "annotations": boxes,
        "categories": [{"id": each} for each in classes],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judged = COCOeval(truth, truth.loadRes(results), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[("50:95", "50", "75").index(params.iou)])


def _box(row: np.ndarray) -> dict[str, Any]:
    left, top, right, bottom = (float(each) for each in row[:4])
    width, height = right - left, bottom - top
    return {"bbox": [left, top, width, height], "area": width * height}
