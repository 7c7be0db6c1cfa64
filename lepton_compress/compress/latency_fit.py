"""From the times of layers to that of a net: what their sum leaves out, from whole nets.

Layers alone do not add up: a call costs something by itself, neighbours are fused or need another
layout, and activations that no layer makes take time too. So the time of a net is taken to be

    a + b * sum of its layers' times + c * elements that its operators make,   a, b, c >= 0,

fitted to whole nets that were measured (non-negative least squares, Lawson and Hanson, "Solving
Least Squares Problems", 1974, chapter 23), those near to where the answer is wanted above all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 0.05
"""A net whose time is off by so much counts half of one that is right where it is wanted."""


@dataclass(frozen=True)
class Known:
    """A net: the sum of its layers' times and its elements, both as shares of the whole net's, and
    its time as a share of the whole net's."""

    layers: float
    elements: float
    time: float


@dataclass(frozen=True)
class Fit:
    """What tells the time of a net, as a share of the whole net's."""

    call: float
    layers: float
    elements: float

    def time(self, layers: float, elements: float) -> float:
        """Of a net with such layers and elements, as in `Known`."""
        return self.call + self.layers * layers + self.elements * elements


def fit(known: Sequence[Known], wanted: float) -> Fit:
    """The fit to measured nets.

    Args:
        known: at least two, the whole net among them.
        wanted: the time near which it is to hold best.
    """
    from scipy.optimize import nnls

    rows = np.array([[1.0, each.layers, each.elements] for each in known])
    times = np.array([each.time for each in known])
    weights = 1 / (times * (NEAR + np.abs(times - wanted)))
    found, _ = nnls(rows * weights[:, None], times * weights)
    return Fit(*(float(each) for each in found))
