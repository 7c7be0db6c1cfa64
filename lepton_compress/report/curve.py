"""The course of a training as a small picture: loss by epoch, of training and held-out samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lepton_compress.artifacts import Json

WIDTH, HEIGHT = 320.0, 120.0
_MARGIN = 6.0


@dataclass(frozen=True)
class Curve:
    """Lines in the coordinates of an SVG picture, and what stands below it.

    Attributes:
        lines: what each is called, as a class name, to its points `x,y x,y`.
        best: across, where the epoch is that came out; None where none was chosen.
    """

    lines: tuple[tuple[str, str], ...]
    best: float | None
    caption: str


def curves(statistics: Mapping[str, Json]) -> Iterator[Curve]:
    """Of every training that a step's statistics tell of, in their order."""
    for name, held in [("", statistics), *statistics.items()]:
        if isinstance(held, Mapping) and isinstance(held.get("curve"), Mapping):
            yield from _curve(name, held)


def _curve(name: str, held: Mapping[str, Json]) -> Iterator[Curve]:
    told = {"training": "loss", "held-out": "validation_loss"}
    found = {kind: held["curve"].get(key) for kind, key in told.items()}
    rows = {kind: row for kind, row in found.items() if isinstance(row, list) and len(row) > 1}
    if not rows:
        return  # one epoch is a number, and stands among the statistics
    low, high = min(map(min, rows.values())), max(map(max, rows.values()))
    count = max(map(len, rows.values()))

    def across(epoch: float) -> float:
        return _MARGIN + (WIDTH - 2 * _MARGIN) * epoch / (count - 1)

    def down(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return HEIGHT - _MARGIN - (HEIGHT - 2 * _MARGIN) * share

    lines = tuple(
        (kind, " ".join(f"{across(at):.1f},{down(value):.1f}" for at, value in enumerate(row)))
        for kind, row in rows.items()
    )
    best = held.get("best_epoch")
    ends = "; ".join(f"{kind} {row[0]:.3g} to {row[-1]:.3g}" for kind, row in rows.items())
    chosen = f"; epoch {best} of {count} came out" if isinstance(best, int) else ""
    heading = f"{name}: " if name else ""
    caption = f"{heading}loss by epoch, {ends}{chosen}"
    yield Curve(lines, across(best - 1) if isinstance(best, int) else None, caption)
