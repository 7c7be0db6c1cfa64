"""Samples held out of the training, and what they say of each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compress.artifacts import MetricOutcome
from lepton_compress.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

FEWEST = 2
"""Samples that can judge anything at all."""


def hold_out(targets: np.ndarray | None, count: int, share: float, seed: int) -> tuple[Rows, Rows]:
    """Rows to train on and rows to judge by, both in order.

    Where targets are one whole number a sample, each class is held out by its share: samples are
    sorted by class, shuffled within it, and taken at equal distances.

    Args:
        share: of `count` to hold out; none where that is less than two samples.
    """
    held = round(count * share)
    if held < FEWEST or count - held < FEWEST:
        return np.arange(count), np.arange(0)
    drawn = np.random.default_rng(seed).random(count)
    order = np.argsort(drawn)
    if targets is not None and targets.ndim == 1 and targets.dtype.kind in "biu":
        order = np.lexsort((drawn, targets))
    places = ((np.arange(held) + 0.5) / held * count).astype(np.int64)
    mask = np.zeros(count, bool)
    mask[order[places]] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


class Judge:
    """Says which of two epochs is better: by the metric, and by the loss between equals.

    A metric that cannot judge the held-out samples (it raises, or gives NaN) leaves it to the
    loss, with the reason in `reason`.

    Args:
        metric: of outputs by name and targets; None judges by the loss.
        names: of the outputs, in order.
    """

    def __init__(
        self,
        metric: Callable[[Mapping[str, Any], Any], MetricOutcome] | None,
        names: tuple[str, ...],
        targets: np.ndarray | None,
    ) -> None:
        self.names = names
        self.targets = targets
        self.reason = "no metric is given" if metric is None else ""
        if metric is not None and targets is None:
            self.reason = "the train split has no targets"
        self.metric = None if self.reason else metric
        self.higher = True

    def measure(self, outputs: list[np.ndarray]) -> float | None:
        """The metric of the held-out samples' outputs, each (samples, ...); None without one."""
        if self.metric is None:
            return None
        try:
            found = self.metric(dict(zip(self.names, outputs, strict=True)), self.targets)
        except UserError as error:
            self.metric, self.reason = None, str(error)
            return None
        if math.isnan(found.value):
            self.metric, self.reason = None, "the metric gives no number for the held-out samples"
            return None
        self.higher = found.higher_is_better
        return float(found.value)

    def better(self, new: tuple[float | None, float], old: tuple[float | None, float]) -> bool:
        """Whether `new` (metric, loss) is better than `old`."""
        if new[0] is not None and old[0] is not None and new[0] != old[0]:
            return (new[0] > old[0]) is self.higher
        return new[1] < old[1]
