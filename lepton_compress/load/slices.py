"""Slices: parts of the evaluation data that the user names, checked once when they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Split
from lepton_compress.errors import InputError
from lepton_compress.load.references import resolve

if TYPE_CHECKING:
    import numpy as np

MOST_VALUES = 100
"""Of one column: more are no parts of the data but a measurement."""


def read_slices(given: Any, samples: int, where: str) -> dict[str, np.ndarray]:
    """Columns of slices: name to an array (samples,) of booleans, whole numbers or texts.

    Raises:
        InputError: a column has another length or kind, no sample in it, or too many values.
    """
    import numpy as np

    if not isinstance(given, Mapping):
        raise InputError(
            f"are {type(given).__name__}, not a mapping of names to arrays", where=where
        )
    found = {}
    for name, column in given.items():
        array = np.asarray(column)
        if array.shape != (samples,):
            raise InputError(
                f"{name} has shape {array.shape}, but there are {samples} samples",
                where=where,
                mend="give one value a sample",
            )
        if array.dtype.kind not in "biuU":
            raise InputError(
                f"{name} holds {array.dtype}",
                where=where,
                mend="give true or false, whole numbers, or texts",
            )
        if array.dtype.kind == "b" and not array.any():
            raise InputError(
                f"{name} holds no sample of the evaluation data", where=where, mend="drop it"
            )
        if (values := len(np.unique(array))) > MOST_VALUES:
            raise InputError(
                f"{name} has {values} values; at most {MOST_VALUES} make slices",
                where=where,
                mend="group them first",
            )
        found[str(name)] = array
    return found


def call_slices(reference: str, folder: Path, split: Split) -> dict[str, np.ndarray]:
    """The columns that a user's function of (inputs by name, targets) returns.

    Raises:
        InputError: there is no such function, it raises, or its columns are wrong.
    """
    function = resolve(reference, folder)
    try:
        made = function(split.inputs, split.targets)
    except (Exception, SystemExit) as error:
        said = f"raised {type(error).__name__}: {error}"
        mend = f"it is given the inputs {', '.join(split.inputs)} by name, and the targets"
        raise InputError(said, where=reference, mend=mend) from error
    return read_slices(made, len(split), f"slices: {reference}")
