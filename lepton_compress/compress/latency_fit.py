"""From the times of layers to that of a net: what their sum leaves out, from whole nets.

Layers alone do not add up: a call costs something by itself, neighbours are fused or need another
layout, and activations that no layer makes take time too. So the time of a net is taken to be

    a + b * its convolutions + c * its other layers + d * elements that its operators make

with none of the four below zero, fitted to whole nets that were measured (non-negative least
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
    alone; and the elements that its operators make, as a share of the whole net's."""

    convolutions: float
    others: float
    elements: float

    def row(self) -> list[float]:
        return [1.0, self.convolutions, self.others, self.elements]


@dataclass(frozen=True)
class Fit:
    """What tells the time of a net, as a share of the whole net's."""

    factors: tuple[float, float, float, float]

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
    before = np.array([rest / 2, 1.0, 1.0, rest / 2])
    scale = PRIOR * np.diag(np.maximum(rows[0], PRIOR))
    found, _ = nnls(
        np.concatenate([rows * weights[:, None], scale]),
        np.concatenate([times * weights, scale @ before]),
    )
    a, b, c, d = (float(each) for each in found)
    return Fit((a, b, c, d))
