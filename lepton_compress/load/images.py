"""The loader `images`: a folder or a .zip of pictures."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from lepton_compress.errors import InputError
from lepton_compress.load.cleaning import Cleaning
from lepton_compress.load.files import Sha256, locate
from lepton_compress.load.labelled import (
    Files,
    by_folder,
    by_name,
    by_table,
    numbers,
    opened,
    splits_of,
)
from lepton_compress.load.pictures import SUFFIXES, Mode, decode
from lepton_compress.load.splitting import Labels, Shares, part, taken
from lepton_compress.registry import plugin

if TYPE_CHECKING:
    import numpy as np

Side = Annotated[int, Field(strict=True, ge=1, le=16384)]


class ImageLoader(Shares, Cleaning):
    """Reads pictures of one size as bytes (height, width, channels)."""

    path: str = Field(
        description="A folder, or a .zip with one inside. Where it holds the folders `train` and "
        "`evaluation`, and perhaps `calibration`, these are the splits."
    )
    sha256: Sha256 | None = Field(None, description="That a .zip must have.")
    label: str | None = Field(
        None,
        description="A regular expression that a file's name must match, with the group `label`: "
        "`(?P<label>\\d+)_.*`. By default the label is the folder that the file is in.",
    )
    table: str | None = Field(
        None, description="A CSV with the columns `file` and `label`, in that folder or .zip."
    )
    labels: Labels | None = Field(
        None,
        min_length=1,
        description="All labels, in the order of the model's scores; by default those there are, "
        "sorted. Labels that are all whole numbers are taken as they are.",
    )
    mode: Mode = Field("rgb", description="What the pictures are: three channels, or one.")
    convert: bool = Field(
        False,
        description="Convert pictures of other modes: grey ones, palettes, 16 bits, and "
        "transparent ones, which lie on black then.",
    )
    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="Resize while loading, `[height, width]` or the side of a square, for pictures "
        "of several sizes. The model's own resizing is for `preprocess: image`.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.label is not None and self.table is not None:
            raise ValueError("labels come from the names (`label`) or from a `table`, not both")
        try:
            pattern = re.compile(self.label or "(?P<label>)")
        except re.error as error:
            raise ValueError(f"label is no regular expression: {error}") from error
        if "label" not in pattern.groupindex:
            raise ValueError("label has no group `label`; write (?P<label>...)")
        return self


@plugin("loader", "images", ImageLoader)
def load_images(params: ImageLoader, folder: Path, seed: int) -> Any:
    """Reads a folder or .zip of pictures; labels from folders, file names or a table."""
    import numpy as np

    files = opened(locate(params.path, folder, params.sha256))
    labelled = _labelled(params, files)
    names = list(labelled)
    splits = splits_of(names, files.where)
    targets = np.array(numbers(params.labels, labelled, files.where), np.int64)
    inputs = {"image": _pictures(params, files, names)}
    # Those to evaluate on are looked at first, so that a double of one is dropped elsewhere.
    held = splits or []
    order = sorted(range(len(names)), key=lambda row: held[row : row + 1] != ["evaluation"])
    how = {"where": files.where, "named": names.__getitem__, "order": order}
    kept = params.kept(inputs, targets, **how)
    parts = _parted(params, kept.rows, splits, seed, files.where)
    notes = [*kept.notes, *_ignored(files, names, params.table)]
    return {**taken(parts, inputs, targets), "notes": notes}


def _labelled(params: ImageLoader, files: Files) -> dict[str, str]:
    """Name of each picture to its label."""
    if params.table is not None:
        return by_table(params.table, files)
    names = [name for name in files.names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not names:
        raise InputError(
            "holds no pictures",
            where=files.where,
            mend=f"their names end in {', '.join(sorted(SUFFIXES))}",
        )
    if params.label is not None:
        return by_name(names, params.label, files.where)
    return by_folder(names, files.where)


def _parted(
    params: ImageLoader, rows: np.ndarray, splits: list[str] | None, seed: int, where: str
) -> dict[str, np.ndarray]:
    import numpy as np

    if splits is None:
        return part(rows, params, seed, where)
    held = np.array(splits)[rows]
    found = {name: rows[held == name] for name in ("train", "calibration", "evaluation")}
    if len(found["calibration"]):
        found["train"] = np.random.default_rng(seed).permutation(found["train"])
        return found
    return part(rows, params, seed, where, evaluation=found["evaluation"])


def _pictures(params: ImageLoader, files: Files, names: list[str]) -> np.ndarray:
    """(samples, height, width, channels) uint8."""
    import numpy as np

    sides = [params.size] * 2 if isinstance(params.size, int) else params.size
    size = (sides[0], sides[1]) if sides else None
    made: np.ndarray | None = None
    for row, name in enumerate(names):
        where = f"{files.where}/{name}"
        each = decode(files.read(name), where, mode=params.mode, convert=params.convert, size=size)
        if made is None:
            made = np.empty((len(names), *each.shape), np.uint8)
        if each.shape != made.shape[1:]:
            raise InputError(
                f"is {each.shape[1]}x{each.shape[0]}, while {names[0]} is "
                f"{made.shape[2]}x{made.shape[1]}",
                where=where,
                mend="give `size: [height, width]` to resize all of them",
            )
        made[row] = each
    if made is None:
        raise InputError("names no picture", where=files.where)
    return made


def _ignored(files: Files, names: list[str], table: str | None) -> list[str]:
    """A note on files that are no pictures, or that the table does not name."""
    others = sorted({*files.names} - {*names, table})
    if not others:
        return []
    plural = "file" if len(others) == 1 else "files"
    return [f"{len(others)} other {plural} ignored (first: {others[0]})"]
