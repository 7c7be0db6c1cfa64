"""The chart of a target as a picture for a slide, SVG or PNG, by matplotlib (extra `plot`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

from lepton_compress.errors import MissingExtraError
from lepton_compress.report.chart import Chart

_INK, _MUTED, _ACCENT, _GOOD, _BUDGET = "#1b2430", "#566171", "#1d5fc4", "#19733a", "#9a5b00"
_SIZE = (8.0, 4.5)
"""Inches, of one chart: the shape of a slide."""
_DPI = 200


def figure(charts: Sequence[Chart], title: str, *, kind: Literal["png", "svg"]) -> bytes:
    """Charts above each other, the same bytes each time.

    Args:
        charts: at least one, each with at least one point.
        title: above them; taken as it is, never as mathematics.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"a picture needs matplotlib ({error})", mend="pip install 'lepton-compress[plot]'"
        ) from error
    # Ids in an SVG are random without a salt; texts stay texts, so that a slide can change them.
    settings = {"svg.hashsalt": "lepton-compress", "svg.fonttype": "none", "font.size": 11}
    with matplotlib.rc_context(settings):
        made = Figure(figsize=(_SIZE[0], _SIZE[1] * len(charts)), layout="constrained")
        FigureCanvasAgg(made)
        made.suptitle(title, color=_INK, fontweight="bold", parse_math=False)
        for number, chart in enumerate(charts):
            _draw(made.add_subplot(len(charts), 1, number + 1), chart)
        held = io.BytesIO()
        about = {"Date": None} if kind == "svg" else {"Software": None}
        made.savefig(held, format=kind, dpi=_DPI, metadata=about)
    return held.getvalue()


def _draw(axes: Any, chart: Chart) -> None:
    for point in chart.points:
        colour = _GOOD if point.chosen else _INK if point.baseline else _ACCENT
        axes.errorbar(
            point.x,
            point.y,
            xerr=_arms(point.x, point.x_interval),
            yerr=_arms(point.y, point.y_interval),
            fmt="D" if point.baseline else "o",
            markersize=10 if point.chosen else 7,
            color=colour,
            markerfacecolor=colour if point.passed else "white",
            ecolor=_MUTED,
            elinewidth=1,
            capsize=3,
            zorder=3,
        )
        how = "" if point.provenance == "measured" else f" ({point.provenance})"
        axes.annotate(
            point.name + how,
            (point.x, point.y),
            xytext=(9, 7),
            textcoords="offset points",
            color=colour,
            fontweight="bold" if point.chosen else "normal",
            parse_math=False,
            zorder=4,
        )
    line = [chart.points[index] for index in chart.line]
    axes.step(
        [each.x for each in line], [each.y for each in line], where="post", color=_ACCENT, alpha=0.6
    )
    if max(p.x for p in chart.points) > 20 * min(p.x for p in chart.points) > 0:
        axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    for budget in chart.budgets:
        _draw_budget(axes, budget)
    axes.xaxis.set_major_formatter(lambda value, _: chart.show_x(value))
    axes.yaxis.set_major_formatter(lambda value, _: chart.show_y(value))
    axes.set_xlabel(f"{chart.x_title}, on {chart.target}", color=_MUTED, parse_math=False)
    axes.set_ylabel(chart.y_title, color=_MUTED, parse_math=False)
    axes.tick_params(colors=_MUTED)
    axes.grid(color="#d8dee7", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_budget(axes: Any, budget: Any) -> None:
    style = {"color": _BUDGET, "linestyle": "--", "linewidth": 1.2}
    text = {"color": _BUDGET, "fontsize": 9, "xytext": (-4, 3), "textcoords": "offset points"}
    if budget.axis == "x":
        axes.axvline(budget.value, **style)
        place, frame = (budget.value, 1.0), axes.get_xaxis_transform()
        text |= {"xytext": (-4, -11), "ha": "right"}
    else:
        axes.axhline(budget.value, **style)
        place, frame = (1.0, budget.value), axes.get_yaxis_transform()
        text |= {"ha": "right"}
    axes.annotate(budget.label, place, xycoords=frame, parse_math=False, **text)


def _arms(value: float, interval: tuple[float, float] | None) -> list[list[float]] | None:
    """Lengths of an error bar to both sides."""
    if interval is None:
        return None
    return [[max(value - interval[0], 0.0)], [max(interval[1] - value, 0.0)]]
