"""The edge answers what it is sure of, and sends up the rest.

How sure it is, is the largest probability after its logits were divided by a temperature (Guo et
al., On Calibration of Modern Neural Networks, ICML 2017). Temperature and threshold are chosen on
one half of the samples, and what they give is told of the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from lepton_compress.statistics import Interval, mean_interval

STEPS = 48
"""Thresholds that are looked at: shares sent up in equal steps."""
_COLDEST, _HOTTEST = 0.02, 50.0


@dataclass(frozen=True)
class Point:
    """A threshold, and what it gives.

    Attributes:
        threshold: the least confidence with which the edge's answer stands.
        chosen_accuracy: the mean outcome on the half that it is chosen on.
        accuracy, accuracy_interval, share, share_interval: on the other half.
        gain_kept: there, of the cloud's gain over the edge; None where it gains nothing.
    """

    threshold: float
    chosen_accuracy: float
    accuracy: float
    accuracy_interval: Interval
    share: float
    share_interval: Interval
    gain_kept: float | None


@dataclass(frozen=True)
class Curve:
    """The thresholds of one pair of artifacts, by rising share sent up.

    Attributes:
        temperature: of the edge's confidence.
        samples: that the points are told of.
    """

    temperature: float
    points: tuple[Point, ...]
    samples: int


def temperature(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """What logits are divided by so that the true classes are most likely.

    Args:
        scores: (samples, classes) logits, or logarithms of probabilities.
        targets: (samples,) the true classes.
    """
    held = scores.astype(np.float64)
    rows = np.arange(len(held))

    def loss(logarithm: float) -> float:
        likely = special.log_softmax(held / np.exp(logarithm), axis=1)
        return -float(likely[rows, targets].mean())

    bounds = (float(np.log(_COLDEST)), float(np.log(_HOTTEST)))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def confidence(scores: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """The largest probability of each sample: (samples,) from 0 to 1."""
    made: NDArray[np.float64] = special.softmax(scores.astype(np.float64) / temperature, axis=1)
    return np.asarray(made.max(axis=1))


def curve(
    scores: NDArray[np.float32],
    targets: NDArray[np.int64],
    edge: ArrayLike,
    cloud: ArrayLike,
    *,
    higher_is_better: bool = True,
    seed: int = 0,
    steps: int = STEPS,
) -> Curve:
    """What thresholds give, from the recorded outcomes of both artifacts on the same samples.

    Args:
        scores: (samples, classes) of the edge's artifact.
        targets: (samples,) the true classes.
        edge, cloud: (samples,) outcomes of the metric.
        higher_is_better: which way is up for the metric.
        seed: of the halves.
        steps: shares sent up to look at.

    Raises:
        ValueError: the lengths differ, or there are fewer than four samples.
    """
    low, high = (np.asarray(each, dtype=np.float64) for each in (edge, cloud))
    count = len(scores)
    if not len(targets) == len(low) == len(high) == count or count < 4:
        raise ValueError(f"needs four samples of both, not {count}, {len(low)} and {len(high)}")
    order = np.random.default_rng(seed).permutation(count)
    chosen, told = order[: count // 2], order[count // 2 :]
    warmth = temperature(scores[chosen], targets[chosen])
    sure = confidence(scores, warmth)
    sign = 1.0 if higher_is_better else -1.0
    gain = sign * float((high[told] - low[told]).mean())
    points = []
    for threshold in _thresholds(sure[chosen], steps):
        up = sure < threshold
        mixed = np.where(up, high, low)
        accuracy, interval = mean_interval(mixed[told])
        share, share_interval = mean_interval(up[told].astype(np.float64))
        kept = sign * (accuracy - float(low[told].mean())) / gain if gain > 0 else None
        points.append(
            Point(
                threshold,
                float(mixed[chosen].mean()),
                accuracy,
                interval,
                share,
                share_interval,
                kept,
            )
        )
    return Curve(warmth, tuple(points), len(told))


def _thresholds(sure: NDArray[np.float64], steps: int) -> Sequence[float]:
    """At which these shares go up, without those that send up none or all."""
    ordered = np.sort(sure)
    ranks = np.unique((np.arange(1, steps) / steps * len(ordered)).astype(int))
    return [float(each) for each in np.unique(ordered[ranks]) if each > ordered[0]]
