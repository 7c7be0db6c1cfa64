"""Losses of a task: from the model's outputs and the labels to a scalar.

Each name is one function of (scores, targets, smoothing), where `scores` is the model's first
output. Labels below 0 in sequences are padding and count nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from lepton_compress.errors import InputError
from lepton_compress.load.references import resolve

if TYPE_CHECKING:
    from lepton_compress.compress.schedule import Loss

PADDING = -100
"""The label that torch's cross-entropy leaves out."""


def task_loss(outputs: list[Tensor], targets: Tensor | None) -> Tensor:
    """The loss of the task, told by the targets' type and the first output's shape: cross-entropy
    for whole numbers against several scores, binary cross-entropy against one, else mean squared
    error."""
    return _auto(outputs[0], labelled(targets), 0.0)


def labelled(targets: Tensor | None) -> Tensor:
    """The targets.

    Raises:
        InputError: there are none.
    """
    if targets is None:
        raise InputError("the train split has no targets", where="data: train", mend="use distil")
    return targets


def named(name: str, smoothing: float, names: tuple[str, ...], folder: Path) -> Loss:
    """The loss that a recipe names.

    Args:
        name: a key of `LOSSES`, or a reference `module:function` to the user's own, which is called
            with (outputs by name, targets or None) and returns a scalar tensor.
        smoothing: of labels (Szegedy et al., 2016), from 0 to 1; for cross-entropy.
        names: of the outputs, in order.
        folder: that references are relative to.

    Raises:
        InputError: the reference leads nowhere. The loss itself raises it where labels are missing,
            or do not suit it.
    """
    if name not in LOSSES:
        return _own(resolve(name, folder), name, names)
    compute = LOSSES[name]

    def loss(outputs: list[Tensor], _: dict[str, Tensor], targets: Tensor | None) -> Tensor:
        return compute(outputs[0], labelled(targets), smoothing)

    return loss


def _own(function: Callable[..., Any], reference: str, names: tuple[str, ...]) -> Loss:
    def loss(outputs: list[Tensor], _: dict[str, Tensor], targets: Tensor | None) -> Tensor:
        by_name: Mapping[str, Tensor] = dict(zip(names, outputs, strict=True))
        try:
            made = function(by_name, targets)
        except (Exception, SystemExit) as error:
            said = f"raised {type(error).__name__}: {error}"
            raise InputError(said, where=f"loss {reference}") from error
        if not isinstance(made, Tensor) or made.ndim != 0 or not made.is_floating_point():
            kind = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise InputError(
                f"returned {kind}, not a scalar tensor of floats",
                where=f"loss {reference}",
                mend="return the mean over the batch",
            )
        if not made.requires_grad and torch.is_grad_enabled():
            raise InputError(
                "returned a value that no gradient leads back from",
                where=f"loss {reference}",
                mend="compute it from the outputs by torch operators, without detach()",
            )
        return made

    return loss


