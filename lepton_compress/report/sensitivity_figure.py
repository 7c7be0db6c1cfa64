"""What each group of channels is worth as a picture, SVG or PNG, by matplotlib (extra `plot`).

A few groups are lines; of many, whose lines would hide each other, the drops are a map of colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compress.overviews import GroupSensitivity, Sensitivities
from lepton_compress.report.canvas import Kind, picture
from lepton_compress.report.sensitivity import ordered, said

FEW = 8
"""Groups that can be told apart as lines."""
_INK, _MUTED, _GRID = "#1b2430", "#566171", "#d8dee7"
_COLOURS = ("#1d5fc4", "#b3261e", "#19733a", "#9a5b00", "#6b3fa0", "#0b7285", "#a61e69", "#4d4d4d")
_MARKERS = "osD^vPX*"
_SETTINGS = {
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
}


def figure(found: Sensitivities, *, kind: Kind) -> bytes:
    """The picture; the same bytes each time with one version of matplotlib.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    groups = [each for each in ordered(found) if each.widths]

    def drawn(made: Any) -> None:
        axes = made.add_subplot()
        title = f"{found.recipe}: what each group loses alone"
        axes.set_title(title, loc="left", fontweight="bold", fontsize=13)
        (_lines if len(groups) <= FEW else _map)(axes, found, groups)

    high = 4.8 if len(groups) <= FEW else 1.6 + 0.26 * len(groups)
    return picture((8.6, high), kind, drawn, layout="constrained", settings=_SETTINGS)


def _lines(axes: Any, found: Sensitivities, groups: Sequence[GroupSensitivity]) -> None:
    for number, group in enumerate(groups):
        gone = [0.0, *(1 - width / group.width for width in group.widths)]
        axes.plot(
            [100 * each for each in gone],
            [0.0, *group.drops],
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            linewidth=1.6,
            label=f"{group.layer} ({group.width})",
        )
    axes.set_xlabel(f"channels removed, %  ({found.judged_on})")
    axes.set_ylabel(f"drop of {_what(found)}")
    axes.yaxis.set_major_formatter(lambda value, _: said(found, value))
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="group (channels)", frameon=False, fontsize=9, loc="upper left")


def _map(axes: Any, found: Sensitivities, groups: Sequence[GroupSensitivity]) -> None:
    """A row for each group, a column for each ratio; groups that were rounded to fewer widths
    have none at the left."""
    columns = max(len(each.widths) for each in groups)
    drops = np.full((len(groups), columns), np.nan)
    for row, group in enumerate(groups):
        drops[row, columns - len(group.widths) :] = group.drops
    drawn = axes.imshow(drops, aspect="auto", cmap="viridis_r", vmin=min(0.0, np.nanmin(drops)))
    axes.set_yticks(range(len(groups)), [f"{each.layer} ({each.width})" for each in groups])
    axes.set_xticks([])
    axes.set_xlabel(f"channels left; more removed to the right  ({found.judged_on})")
    middle = (np.nanmin(drops) + np.nanmax(drops)) / 2
    for row, group in enumerate(groups):
        for place, (width, drop) in enumerate(zip(group.widths, group.drops, strict=True)):
            axes.text(
                columns - len(group.widths) + place,
                row,
                f"{width}: {said(found, drop)}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if drop > middle else _INK,
            )
    bar = axes.figure.colorbar(drawn, ax=axes, format=lambda value, _: said(found, value))
    bar.set_label(f"drop of {_what(found)}")


def _what(found: Sensitivities) -> str:
    by_metric = found.reached is not None
    return found.metric.replace("_", " ") if by_metric else found.judged_by
