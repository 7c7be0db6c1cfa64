"""How the elements of a value lie in memory, so that transposing and reshaping are bookkeeping
until an operator needs a certain order.

A value of shape (1, 6, 4, 4) whose channels come last in memory has the factors (6, 16), as rows
and columns stay together, in the order (1, 0). Flattened to (1, 96) it keeps both: the axis of 96
is made of the factors 6 and 16 and is shuffled in memory; a matrix that it is multiplied by has its
rows shuffled likewise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Memory of a value, whatever its shape.

    Attributes:
        factors: sizes above one, whose products in order are the axes of the value.
        order: places in `factors`, the slowest in memory first.
    """

    factors: Shape
    order: Shape

    @property
    def is_plain(self) -> bool:
        """Whether the elements lie in the value's own order."""
        return self.order == tuple(range(len(self.order)))

    @property
    def stored(self) -> Shape:
        """Sizes of the factors in the order of memory."""
        return tuple(self.factors[each] for each in self.order)

    def fitted(self, shape: Shape) -> Layout | None:
        """The same memory, its factors split at the borders of a shape's axes; None where an axis
        would begin inside of a factor that it does not divide."""
        given = self._merged()
        wanted = [size for size in shape if size != 1]
        pieces: list[list[int]] = []
        left = 1  # still missing of the current axis
        for factor in given.factors:
            split, rest = [], factor
            while rest > 1:
                left = wanted.pop(0) if left == 1 and wanted else left
                step = math.gcd(rest, left)
                if step == 1 or (step < rest and step < left):
                    return None
                split.append(step)
                rest, left = rest // step, left // step
            pieces.append(split)
        starts = [sum(map(len, pieces[:place])) for place in range(len(pieces))]
        order = [starts[each] + part for each in given.order for part in range(len(pieces[each]))]
        return Layout(tuple(size for split in pieces for size in split), tuple(order))

    def _merged(self) -> Layout:
        """The same, with factors as one that follow each other in memory, too."""
        ranks = {place: index for index, place in enumerate(self.order)}
        runs: list[list[int]] = []
        for place in range(len(self.factors)):
            if runs and ranks[place] == ranks[place - 1] + 1:
                runs[-1].append(place)
            else:
                runs.append([place])
        first = [ranks[run[0]] for run in runs]
        factors = tuple(math.prod(self.factors[place] for place in run) for run in runs)
        return Layout(factors, tuple(sorted(range(len(runs)), key=first.__getitem__)))

    def axes(self, shape: Shape) -> list[list[int]] | None:
        """For each axis of a shape the places of its factors; None if they do not fit."""
        places, found = iter(range(len(self.factors))), []
        for size in shape:
            axis: list[int] = []
            while math.prod(self.factors[each] for each in axis) != size:
                place = next(places, None)
                if place is None:
                    return None
                axis.append(place)
            found.append(axis)
        return found

    def transposed(self, shape: Shape, permutation: Sequence[int]) -> Layout | None:
        """The same memory seen with the axes of `shape` in another order."""
        fitted = self.fitted(shape)
        axes = fitted.axes(shape) if fitted else None
        if fitted is None or axes is None:
            return None
        moved = [place for axis in permutation for place in axes[axis]]
        new = {place: index for index, place in enumerate(moved)}
        factors = tuple(fitted.factors[place] for place in moved)
        return Layout(factors, tuple(new[place] for place in fitted.order))

    def storage(self, shape: Shape, *, shuffled: bool = False) -> Shape | None:
        """The axes of a shape in the order of memory; None where one is torn apart.

        Args:
            shuffled: an axis may be out of order within itself.
        """
        fitted = self.fitted(shape)
        axes = fitted.axes(shape) if fitted else None
        if fitted is None or axes is None:
            return None
        ranks = {place: index for index, place in enumerate(fitted.order)}
        first: dict[int, int] = {}
        for number, axis in enumerate(axes):
            held = [ranks[place] for place in axis]
            run = list(range(min(held), min(held) + len(held))) if held else []
            if (sorted(held) if shuffled else held) != run:
                return None
            if held:
                first[number] = run[0]
        # An axis of one element lies behind the axis before it.
        order = sorted(first, key=first.__getitem__)
        for number in range(len(shape)):
            if number not in first:
                order.insert(order.index(number - 1) + 1 if number else 0, number)
        return tuple(order)


def plain(shape: Shape) -> Layout:
    """A value in its own order."""
    factors = tuple(size for size in shape if size != 1)
    return Layout(factors, tuple(range(len(factors))))


def permuted(shape: Shape, permutation: Sequence[int]) -> Layout:
    """A value whose axes lie in memory in the order `permutation`."""
    places = [axis for axis, size in enumerate(shape) if size != 1]
    order = [places.index(axis) for axis in permutation if shape[axis] != 1]
    return Layout(tuple(shape[axis] for axis in places), tuple(order))


def last(rank: int) -> Shape:
    """The order of axes with the second one, the channels, behind all others."""
    return (0, *range(2, rank), 1)


def moves(
    given: Layout, shape: Shape, permutation: Sequence[int]
) -> tuple[Shape, tuple[int, ...]] | None:
    """What brings a value into the order `permutation`: the shape to see its memory in, and how to
    transpose that; factors that stay neighbours count as one. None if the layout does not fit."""
    fitted = given.fitted(shape)
    axes = fitted.axes(shape) if fitted else None
    if fitted is None or axes is None:
        return None
    wanted = [place for axis in permutation for place in axes[axis]]
    follows = dict(itertools.pairwise(wanted))
    runs: list[list[int]] = []
    for place in fitted.order:
        if runs and follows.get(runs[-1][-1]) == place:
            runs[-1].append(place)
        else:
            runs.append([place])
    sizes = tuple(math.prod(fitted.factors[place] for place in run) for run in runs)
    heads = [run[0] for run in runs]
    return sizes, tuple(heads.index(place) for place in wanted if place in heads)