def _auto(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    if targets.is_floating_point():
        return _regression(scores, targets, smoothing)
    if scores.ndim == 1 or scores.shape[1] == 1:
        return _binary(scores, targets, smoothing)
    return _cross_entropy(scores, targets, smoothing)


def _cross_entropy(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Scores (samples, classes, ...) and class numbers (samples, ...)."""
    _whole(targets, "cross_entropy")
    return functional.cross_entropy(scores, targets.long(), label_smoothing=smoothing)


def _binary(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """One probability a sample, and 0 or 1."""
    _single(scores)
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        # A NaN is no answer to a wrong recipe, but a training that has gone astray.
        if bool(scores.isnan().any()):
            return scores.mean()
        raise InputError(
            "the model's single score is no probability",
            where="model",
            mend="end its forward() with a sigmoid, or set loss: binary_logits",
        )
    return functional.binary_cross_entropy(scores.reshape(-1), _ones_and_zeros(targets, scores))


def _binary_logits(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """One score a sample, before the sigmoid, and 0 or 1."""
    _single(scores)
    wanted = _ones_and_zeros(targets, scores)
    return functional.binary_cross_entropy_with_logits(scores.reshape(-1), wanted)


def _multi_label(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Probabilities (samples, labels), and 0 or 1 of the same shape."""
    wanted = _same_shape(scores, targets, "multi_label")
    if not bool(((scores >= 0) & (scores <= 1)).all()) and not bool(scores.isnan().any()):
        raise InputError(
            "the model's scores are no probabilities",
            where="model",
            mend="end its forward() with a sigmoid, or set loss: multi_label_logits",
        )
    return functional.binary_cross_entropy(scores, wanted)


def _multi_label_logits(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Scores (samples, labels) before the sigmoid, and 0 or 1 of the same shape."""
    wanted = _same_shape(scores, targets, "multi_label_logits")
    return functional.binary_cross_entropy_with_logits(scores, wanted)


def _regression(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Values, and as many targets: their mean squared difference."""
    if scores.numel() != targets.numel():
        raise ValueError(f"{scores.numel()} values for {targets.numel()} targets")
    return functional.mse_loss(scores, targets.to(scores.dtype).reshape(scores.shape))


def _sequence(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Scores (samples, length, classes) and a class number for each place (samples, length)."""
    _whole(targets, "sequence")
    if scores.ndim != 3 or scores.shape[:2] != targets.shape:
        raise ValueError("a sequence has a label for each place: (samples, length)")
    wanted = targets.long()
    return functional.cross_entropy(
        scores.flatten(0, 1),
        torch.where(wanted < 0, PADDING, wanted).flatten(),
        ignore_index=PADDING,
        label_smoothing=smoothing,
    )


def _ctc(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Scores (samples, length, classes) with class 0 as the blank, and class numbers (samples,
    at most length), padded behind: connectionist temporal classification (Graves et al., 2006)."""
    _whole(targets, "ctc")
    if scores.ndim != 3 or targets.ndim != 2:
        raise ValueError("ctc takes scores (samples, length, classes) and labels (samples, length)")
    samples, length, classes = scores.shape
    wanted = targets.long()
    if bool((wanted == 0).any()) or int(wanted.max()) >= classes:
        raise InputError(
            f"labels of ctc run from 1 to {classes - 1}; 0 is the blank, below 0 is padding",
            where="data: train",
        )
    kept = wanted >= 0
    return functional.ctc_loss(
        functional.log_softmax(scores, 2).transpose(0, 1),
        wanted[kept],
        torch.full((samples,), length),
        kept.sum(1),
        zero_infinity=True,  # of a label that is longer than its sequence can say
    )


LOSSES: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "auto": _auto,
    "cross_entropy": _cross_entropy,
    "binary": _binary,
    "binary_logits": _binary_logits,
    "multi_label": _multi_label,
    "multi_label_logits": _multi_label_logits,
    "regression": _regression,
    "sequence": _sequence,
    "ctc": _ctc,
}


def _whole(targets: Tensor, name: str) -> None:
    if targets.is_floating_point():
        raise InputError(
            f"{name} takes whole numbers as labels, not {str(targets.dtype).rpartition('.')[2]}",
            where="data: train",
            mend="give class numbers, or set loss: regression",
        )


def _single(scores: Tensor) -> None:
    if scores.numel() != len(scores):
        raise ValueError(f"binary takes one score a sample, not {list(scores.shape[1:])}")


def _ones_and_zeros(targets: Tensor, like: Tensor) -> Tensor:
    if not bool(((targets == 0) | (targets == 1)).all()):
        raise InputError(
            "labels of a single score are 0 and 1",
            where="data: train",
            mend="renumber them, or set loss: regression",
        )
    return targets.reshape(-1).to(like.dtype)


def _same_shape(scores: Tensor, targets: Tensor, name: str) -> Tensor:
    if scores.shape != targets.shape:
        raise ValueError(f"{name} takes a 0 or 1 for each score")
    return _ones_and_zeros(targets, scores).reshape(scores.shape)
