"""A placement as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_compress.placements import Map, Placed, Placement
from lepton_compress.report import placement as words
from lepton_compress.units import show_bandwidth, show_seconds

TEMPLATES = Path(__file__).parent / "templates"
_CELL, _LEFT, _TOP = 40, 96, 8
_SHOWN = 3
"""Every so many columns and rows have a label."""


@dataclass(frozen=True)
class Square:
    """A cell of a map: its corner, the number of its plan (-1: none), and what it says."""

    x: int
    y: int
    plan: int
    said: str


@dataclass(frozen=True)
class Label:
    """A text beside the map."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Drawn:
    """A map in the coordinates of an SVG picture; the highest bandwidth is on top."""

    width: int
    height: int
    side: int
    squares: tuple[Square, ...]
    columns: tuple[Label, ...]
    rows: tuple[Label, ...]
    names: tuple[str, ...]
    now: tuple[float, float]
    title: str


def html(placement: Placement) -> str:
    """The whole page; every text of a user is escaped by the template."""
    import jinja2
    from markupsafe import Markup

    world = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = "".join(
        (TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "placement.css")
    )
    mark = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return world.get_template("placement.html.j2").render(
        placement=placement,
        headline=words.headline(placement),
        cases=[_case(placement, placed) for placed in placement.placed],
        pools=[words.told(pool, placement.currency) for pool in placement.pools],
        lines=list(words.lines(placement)),
        # A file of this package, and the only text that is not escaped.
        style=Markup(style),  # noqa: S704
        style_hash=f"sha256-{mark}",
    )


def _case(placement: Placement, placed: Placed) -> dict[str, Any]:
    where = (placed.workload, placed.site)
    return {
        "title": words.title(placed),
        "placed": placed,
        "headings": words.headings(placed),
        "rows": list(words.rows(placed, placement.currency)),
        "maps": [draw(each) for each in placement.maps if (each.workload, each.site) == where],
    }


def draw(held: Map) -> Drawn:
    """A map as squares and labels."""
    wide, high = len(held.round_trips), len(held.bandwidths)
    squares = []
    for row, cells in enumerate(held.cells):
        for column, plan in enumerate(cells):
            name = held.names[plan] if plan >= 0 else "nothing meets the demands"
            trip, up = held.round_trips[column], held.bandwidths[row]
            said = f"{name}, {show_seconds(trip)} round trip, {show_bandwidth(up)} up"
            place = (_LEFT + column * _CELL, _TOP + (high - 1 - row) * _CELL)
            squares.append(Square(*place, plan, said))
    bottom = _TOP + high * _CELL
    columns = [
        Label(_LEFT + (i + 0.5) * _CELL, bottom + 18, show_seconds(held.round_trips[i]))
        for i in range(0, wide, _SHOWN)
    ]
    rows = [
        Label(_LEFT - 8, _TOP + (high - 0.5 - i) * _CELL + 4, show_bandwidth(held.bandwidths[i]))
        for i in range(0, high, _SHOWN)
    ]
    middle = (_LEFT + wide / 2 * _CELL, _TOP + high / 2 * _CELL)
    return Drawn(
        width=_LEFT + wide * _CELL + 12,
        height=bottom + 48,
        side=_CELL,
        squares=tuple(squares),
        columns=tuple(columns),
        rows=tuple(rows),
        names=held.names,
        now=middle,
        title=f"{held.workload} at {held.site} over round trip and bandwidth",
    )
