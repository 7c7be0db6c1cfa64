"""What each group of channels is worth, on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.errors import MissingExtraError, OutputError, RecipeError
from lepton_compress.overviews import GroupSensitivity, Sensitivities
from lepton_compress.units import show_percent

_LEVELS = ((0.01, "green"), (0.05, "yellow"), (float("inf"), "red"))
"""Drops up to each of these, as shares of one, have its colour."""


def numbers(text: str) -> list[float]:
    """`0.25,0.5` as numbers.

    Raises:
        RecipeError: it is no such list.
    """
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise RecipeError(
            f"{text!r} is no list of numbers",
            where="sensitivity: --ratios",
            mend="write for example 0.25,0.5,0.75",
        ) from None


def kind_of(plot: Path) -> Literal["png", "svg"]:
    """What picture a file's name asks for; before any work, so that nothing is computed in vain.

    Raises:
        OutputError: another one than there is.
        MissingExtraError: matplotlib is not installed.
    """
    import importlib.util

    suffix = plot.suffix.lower()
    if suffix not in (".png", ".svg"):
        raise OutputError("is neither .svg nor .png", where=str(plot), mend="name such a file")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(
            "a picture needs matplotlib", mend="pip install 'lepton-compress[plot]'"
        )
    return "png" if suffix == ".png" else "svg"


def show(found: Sensitivities, console: Console) -> None:
    """A row for each group, most sensitive first."""
    console.print(_table(found), soft_wrap=False)
    whole = "" if found.reached is None else f"; the whole model reaches {_plain(found)}"
    console.print(
        Text(f"drops of {found.judged_by} ({found.metric}) on {found.judged_on}{whole}", "dim")
    )
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"))


def said(found: Sensitivities, drop: float) -> str:
    """A drop, as the metric is read."""
    return show_percent(drop) if found.share else f"{drop:.4g}"


def ordered(found: Sensitivities) -> list[GroupSensitivity]:
    """Most sensitive first; those of which nothing could be tried last."""
    return sorted(found.groups, key=lambda each: (-max(each.drops, default=-1.0), each.layer))


def _plain(found: Sensitivities) -> str:
    assert found.reached is not None  # noqa: S101 - the caller has looked
    return said(found, found.reached)


def _table(found: Sensitivities) -> Table:
    title = f"{found.recipe}, {found.variant}" if found.variant else found.recipe
    drawn = Table(title=Text(title), title_justify="left", header_style="bold", box=None)
    drawn.add_column("group")
    drawn.add_column("width", justify="right")
    drawn.add_column("narrowed alone to: drop")
    for group in ordered(found):
        cells = Text("  ").join(
            Text.assemble(f"{width}: ", (said(found, drop), _colour(found, drop)))
            for width, drop in zip(group.widths, group.drops, strict=True)
        )
        none = Text("cannot be narrower", style="dim")
        drawn.add_row(group.layer, str(group.width), cells if group.widths else none)
    return drawn


def _colour(found: Sensitivities, drop: float) -> str:
    scale = 1.0 if found.share else abs(found.reached or 1.0) or 1.0
    return next(colour for limit, colour in _LEVELS if drop / scale <= limit)
