"""From the times of layers to that of a net: what their sum leaves out, from whole nets.

Layers alone do not add up: a call costs something by itself, neighbours are fused or need another
layout, and activations that no layer makes take time too. So the time of a net is taken to be

    a + b * its convolutions + c * its other layers + d * elements that its operators make
      + e * weights that do not stay in the core's cache from call to call

with none of the five below zero, fitted to whole nets that were measured (non-negative least
squares, Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23), those near to where
the answer is wanted above all. Where the nets do not tell, layers count as they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 0.05
"""A net whose time is off by so much counts half of one that is right where it is wanted."""
PRIOR = 0.03
"""What the layers' own times count beside a net."""


@dataclass(frozen=True)
class Features:
    """Of a net, as shares of the whole net's time: what its convolutions and its other layers take
    alone; the elements that its operators make, as a share of the whole net's; and the weights that
    every call brings into the cache anew, as a share of the whole net's weights."""

    convolutions: float
    others: float
    elements: float
    brought: float = 0.0

    def row(self) -> list[float]:
        return [1.0, self.convolutions, self.others, self.elements, self.brought]


@dataclass(frozen=True)
class Fit:
    """What tells the time of a net, as a share of the whole net's."""

    factors: tuple[float, ...]

    def time(self, net: Features) -> float:
        """Of a net."""
        return float(np.dot(self.factors, net.row()))


def fit(known: Sequence[tuple[Features, float]], wanted: float) -> Fit:
    """The fit to measured nets.

    Args:
        known: nets and their times, the whole net with its 1 first.
        wanted: the time near which it is to hold best.
    """
    from scipy.optimize import nnls

    rows = np.array([net.row() for net, _ in known])
    times = np.array([time for _, time in known])
    weights = NEAR / (times * (NEAR + np.abs(times - wanted)))
    whole = known[0][0]
    rest = max(0.0, 1 - whole.convolutions - whole.others)
    before = np.array([rest / 2, 1.0, 1.0, rest / 2, 0.0])
    scale = PRIOR * np.diag(np.maximum(rows[0], PRIOR))
    found, _ = nnls(
        np.concatenate([rows * weights[:, None], scale]),
        np.concatenate([times * weights, scale @ before]),
    )
    return Fit(tuple(float(each) for each in found))


def brought(weights: float, cache: float | None) -> float:
    """Of so many bytes of weights those that a call brings into a cache of so many bytes anew.

    What is read in the same order each time stays whole or not at all where the oldest goes first;
    activations and other processes take their part, so that it begins at half of the cache.
    """
    if cache is None:
        return 0.0
    return float(weights * np.clip(2 * weights / cache - 1, 0.0, 1.0))
