"""From an artifact's outputs to answers in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Json
from lepton_compress.predictions import Answer, Guess

if TYPE_CHECKING:
    import numpy as np

_MOST_VALUES = 10


def answers(
    outputs: Mapping[str, np.ndarray],
    about: Mapping[str, Mapping[str, Json]],
    given: str,
    top: int,
    notes: Sequence[str] = (),
) -> list[Answer]:
    """One answer a sample, by the first output whose meaning is known, else by the first.

    Args:
        outputs: name to (samples, ...).
        about: by output, what its postprocessing told.
        given: what the samples were read from; several are numbered.
        top: how many classes to tell.
    """
    name = next((each for each in outputs if each in about), next(iter(outputs)))
    array = outputs[name]
    rows = [f"{given} [{row}]" for row in range(len(array))] if len(array) > 1 else [given]
    known = about.get(name, {})
    return [
        _answer(values, known, name, row, top, tuple(notes))
        for row, values in zip(rows, array, strict=True)
    ]


def _answer(
    values: Any,
    about: Mapping[str, Json],
    output: str,
    given: str,
    top: int,
    notes: tuple[str, ...],
) -> Answer:
    import numpy as np

    flat = np.asarray(values, np.float64).reshape(-1)
    if about.get("kind") != "classes":
        shown = tuple(map(float, flat[:_MOST_VALUES]))
        return Answer(given, output, (), None, shown, int(flat.size), notes)
    single = flat.size == 1
    labels = about["labels"] or [str(each) for each in range(2 if single else flat.size)]
    threshold = about["threshold"]
    shares = np.array([1 - flat[0], flat[0]]) if single else flat
    order = np.argsort(-shares, kind="stable")
    if single and threshold is not None and (flat[0] > threshold) != (order[0] == 1):
        order = order[::-1]  # the limit between the two is not in the middle
    guesses = tuple(Guess(labels[each], int(each), float(shares[each])) for each in order[:top])
    unsure = not single and threshold is not None and bool(shares.max() < threshold)
    return Answer(given, output, guesses, threshold if unsure else None, (), int(flat.size), notes)
