"""What is chosen over round trip and bandwidth as a picture, by matplotlib (extra `plot`)."""

from __future__ import annotations

import textwrap
from typing import Any

from lepton_compress.errors import InputError
from lepton_compress.placements import Map, Placement
from lepton_compress.report.canvas import Kind, picture
from lepton_compress.units import show_bandwidth, show_seconds

_COLOURS = ("#2f6fd0", "#d98324", "#3c9a5f", "#9a5bb5", "#b84a62", "#4d8f99", "#8d7a2c", "#6b6f76")
_NONE = "#d8dee7"
_WIDTH, _HEIGHT = 8.6, 5.2
_DPI = 160


def figure(placement: Placement, *, kind: Kind) -> bytes:
    """A map of each case that has one, above each other.

    Raises:
        InputError: there is none to draw.
        MissingExtraError: matplotlib is not installed.
    """
    if not placement.maps:
        problem = "there is no map to draw: nothing meets the demands, or no site has one link"
        raise InputError(problem, where=placement.fleet)

    def drawn(made: Any) -> None:
        grid = made.subplots(len(placement.maps), 1, squeeze=False)
        for axes, held in zip(grid[:, 0], placement.maps, strict=True):
            _draw(axes, held)

    size = (_WIDTH, _HEIGHT * len(placement.maps))
    return picture(size, kind, drawn, dpi=_DPI, layout="constrained")


def _draw(axes: Any, held: Map) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    colours = [_NONE, *(_COLOURS[i % len(_COLOURS)] for i in range(len(held.names)))]
    axes.pcolormesh(
        held.round_trips,
        held.bandwidths,
        [[cell + 1 for cell in row] for row in held.cells],
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(colours) - 0.5,
        shading="nearest",
        edgecolors="white",
        linewidth=0.4,
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, values, show in (
        (axes.xaxis, held.round_trips, show_seconds),
        (axes.yaxis, held.bandwidths, show_bandwidth),
    ):
        axis.set_ticks(values[::3], labels=[show(value) for value in values[::3]])
        axis.set_ticks([], minor=True)
    axes.plot(*held.now, marker="o", markersize=11, mfc="none", mec="black", mew=2)
    axes.set_xlabel("round trip")
    axes.set_ylabel("bandwidth up")
    axes.set_title(f"{held.workload} at {held.site}: what is chosen (ring: as it is)", loc="left")
    names = [*held.names, *(["nothing meets the demands"] if _has_none(held) else [])]
    shown = [*colours[1:], *([_NONE] if _has_none(held) else [])]
    patches = [
        Patch(color=colour, label=textwrap.fill(name, 60))
        for name, colour in zip(names, shown, strict=True)
    ]
    axes.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=9)


def _has_none(held: Map) -> bool:
    return any(cell < 0 for row in held.cells for cell in row)
