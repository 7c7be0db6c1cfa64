"""What `compare` gives back: frozen values, apart from whoever makes or shows them.

Differences are told of the second against the first: a drop above zero means that the second is
worse, a ratio below one that it is smaller or faster.
"""

from __future__ import annotations

from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        reference: as it was named.
        processor: what it was measured on.
        chosen: target to the candidate that was chosen for it.
    """

    reference: str
    recipe: str
    started: str
    processor: str
    passed: bool
    chosen: dict[str, str | None]


@dataclass(frozen=True)
class ScorePair:
    """The scores of one metric.

    Attributes:
        drop: how much worse the second is, in the metric's unit.
        interval: 95 %, paired by sample, or by resample where the metric is no mean; None where
            the samples are not the same or not known.
        lost, gained: samples that got worse and better; None where outcomes are not known.
    """

    metric: str
    is_share: bool
    one: float
    other: float
    drop: float
    interval: Interval | None
    lost: int | None
    gained: int | None


@dataclass(frozen=True)
class LatencyPair:
    """The latencies on one target.

    Attributes:
        one, other: p50 of a call, in seconds.
        ratio: second to first; None where the hardware or the target differs.
        interval: from the ends of both 95 % intervals, and so wider than 95 %: the two runs did
            not take turns, what drifted between them counts as a difference.
        to_baseline_one, to_baseline_other: each to the baseline of its own run, measured in turns
            with it. They can be compared across machines, as far as machines are alike.
        simulated: whether no device told these times; they are the same on any machine.
    """

    target: str
    one: float | None
    other: float | None
    ratio: float | None
    interval: Interval | None
    to_baseline_one: float | None
    to_baseline_other: float | None
    simulated: bool = False


@dataclass(frozen=True)
class Pair:
    """A candidate of the first run and its counterpart in the second.

    Attributes:
        same_file: whether the artifacts are equal to the byte.
        verdicts_one, verdicts_other: the gates that each does not pass, as "FAIL size".
    """

    one: str
    other: str
    format: str
    same_file: bool
    bytes_one: int
    bytes_other: int
    scores: tuple[ScorePair, ...]
    latencies: tuple[LatencyPair, ...]
    verdicts_one: tuple[str, ...]
    verdicts_other: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Attributes:
        only_one, only_other: candidates without a counterpart.
        notes: what differs around the numbers: hardware, data, versions, measuring, and by how much
            the times of files differ that are the same.
    """

    one: Side
    other: Side
    pairs: tuple[Pair, ...]
    only_one: tuple[str, ...]
    only_other: tuple[str, ...]
    notes: tuple[str, ...]
