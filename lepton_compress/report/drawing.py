"""A chart as lines, points and texts in the coordinates of an SVG picture.

The template draws what stands here; nothing is left to decide there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lepton_compress.report.chart import Chart, Interval, Point

_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 18, 30, 54
_LETTER = 7.4
"""Width of a letter of a label, about, in the units of the picture."""
_LINE = 14.0
"""Height of a line of text."""
_LOGARITHMIC = 20.0
"""From this factor between the costs on, their axis is logarithmic."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point with its error bars and its name. Positions are (x, y) or (from, to)."""

    x: float
    y: float
    across: Interval | None
    along: Interval | None
    name: str
    name_x: float
    name_y: float
    anchor: str
    details: tuple[str, ...]
    point: Point

    @property
    def kind(self) -> str:
        """Class names that style it."""
        said = ["base" if self.point.baseline else "variant"]
        said += [name for name in ("chosen", "passed", "front") if getattr(self.point, name)]
        return " ".join(said)


@dataclass(frozen=True)
class Limit:
    """A gate: its line, the forbidden side as (x, y, width, height), and its label."""

    line: Box
    outside: Box
    label: str
    label_x: float
    label_y: float
    anchor: str


@dataclass(frozen=True)
class Drawing:
    """A picture of so many units, `frame` being the (x, y, width, height) of the plot."""

    width: float
    height: float
    frame: Box
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    front: str
    marks: tuple[Mark, ...]
    limits: tuple[Limit, ...]
    logarithmic: bool


def draw(chart: Chart, width: float, height: float) -> Drawing:
    """A chart with at least one point, in a picture of that size."""
    frame = (_LEFT, _TOP, width - _LEFT - _RIGHT, height - _TOP - _BOTTOM)
    x_axis = _Axis.over(_extent(chart, "x"), frame[0], frame[0] + frame[2], may_be_log=True)
    y_axis = _Axis.over(_extent(chart, "y"), frame[1] + frame[3], frame[1])
    places = [(x_axis.at(p.x), y_axis.at(p.y)) for p in chart.points]
    limits = tuple(_limits(chart, x_axis, y_axis, frame))
    covered = [_box(limit.label, limit.label_x, limit.label_y, limit.anchor) for limit in limits]
    labels = _place_labels([p.name for p in chart.points], places, frame, covered)
    marks = tuple(
        _mark(chart, point, place, label, x_axis, y_axis)
        for point, place, label in zip(chart.points, places, labels, strict=True)
    )
    corners: list[tuple[float, float]] = []
    for index in chart.line:
        x, y = places[index]
        # Between two points of the front nothing better than the cheaper one was measured.
        corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    return Drawing(
        width=width,
        height=height,
        frame=frame,
        x_ticks=x_axis.ticks(chart.show_x, 4 if width < 500 else 7),
        y_ticks=y_axis.ticks(chart.show_y, 5),
        front=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners),
        marks=marks,
        limits=limits,
        logarithmic=x_axis.logarithmic,
    )


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    @classmethod
    def over(
        cls, values: Sequence[float], start: float, end: float, *, may_be_log: bool = False
    ) -> _Axis:
        low, high = min(values), max(values)
        if may_be_log and low > 0 and high / low >= _LOGARITHMIC:
            return cls(low / 1.3, high * 1.5, start, end, True)
        room = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
        return cls(low - room, high + room * (1.6 if may_be_log else 1.0), start, end, False)

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self, show: Callable[[float], str], most: int) -> tuple[Tick, ...]:
        values = _decades(self.low, self.high) if self.logarithmic else []
        if len(values) < 2:
            values = _round_values(self.low, self.high, most)
        return tuple(Tick(self.at(value), show(value)) for value in values)


