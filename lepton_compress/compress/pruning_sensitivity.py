"""How much each group matters: pruned alone at several ratios, and what that loses on samples that
no gate looks at (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lepton_compress.artifacts import Json, Observer
from lepton_compress.compress.narrowing import Narrowing
from lepton_compress.compress.trial import Judge

RATIOS = (0.25, 0.5, 0.75)
SAMPLES = 512
_TIE = 1e-3
"""Of groups that lose nothing, the share of importance that is lost decides, this much of it."""


@dataclass(frozen=True)
class Curve:
    """What is lost when a group alone is pruned.

    Attributes:
        layer: the group.
        width: of the whole group.
        widths: that were tried, widest first.
        drops: what each loses, in what `Judge.measures` names; positive is worse.
    """

    layer: str
    width: int
    widths: tuple[int, ...]
    drops: tuple[float, ...]

    def drop(self, width: float) -> float:
        """At any width: by lines between what was tried, never falling as the width does; beyond
        the narrowest that was tried the last line goes on."""
        gone = np.array([0, *(self.width - each for each in self.widths)], float)
        lost = np.maximum.accumulate([0.0, *self.drops])
        asked = self.width - width
        if asked > gone[-1] and len(gone) > 1:
            slope = (lost[-1] - lost[-2]) / (gone[-1] - gone[-2])
            return float(lost[-1] + slope * (asked - gone[-1]))
        return float(np.interp(asked, gone, lost))


def measure(
    narrowing: Narrowing, judge: Judge, ratios: Sequence[float], observer: Observer
) -> list[Curve]:
    """The curve of each group.

    Args:
        ratios: shares of its channels that a group loses, each below 1.
    """
    found = []
    with observer.work("pruning each group alone", len(narrowing.groups)) as progress:
        for group in narrowing.groups:
            wanted = {
                group.fitting(group.width * (1 - each), narrowing.round_to) for each in ratios
            }
            widths = sorted(wanted - {group.width}, reverse=True)
            progress.advance(0, group.layer)
            drops = [judge(narrowing.cut({group.layer: each})).drop for each in widths]
            # A metric that has no value any more loses as much as one can.
            capped = tuple(min(each, max(judge.reached, 1.0)) for each in drops)
            found.append(Curve(group.layer, group.width, tuple(widths), capped))
            progress.advance()
    return found


def as_json(curves: Sequence[Curve]) -> Json:
    """To be kept."""
    return [
        {
            "layer": each.layer,
            "width": each.width,
            "widths": list(each.widths),
            "drops": list(each.drops),
        }
        for each in curves
    ]


def from_json(given: Json) -> list[Curve]:
    """As they were kept."""
    return [
        Curve(each["layer"], each["width"], tuple(each["widths"]), tuple(each["drops"]))
        for each in given
    ]


class Loss:
    """What a group loses at a width: by its curve, and where that is flat by importance."""

    def __init__(self, narrowing: Narrowing, curves: Sequence[Curve]) -> None:
        self._curves: Mapping[str, Curve] = {each.layer: each for each in curves}
        self._narrowing = narrowing
        total = sum(sum(each.importance) for each in narrowing.groups)
        self._unit = _TIE / total if total else _TIE

    def __call__(self, name: str, width: int) -> float:
        tie = self._unit * self._narrowing.lost(name, width)
        return self._curves[name].drop(width) + tie
