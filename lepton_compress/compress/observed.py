"""What a streaming pass holds of a tensor: its ends and a histogram of fixed size, of all batches
and of parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 4096
"""Over [-limit, limit]; the limit is a power of two, so that widening merges whole bins."""
DRAWN = 1 << 16
"""Values of a tensor that one batch adds to its histogram, at most. Min and max see every value."""
ENOUGH = 1 << 21
"""Values of a tensor that all batches add together, where there are many."""
LEAST = 1 << 14
"""Values that a batch adds however many there are."""
PARTS = 8
"""Of the samples, whose statistics are also kept apart, to tell how much the ranges depend on which
samples were drawn."""

_DECAY = 0.9
_SMALLEST = 2.0**-64

Range = tuple[float, float]


@dataclass
class Observed:
    """What was seen of one tensor.

    Attributes:
        low, high: smallest and largest value.
        average: moving average of each batch's smallest and largest value.
        counts: histogram of a sample of the values over [-limit, limit].
        parts: the same of every `PARTS`-th batch, if it was seen by `see`.
        axis: of the channels, if their ends are kept too; lows, highs: (channels,) those ends.
    """

    low: float = np.inf
    high: float = -np.inf
    average: Range | None = None
    limit: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    parts: list[Observed] = field(default_factory=list)
    axis: int | None = None
    lows: NDArray[Any] | None = None
    highs: NDArray[Any] | None = None

    def see(
        self,
        array: NDArray[Any],
        offset: int,
        index: int,
        *,
        histogram: bool,
        drawn: int = DRAWN,
    ) -> None:
        """See one batch, the index-th, as part of a whole that `gather` completes; `drawn` values
        of it go into the histogram."""
        if len(self.parts) < PARTS:
            self.parts.append(Observed())
        ends = None
        if self.axis is not None:
            lows, highs = _ends(array, self.axis)
            self.lows = lows if self.lows is None else np.minimum(self.lows, lows)
            self.highs = highs if self.highs is None else np.maximum(self.highs, highs)
            ends = float(lows.min()), float(highs.max())
        part = self.parts[index % PARTS]
        self._track(*part.add(array, offset, histogram=histogram, ends=ends, drawn=drawn))

    def gather(self) -> None:
        """The histogram of all parts."""
        whole = merged(self.parts)
        self.limit, self.counts = whole.limit, whole.counts

    def add(
        self,
        array: NDArray[Any],
        offset: int,
        *,
        histogram: bool,
        ends: Range | None = None,
        drawn: int = DRAWN,
    ) -> Range:
        """See one batch; its ends, if they are not known yet. `offset` varies which values are
        drawn."""
        flat = array.reshape(-1)
        low, high = ends or (float(flat.min()), float(flat.max()))
        self._track(low, high)
        if histogram and np.isfinite([low, high]).all():
            # An odd stride does not stay in step with rows and channels, whose sizes are even.
            stride = (max(1, flat.size // drawn)) | 1
            self._count(flat[offset % stride :: stride], max(abs(low), abs(high)))
        return low, high

    def _track(self, low: float, high: float) -> None:
        # numpy's minimum keeps a NaN, Python's may drop it.
        self.low, self.high = float(np.minimum(self.low, low)), float(np.maximum(self.high, high))
        if np.isfinite([low, high]).all():
            old = self.average or (low, high)
            pairs = zip(old, (low, high), strict=True)
            self.average = tuple(_DECAY * o + (1 - _DECAY) * n for o, n in pairs)  # type: ignore[assignment]

    def _count(self, values: NDArray[Any], largest: float) -> None:
        # Zeros alone, as a first batch may be, fix no scale.
        self._widen(2.0 ** np.ceil(np.log2(max(largest, _SMALLEST))))
        bins = ((values + self.limit) * (BINS / (2 * self.limit))).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def _widen(self, wider: float) -> None:
        while self.limit and self.limit < wider:
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(axis=1), BINS // 4)
            self.limit *= 2
        self.limit = max(self.limit, wider)

    def centres(self) -> Floats:
        """(bins,) values in the middle of each bin."""
        edges = np.linspace(-self.limit, self.limit, len(self.counts) + 1)
        middle: Floats = (edges[1:] + edges[:-1]) / 2
        return middle


def coarse(seen: Observed) -> Observed:
    """The same over a quarter of the bins, for what need not be exact."""
    counts = seen.counts.reshape(-1, 4).sum(axis=1)
    return replace(seen, counts=counts)


def _ends(array: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(channels,) smallest and largest values of each."""
    if axis == array.ndim - 1:
        flat = array.reshape(-1, array.shape[-1])
        return flat.min(axis=0), flat.max(axis=0)
    if axis == 1:  # along memory, which is several times as fast
        rows = array.reshape(array.shape[0], array.shape[1], -1)
        return rows.min(axis=2).min(axis=0), rows.max(axis=2).max(axis=0)
    others = tuple(each for each in range(array.ndim) if each != axis)
    return array.min(axis=others), array.max(axis=others)


def merged(parts: Sequence[Observed]) -> Observed:
    """What was seen of one tensor in some parts, each counting as often as it is named. The moving
    average is the mean of theirs."""
    made = Observed(min(each.low for each in parts), max(each.high for each in parts))
    averages = [each.average for each in parts if each.average]
    if averages:
        low, high = np.mean(averages, axis=0)
        made.average = float(low), float(high)
    made.limit = max(each.limit for each in parts)
    for each in parts:
        copy = Observed(limit=each.limit, counts=each.counts)
        copy._widen(made.limit)
        made.counts = made.counts + copy.counts
    return made
