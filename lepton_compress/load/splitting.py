"""How a loader parts its samples into the three splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from lepton_compress.errors import InputError
from lepton_compress.registry import Params
from lepton_compress.units import Percent

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "calibration", "evaluation")


def _distinct(labels: list[str]) -> list[str]:
    for row, label in enumerate(labels):
        if label in labels[:row]:
            raise ValueError(f"{label!r} stands twice")
    return labels


Labels = Annotated[list[str], AfterValidator(_distinct)]
"""In the order of the model's scores, so that one that stood twice would move those behind it."""


class Shares(Params):
    """How many samples each split gets."""

    calibration: Percent = Field(0.1, description="Share of samples to calibrate with.")
    evaluation: Percent = Field(0.2, description="Share of samples to evaluate on.")


def part(
    rows: np.ndarray, shares: Shares, seed: int, where: str, evaluation: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Samples to split: at random by the seed, or so but for those to evaluate on.

    Args:
        rows: (samples,) whole numbers, what to part.
        where: what to name in errors.
        evaluation: (samples,) of the rows, in place of a share of them.

    Returns:
        Split to its rows, disjoint, in an order drawn by the seed; `evaluation` as given.

    Raises:
        InputError: the shares exceed the whole.
    """
    import numpy as np

    share = shares.evaluation if evaluation is None else 0.0
    count = len(rows)
    rest = rows if evaluation is None else np.setdiff1d(rows, evaluation, assume_unique=True)
    order = np.random.default_rng(seed).permutation(len(rest))
    calibrating = round(count * shares.calibration)
    training = len(rest) - calibrating
    if evaluation is None:
        training = round(count * (1 - shares.calibration - share))
    if training < 0:
        raise InputError("calibration and evaluation together exceed 100 %", where=where)
    drawn = np.split(rest[order], [training, training + calibrating])
    found = dict(zip(SPLITS, drawn, strict=True))
    return found if evaluation is None else {**found, "evaluation": evaluation}


def taken(
    parts: Mapping[str, np.ndarray],
    inputs: Mapping[str, Any],
    targets: Any | None = None,
    slices: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The samples of each split, as a loader returns them.

    Args:
        parts: split to its rows.
        inputs: name to array (samples, ...).
        targets: (samples, ...).
        slices: name to column (samples,); only the evaluation's are looked at, and a part may lie
            outside another split.
    """
    return {
        split: {
            "inputs": {name: array[rows] for name, array in inputs.items()},
            "targets": None if targets is None else targets[rows],
            "slices": {name: column[rows] for name, column in (slices or {}).items()}
            if split == "evaluation"
            else {},
        }
        for split, rows in parts.items()
    }
