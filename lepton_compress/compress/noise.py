"""How much signal 8-bit rounding with one scale for a whole tensor leaves of weights and
activations: what equalising and smoothing are to mend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.calibration import BYTES
from lepton_compress.compress.session import observing
from lepton_compress.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS = 255
_MOST = 32
"""Samples of a batch."""


def rounded(array: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """The values as unsigned 8-bit integers over a range that holds zero, in float again."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max(high - low, 1e-30) / LEVELS
    zero = round(-low / step)
    levels = np.clip(np.round(array / np.float32(step)) + zero, 0, LEVELS) - zero
    made: NDArray[np.float32] = (levels * step).astype(np.float32)
    return made


def rounded_weight(array: NDArray[Any], outputs: int | None) -> NDArray[np.float32]:
    """The values as signed 8-bit integers, symmetric: one scale for each place along the axis
    `outputs`, or one for all."""
    axes = None if outputs is None else tuple(a for a in range(array.ndim) if a != outputs)
    step = np.maximum(np.abs(array).max(axis=axes, keepdims=True) / 127, 1e-30)
    made: NDArray[np.float32] = (np.round(array / step) * step).astype(np.float32)
    return made


def mean_decibels(signal: NDArray[Any], noise: NDArray[Any]) -> float | None:
    """Mean over channels of 10 log10 of the quotient, so that a small channel counts as much as a
    large one; channels without signal or noise are left out. None if no channel is left."""
    held = (signal > 0) & (noise > 0)
    if not held.any():
        return None
    return round(10 * float(np.log10(signal[held] / noise[held]).mean()), 2)


def of_weight(array: NDArray[Any], axis: int) -> float | None:
    """Signal to noise of rounding a weight with one scale, in decibels, the mean over channels
    along `axis`."""
    made = array.astype(np.float64)
    error = made - rounded_weight(array, None)
    return mean_decibels(_energy(made, axis), _energy(error, axis))


def of_activations(
    model: Model, axes: Mapping[str, int], split: Split, samples: int, threads: int
) -> dict[str, float | None]:
    """Signal to noise of rounding values over the range that they have on the samples, in
    decibels, each the mean over channels along its axis. One pass finds the ranges and one the
    noise, so that memory does not grow with the samples."""
    ends: dict[str, tuple[float, float]] = {}
    for batch in values(model, list(axes), split, samples, threads):
        for name, array in batch.items():
            low, high = ends.get(name, (0.0, 0.0))
            ends[name] = min(low, float(array.min())), max(high, float(array.max()))
    energy: dict[str, NDArray[Any]] = {}
    for batch in values(model, list(axes), split, samples, threads):
        for name, array in batch.items():
            parts = (array, array - rounded(array, *ends[name]))
            more = np.stack([_energy(part, axes[name]) for part in parts])
            energy[name] = energy.get(name, 0.0) + more
    return {name: mean_decibels(*pair) for name, pair in energy.items()}


def _energy(array: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """Of each channel."""
    others = tuple(each for each in range(array.ndim) if each != axis)
    made: NDArray[np.float64] = np.square(array, dtype=np.float64).sum(axis=others)
    return made


def values(
    model: Model, names: Sequence[str], split: Split, samples: int, threads: int
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """What the values `names` hold, batch by batch.

    Args:
        split: samples, in the order of the model's inputs.

    Raises:
        InputError: one is NaN or infinite.
    """
    session = observing(model.value, names, threads)
    fed = [spec.name for spec in model.inputs]
    computed = [name for name in names if name not in fed]

    def run(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        arrays = session.run(computed, dict(feeds)) if computed else []
        made = dict(zip(computed, arrays, strict=True))
        made |= {name: feeds[name] for name in names if name in fed}
        for name, array in made.items():
            if not np.isfinite(array).all():
                where = "calibration data"
                raise InputError(f"{name} is NaN or infinite on some sample", where=where)
        return made

    size = max(1, sum(array.nbytes for array in run(next(split.batches(1))).values()))
    yield from map(run, split.batches(max(1, min(_MOST, BYTES // size)), samples))


def difference(
    before: Model, after: Model, split: Split, samples: int, threads: int
) -> float | None:
    """The largest difference of two graphs' float outputs, relative to the output's largest
    magnitude on the samples; None without a float output."""
    worst: float | None = None
    names = list(before.outputs)
    pairs = zip(
        values(before, names, split, samples, threads),
        values(after, names, split, samples, threads),
        strict=True,
    )
    for wanted, given in pairs:
        for name, array in wanted.items():
            if array.dtype.kind == "f":
                apart = float(np.abs(array - given[name]).max())
                reach = float(np.abs(array).max())
                worst = max(worst or 0.0, apart / reach if reach else apart)
    return worst
