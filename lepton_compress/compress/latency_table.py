"""What layers take on a target, by their shapes: measured at a few widths, between them by lines.

Each layer stands alone in a graph, and all graphs take turns with the whole net, so that a time is
a share of the whole net's in the same rounds and the machine's own ups and downs cancel out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from lepton_compress.artifacts import Json, Place
from lepton_compress.compress import layer_graphs
from lepton_compress.compress.layer_shapes import Shape, Sizes
from lepton_compress.compress.race import race_apart

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Fed = tuple[onnx.ModelProto, Mapping[str, NDArray[Any]]]

SHAPES = 600
"""Shapes in a table at most, about: all widths of small nets, a few of each layer of large ones."""
_MOST_SIZES = 16
_TURN_SECONDS = 0.002
_WHOLE, _NOTHING = "whole", "nothing"
Fixed = tuple[str, tuple[tuple[str, Any], ...]]


@dataclass(frozen=True)
class Axis:
    """The sizes of one dimension at which a layer is measured, smallest first."""

    sizes: tuple[int, ...]


@dataclass
class Table:
    """Times of layers, as shares of the whole net's.

    Attributes:
        axes: by layer, the grid that it was measured on.
        times: by layer, an array over that grid that never falls as a dimension grows.
        seconds: of the whole net, when the table was measured.
    """

    axes: dict[str, tuple[Axis, ...]]
    times: dict[str, NDArray[np.float64]]
    seconds: float
    _known: dict[Shape, float] = field(default_factory=dict)

    def time(self, shape: Shape) -> float:
        """Of a layer, multilinear between what was measured."""
        if shape not in self._known:
            name = _name(shape, self.axes)
            self._known[shape] = _between(self.axes[name], self.times[name], shape.dims)
        return self._known[shape]

    def as_json(self) -> Json:
        """To be kept."""
        axes = {name: [list(each.sizes) for each in axes] for name, axes in self.axes.items()}
        times = {name: array.tolist() for name, array in self.times.items()}
        return {"axes": axes, "times": times, "seconds": self.seconds}

    @classmethod
    def from_json(cls, given: Json) -> Table:
        """As it was kept."""
        axes = {
            name: tuple(Axis(tuple(sizes)) for sizes in each)
            for name, each in given["axes"].items()
        }
        times = {name: np.array(each) for name, each in given["times"].items()}
        return cls(axes, times, given["seconds"])


def grids(found: Sizes, narrowest: Mapping[str, int], multiple: int) -> dict[str, list[Any]]:
    """By layer the shape it has in the whole net, and the axes on which to measure it.

    Args:
        narrowest: the widths of the narrowest net.
        multiple: of which sizes between the ends are.
    """
    pairs = list(zip(found.seen.layers, found.layers(narrowest), strict=True))
    grids: dict[str, list[Any]] = {}
    for count in range(_MOST_SIZES, 1, -1):
        grids = {}
        for wide, narrow in pairs:
            axes = tuple(
                Axis(_levels(low, high, count, multiple))
                for low, high in zip(narrow.dims, wide.dims, strict=True)
            )
            grids[_key(wide, axes)] = [wide, axes]
        shapes = sum(math.prod(len(each.sizes) for each in axes) for _, axes in grids.values())
        if shapes <= SHAPES:
            break
    return grids


def measure(
    grids: Mapping[str, Sequence[Any]],
    whole: Fed,
    place: Place,
    *,
    cap: float,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Table:
    """Measure every layer of every grid in turns with the whole net.

    Args:
        whole: the net's graph, and inputs for it.
        cap: seconds after which no round is begun, once there are enough.
    """
    fed: dict[str, Fed] = {_WHOLE: whole, _NOTHING: layer_graphs.nothing()}
    for name, (shape, axes) in grids.items():
        for dims in itertools.product(*(each.sizes for each in axes)):
            one = Shape(shape.kind, dims, shape.fixed)
            fed[f"{name} {dims}"] = layer_graphs.graph(one)
    progress(f"{len(fed) - 2} layer shapes")
    timed = race_apart(fed, place, cap=cap, seed=seed, turn=_TURN_SECONDS)
    nothing = timed[_NOTHING].ratio
    table = Table({}, {}, timed[_WHOLE].seconds)
    for name, (_, axes) in grids.items():
        taken = [
            max(timed[f"{name} {dims}"].ratio - nothing, 0.0)
            for dims in itertools.product(*(each.sizes for each in axes))
        ]
        times = np.array(taken).reshape([len(each.sizes) for each in axes])
        table.axes[name], table.times[name] = axes, _rising(times)
    return table


def _rising(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Halfway from the greatest that lies below and never falls to the least that lies above:
    a wider layer that was faster by chance would draw the search to it."""
    for axis in range(times.ndim):
        above = np.maximum.accumulate(times, axis=axis)
        below = np.flip(np.minimum.accumulate(np.flip(times, axis), axis=axis), axis)
        times = (above + below) / 2
    return times


def _levels(low: int, high: int, count: int, multiple: int) -> tuple[int, ...]:
    """Sizes from `low` to `high`, those between them multiples."""
    rounded = {
        round(float(each) / multiple) * multiple for each in np.linspace(low, high, count)[1:-1]
    }
    return tuple(sorted({low, high} | {each for each in rounded if low < each < high}))


def _key(shape: Shape, axes: Sequence[Axis]) -> str:
    fixed = " ".join(f"{name}={value}" for name, value in shape.fixed)
    sizes = " ".join(f"{each.sizes[0]}..{each.sizes[-1]}" for each in axes)
    return f"{shape.kind} {sizes} {fixed}"


def _name(shape: Shape, axes: Mapping[str, Sequence[Axis]]) -> str:
    """The layer of a table with the same fixed part, and a grid that holds the shape."""
    start, end = f"{shape.kind} ", " ".join(f"{name}={value}" for name, value in shape.fixed)
    for name, each in axes.items():
        inside = len(each) == len(shape.dims) and all(
            axis.sizes[0] <= size <= axis.sizes[-1]
            for axis, size in zip(each, shape.dims, strict=True)
        )
        if inside and name.startswith(start) and name.endswith(end):
            return name
    raise KeyError(shape)


def _between(axes: Sequence[Axis], times: NDArray[np.float64], dims: Sequence[int]) -> float:
    """Multilinear interpolation, one dimension after the other."""
    held = times
    for axis, size in zip(axes, dims, strict=True):
        if len(axis.sizes) == 1:
            held = held[0]
            continue
        upper = int(np.clip(np.searchsorted(axis.sizes, size), 1, len(axis.sizes) - 1))
        low, high = axis.sizes[upper - 1], axis.sizes[upper]
        share = (size - low) / (high - low)
        held = held[upper - 1] * (1 - share) + held[upper] * share
    return float(held)