def _round_values(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, at most so many of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(f * power for f in (1, 2, 5, 10, 20) if (high - low) / (f * power) <= most)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [f * 10.0**p for p in powers for f in (1, 2, 5)]
    held = [value for value in values if low <= value <= high]
    return held if len(held) <= 8 else [v for v in held if f"{v:e}".startswith("1")]


def _extent(chart: Chart, axis: str) -> list[float]:
    values = [b.value for b in chart.budgets if b.axis == axis]
    for point in chart.points:
        values.append(point.x if axis == "x" else point.y)
        values += (point.x_interval if axis == "x" else point.y_interval) or ()
    return [value for value in values if math.isfinite(value)]


def _mark(
    chart: Chart,
    point: Point,
    place: tuple[float, float],
    label: tuple[float, float, str],
    x_axis: _Axis,
    y_axis: _Axis,
) -> Mark:
    across, along = point.x_interval, point.y_interval
    said = [f"{chart.y_title} {chart.show_y(point.y)}", f"{chart.x_title} {chart.show_x(point.x)}"]
    for index, (interval, show) in enumerate(((along, chart.show_y), (across, chart.show_x))):
        if interval:
            said[index] += f" (95 %: {show(interval[0])} to {show(interval[1])})"
    said.append("passes the gates" if point.passed else "does not pass the gates")
    said += ["on the Pareto front"] if point.front else []
    said += ["chosen"] if point.chosen else []
    said += [point.provenance] if point.provenance != "measured" else []
    return Mark(
        x=place[0],
        y=place[1],
        across=(x_axis.at(across[0]), x_axis.at(across[1])) if across else None,
        along=(y_axis.at(along[0]), y_axis.at(along[1])) if along else None,
        name=point.name,
        name_x=label[0],
        name_y=label[1],
        anchor=label[2],
        details=tuple(said),
        point=point,
    )


def _limits(chart: Chart, x_axis: _Axis, y_axis: _Axis, frame: Box) -> Iterator[Limit]:
    left, top, wide, high = frame
    right, bottom = left + wide, top + high
    for number, budget in enumerate(each for each in chart.budgets if each.axis == "x"):
        x = x_axis.at(budget.value)
        outside = (x, top, right - x, high) if budget.at_most else (left, top, x - left, high)
        anchor = "end" if x > left + wide / 2 else "start"
        at = x + (-5 if anchor == "end" else 5)
        yield Limit((x, top, x, bottom), outside, budget.label, at, top + 14 + 15 * number, anchor)
    former = -math.inf
    across = [(y_axis.at(each.value), each) for each in chart.budgets if each.axis == "y"]
    for y, budget in sorted(across, key=lambda each: each[0]):
        outside = (left, top, wide, y - top) if budget.at_most else (left, y, wide, bottom - y)
        # Above its line, or below where the line above is too near.
        at = y - 5 if y - former > 2 * _LINE else y + 14
        former = y
        yield Limit((left, y, right, y), outside, budget.label, right - 5, at, "end")


def _place_labels(
    names: Sequence[str], places: Sequence[tuple[float, float]], frame: Box, covered: Sequence[Box]
) -> list[tuple[float, float, str]]:
    """A position for each name beside its point, the first that covers nothing else."""
    taken = [*covered, *((x - 7, y - 7, x + 7, y + 7) for x, y in places)]
    found = []
    for name, (x, y) in zip(names, places, strict=True):
        ways = [
            (x + 11 * side, y + 4 + down, "start" if side > 0 else "end")
            for down in (-10, 14, -26, 30, -42, 46)
            for side in (1, -1)
        ]
        boxes = [_box(name, *way) for way in ways]
        free = (
            number
            for number, box in enumerate(boxes)
            if _inside(box, frame) and not any(_overlap(box, other) for other in taken)
        )
        best = next(free, 0)
        taken.append(boxes[best])
        found.append(ways[best])
    return found


def _box(text: str, x: float, y: float, anchor: str) -> Box:
    """What a text covers, as (left, top, right, bottom)."""
    wide = _LETTER * len(text)
    left = x if anchor == "start" else x - wide
    return left, y - _LINE + 3, left + wide, y + 3


def _inside(box: Box, frame: Box) -> bool:
    left, top, wide, high = frame
    return box[0] >= left and box[2] <= left + wide and box[1] >= top and box[3] <= top + high


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
