"""The targets that a recipe can name, for people and machines to look at."""

from __future__ import annotations

import re
from pathlib import Path

from lepton_compress import catalogue, registry
from lepton_compress.errors import LeptonError, RecipeError
from lepton_compress.overviews import TargetPage, TargetRow


def listing(folder: Path | None = None) -> tuple[TargetRow, ...]:
    """Every target by name; one whose file is wrong says why.

    Args:
        folder: of a recipe, whose own targets are listed too.

    Raises:
        RecipeError: two files are named alike, or a folder of targets does not exist.
    """
    return tuple(
        _row(name, each) for name, each in sorted(catalogue.listed(folder).items(), key=_order)
    )


def page(name: str, folder: Path | None = None) -> TargetPage:
    """Everything about one target.

    Raises:
        RecipeError: there is none of that name, or its file is wrong.
    """
    held, device = catalogue.listed(folder).get(name), catalogue.find(name, folder)
    if held is None:  # `find` has told of it already
        raise RecipeError(f"unknown target {name!r}")
    return TargetPage(
        name=device.name,
        about=device.about,
        runtime=device.runtime,
        origin=held.origin,
        file=str(held.file),
        options=device.options,
        threads=device.threads,
        needs_host=device.needs_host,
        simulated=registry.get("runtime", device.runtime).simulates,
        dtypes=tuple(device.dtypes),
        operators=(device.operators,)
        if isinstance(device.operators, str)
        else tuple(device.operators),
        channels_multiple=device.channels_multiple,
        ram=device.limits.ram,
        flash=device.limits.flash,
        source=device.source,
        use=f"targets: [{{device: {name}, host: user@device}}]"
        if device.needs_host
        else f"targets: [{name}]",
    )


def _order(pair: tuple[str, catalogue.Listed]) -> list[tuple[int, int, str]]:
    """By name, numbers in it by their size."""
    parts = re.split(r"(\d+)", pair[0])
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _row(name: str, held: catalogue.Listed) -> TargetRow:
    try:
        device = catalogue.read(held.file)
    except LeptonError as error:
        return TargetRow(name, "", "", held.origin, broken=str(error))
    limits = device.limits
    return TargetRow(name, device.about, device.runtime, held.origin, limits.ram, limits.flash)
