"""The chart of a target as a picture for a slide, SVG or PNG, by matplotlib (extra `plot`).

It draws the same lines at the same places as the HTML report, in light colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lepton_compress.report.canvas import Kind, picture
from lepton_compress.report.chart import Chart
from lepton_compress.report.drawing import Drawing, Mark, draw

_INK, _MUTED, _LINE = "#1b2430", "#566171", "#d8dee7"
_ACCENT, _GOOD, _BUDGET = "#1d5fc4", "#19733a", "#9a5b00"
_SIZE = (860.0, 480.0)
"""Of one chart, the shape of a slide."""
_UNITS = 100.0
"""Units of a drawing in an inch."""
_POINT = 72 / _UNITS


def figure(charts: Sequence[Chart], title: str, *, kind: Kind) -> bytes:
    """Charts above each other; the same bytes each time with one version of matplotlib.

    Args:
        charts: at least one, each with at least one point.
        title: above them; taken as it is, never as mathematics.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    wide, high, head = _SIZE[0], _SIZE[1] * len(charts), 40.0

    def drawn(made: Any) -> None:
        axes = made.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, wide)
        axes.set_ylim(high + head, 0)
        axes.text(12, 26, title, color=_INK, fontweight="bold", fontsize=16 * _POINT)
        for number, chart in enumerate(charts):
            _Pen(axes, head + number * _SIZE[1]).draw(chart, draw(chart, *_SIZE))

    size = (wide / _UNITS, (high + head) / _UNITS)
    return picture(size, kind, drawn, settings={"font.size": 13 * _POINT})


class _Pen:
    """Draws on axes whose units are those of a `Drawing`, moved down by `top`."""

    def __init__(self, axes: Any, top: float) -> None:
        self.axes, self.top = axes, top

    def draw(self, chart: Chart, drawing: Drawing) -> None:
        left, top, wide, high = drawing.frame
        right, bottom = left + wide, top + high
        for tick in drawing.y_ticks:
            self.line([left, right], [tick.at, tick.at], _LINE, 0.6)
            self.text(left - 8, tick.at + 4, tick.label, _MUTED, "end")
        for tick in drawing.x_ticks:
            self.line([tick.at, tick.at], [top, bottom], _LINE, 0.6)
            self.text(tick.at, bottom + 18, tick.label, _MUTED, "middle")
        for limit in drawing.limits:
            x, y, width, height = limit.outside
            self.axes.fill_between(
                [x, x + width], y + self.top, y + height + self.top, color=_BUDGET, alpha=0.07, lw=0
            )
            x1, y1, x2, y2 = limit.line
            self.line([x1, x2], [y1, y2], _BUDGET, 1.2, style="--")
            self.text(limit.label_x, limit.label_y, limit.label, _BUDGET, limit.anchor)
        self.line([left, left, right], [top, bottom, bottom], _MUTED, 0.8)
        corners = [each.split(",") for each in drawing.front.split()]
        self.line([float(x) for x, _ in corners], [float(y) for _, y in corners], _ACCENT, 1.2)
        for mark in drawing.marks:
            self.mark(mark)
        scale = ", logarithmic" if drawing.logarithmic else ""
        said = f"{chart.x_title}{scale}, on {chart.target}"
        self.text(left + wide / 2, drawing.height - 10, said, _MUTED, "middle")
        self.text(4, 16, chart.y_title, _MUTED, "start")

    def mark(self, mark: Mark) -> None:
        point = mark.point
        colour = _GOOD if point.chosen else _INK if point.baseline else _ACCENT
        if mark.across:
            self.line(mark.across, [mark.y, mark.y], _MUTED, 0.9, ends="|")
        if mark.along:
            self.line([mark.x, mark.x], mark.along, _MUTED, 0.9, ends="_")
        self.axes.plot(
            [mark.x],
            [mark.y + self.top],
            marker="D" if point.baseline else "o",
            markersize=(16 if point.chosen else 12) * _POINT,
            color=colour,
            markerfacecolor=colour if point.passed else "white",
            markeredgewidth=1.5,
            zorder=3,
        )
        weight = "bold" if point.chosen else "normal"
        how = "" if point.provenance == "measured" else f" ({point.provenance})"
        self.text(mark.name_x, mark.name_y, mark.name + how, colour, mark.anchor, weight=weight)

    def line(
        self,
        x: Sequence[float],
        y: Sequence[float],
        colour: str,
        width: float,
        *,
        style: str = "-",
        ends: str = "",
    ) -> None:
        down = [each + self.top for each in y]
        self.axes.plot(
            x, down, color=colour, linewidth=width, linestyle=style, marker=ends, markersize=6
        )

    def text(
        self, x: float, y: float, said: str, colour: str, anchor: str, *, weight: str = "normal"
    ) -> None:
        side = {"start": "left", "middle": "center", "end": "right"}[anchor]
        self.axes.text(
            x, y + self.top, said, color=colour, ha=side, va="baseline", fontweight=weight, zorder=4
        )
