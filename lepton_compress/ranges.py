"""Saved ranges of activations: a document with its provenance, which a run leaves for each variant
it has calibrated, `inspect` shows, and `quantize: {ranges: FILE}` takes instead of calibrating."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lepton_compress.errors import InputError

KIND = "lepton-compress ranges"
VERSION = 1
_LARGEST = 64 * 2**20
"""Bytes; no model has that many tensors."""


class Ranges(BaseModel):
    """Ranges of a float graph's activations, and where they come from.

    Attributes:
        tool: version of lepton-compress that found them.
        model: digest of the float graph that they belong to.
        data: fingerprint of the dataset.
        calibrator: how they follow from the values seen.
        samples: how many calibration samples were seen.
        ranges: tensor to its lowest and highest value; holds zero.
        seen: tensor to its smallest and largest value on these samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: str = KIND
    version: int = VERSION
    tool: str
    model: str
    data: str
    calibrator: str
    samples: int
    ranges: dict[str, tuple[float, float]]
    seen: dict[str, tuple[float, float]]

    @model_validator(mode="after")
    def _ordered(self) -> Ranges:
        for name, (low, high) in self.ranges.items():
            if not low <= 0 <= high or not math.isfinite(high - low):
                raise ValueError(f"the range of {name}, {low} to {high}, does not hold zero")
            if low == high:
                raise ValueError(f"the range of {name} is empty")
        return self


def from_statistics(statistics: Mapping[str, Any], *, tool: str, data: str) -> Ranges | None:
    """What a `quantize` step says of its ranges; None if it calibrated nothing."""
    if "calibrated_model" not in statistics:
        return None
    return Ranges(
        tool=tool,
        model=statistics["calibrated_model"],
        data=data,
        calibrator=statistics["calibration"],
        samples=statistics["calibration_samples"],
        ranges={name: (low, high) for name, (low, high) in statistics["ranges"].items()},
        seen={name: (low, high) for name, (low, high) in statistics["seen"].items()},
    )


def to_json(ranges: Ranges) -> str:
    """The text of the document."""
    return json.dumps(ranges.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"


def is_ranges(path: Path) -> bool:
    """Whether a file says that it is such a document."""
    try:
        if path.stat().st_size > _LARGEST:
            return False
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(held, dict) and held.get("kind") == KIND


def read_ranges(path: Path) -> Ranges:
    """Read a document.

    Raises:
        InputError: it is missing, none, of another version, or holds a range that is none.
    """
    where = str(path)
    if not path.is_file():
        raise InputError("no such file", where=where, mend="a run leaves one in its ranges folder")
    if not is_ranges(path):
        raise InputError(
            f"is no document of ranges (its kind is not {KIND!r})",
            where=where,
            mend="a run leaves one in its ranges folder",
        )
    text = path.read_text(encoding="utf-8")
    if json.loads(text).get("version") != VERSION:
        raise InputError(f"its version is not {VERSION}", where=where, mend="calibrate again")
    try:
        return Ranges.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        problem = f"{place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
        raise InputError(problem, where=where, mend="calibrate again") from error
