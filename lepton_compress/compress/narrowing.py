"""A module and its groups: copies with fewer channels, and in which order widths are given up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lepton_compress.artifacts import Model, Progress
from lepton_compress.compress import channels, layer_shapes
from lepton_compress.compress.groups import CEILING, Group, choose
from lepton_compress.compress.pruning_budget import Limit
from lepton_compress.compress.width_search import Widths
from lepton_compress.errors import InputError
from lepton_compress.load.forms import duplicate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lepton_compress.compress.channels import Example

_RATIOS = 201
"""Under `local`, how many shares of channels are looked at."""


@dataclass(frozen=True)
class Narrowing:
    """What can be made of a module.

    Attributes:
        model: a module, which is left as it is.
        example: a batch of inputs.
        groups: at least one.
        round_to: widths are multiples of it.
    """

    model: Model
    example: Example
    groups: Sequence[Group]
    round_to: int

    @property
    def options(self) -> dict[str, list[int]]:
        """By group the widths that the search may take, narrowest first."""
        found = {}
        for group in self.groups:
            least = group.fitting(group.width * (1 - CEILING), self.round_to)
            found[group.layer] = [each for each in group.widths(self.round_to) if each >= least]
        return found

    def narrowest(self, scope: str, names: Iterable[str]) -> dict[str, int]:
        """The widths at the end of a path."""
        if scope != "local":
            return {name: self.options[name][0] for name in names}
        kept = choose(self.groups, 1.0, scope, self.round_to)
        return {name: len(kept[name]) for name in names}

    def kept(self, widths: Widths) -> dict[str, list[int]]:
        """The channels that stay: the most important ones."""
        return {each.layer: each.best(widths.get(each.layer, each.width)) for each in self.groups}

    def cut(self, widths: Widths) -> Model:
        """A copy that is so wide; groups that are not named stay whole."""
        made = duplicate(self.model)
        channels.apply(made.value, self.example, self.groups, self.kept(widths))
        return made

    def sizes(self, example: Example) -> layer_shapes.Sizes:
        """The shapes of its layers by widths, for one call with these inputs."""
        return layer_shapes.sizes(
            self.model.value,
            example,
            self.options,
            lambda name, width: self.cut({name: width}).value,
        )

    def lost(self, name: str, width: int) -> float:
        """Importance that a group loses at a width."""
        group = next(each for each in self.groups if each.layer == name)
        return float(sum(sorted(group.importance)[: group.width - width]))

    def even(self, names: Iterable[str]) -> list[dict[str, int]]:
        """Nets from the whole one to the narrowest that take the same share of each group; those
        that are not named stay whole."""
        found: list[dict[str, int]] = []
        for ratio in np.linspace(0, 1, _RATIOS):
            kept = choose(self.groups, float(ratio), "local", self.round_to)
            widths = {name: len(kept[name]) for name in names}
            if not found or widths != found[-1]:
                found.append(widths)
        return found


def amount(measure: str, model: Model, example: Example) -> int:
    """Multiply-accumulates, parameters or bytes of a module."""
    if measure != "bytes":
        return channels.cost(model.value, example)[measure]
    held = (*model.value.parameters(), *model.value.buffers())
    return sum(each.numel() * each.element_size() for each in held)


def search(
    narrowing: Narrowing,
    limit: Limit,
    candidates: Sequence[Callable[[], Mapping[str, list[int]]]],
    progress: Progress,
) -> dict[str, list[int]]:
    """Of ever narrower nets the first that is within a limit.

    Args:
        limit: in multiply-accumulates, parameters or bytes.
        candidates: give the channels that stay, from the whole net to the narrowest.

    Raises:
        InputError: even the narrowest net is beyond it; what can be reached is named.
    """
    model, example, measure = narrowing.model, narrowing.example, limit.measure
    whole = amount(measure, model, example)
    share = limit.share_of(whole)

    def left(place: int) -> tuple[float, dict[str, list[int]]]:
        kept = dict(candidates[place]())
        trial = duplicate(model)
        channels.apply(trial.value, example, narrowing.groups, kept)
        reached = amount(measure, trial, example)
        progress.advance(note=f"{measure} {reached / whole:.2f}x")
        return reached / whole, kept

    low, high = -1, len(candidates) - 1
    lowest, best = left(high)
    if lowest > share:
        raise InputError(
            f"{measure} cannot go below {lowest:.2f}x ({lowest * whole:,.0f}) with "
            f"round_to={narrowing.round_to}",
            where="prune: to",
            mend="raise the target or lower round_to",
        )
    while high - low > 1:
        middle = (low + high) // 2
        reached, kept = left(middle)
        if reached <= share:
            high, best = middle, kept
        else:
            low = middle
    return best
