"""What a score's mean hides: the samples that changed, and the classes that lost most.

Samples are numbered from 0, in the order of the evaluation split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lepton_compress.artifacts import Score


@dataclass(frozen=True)
class Change:
    """One sample whose outcome is another one than the baseline's.

    Attributes:
        sample: its number in the evaluation split.
        before, after: the outcomes, in the metric's unit.
        loss: how much worse; below zero where it is better.
        label: its class, or None where the targets are no classes.
    """

    sample: int
    before: float
    after: float
    loss: float
    label: int | None


@dataclass(frozen=True)
class Changes:
    """What changed from one score to another.

    Attributes:
        flips: whether outcomes are right or wrong (1 or 0), so that each change is a flip.
        lost: got worse, the worst first.
        gained: got better, the best first.
    """

    flips: bool
    lost: tuple[Change, ...]
    gained: tuple[Change, ...]


@dataclass(frozen=True)
class ClassDrop:
    """How a class fared.

    Attributes:
        before, after: mean outcomes of its samples.
        drop: how much worse, positive is worse, with its 95 % `interval`, paired by sample. The
            worst of many classes looks worse than it is: its interval is for one class alone.
    """

    label: int
    samples: int
    before: float
    after: float
    drop: float
    interval: tuple[float, float]


def comparable(one: Score, other: Score) -> bool:
    """Whether both have an outcome for each of the same number of samples."""
    if one.outcomes is None or other.outcomes is None:
        return False
    return len(one.outcomes) == len(other.outcomes) > 0 and one.metric == other.metric


def changes(before: Score, after: Score, labels: Sequence[int] = ()) -> Changes | None:
    """The samples that changed, or None where the scores have no outcomes to pair."""
    if not comparable(before, after):
        return None
    sign = 1.0 if after.higher_is_better else -1.0
    one, other = before.outcomes or (), after.outcomes or ()
    found = [
        Change(i, x, y, sign * (x - y), labels[i] if labels else None)
        for i, (x, y) in enumerate(zip(one, other, strict=True))
        if x != y
    ]
    found.sort(key=lambda change: -change.loss)
    return Changes(
        flips={*one, *other} <= {0.0, 1.0},
        lost=tuple(change for change in found if change.loss > 0),
        gained=tuple(change for change in reversed(found) if change.loss < 0),
    )


def worst_classes(
    before: Score, after: Score, labels: Sequence[int], *, most: int = 5
) -> tuple[ClassDrop, ...]:
    """The classes that lost most, the worst first, at most so many; none that lost nothing."""
    if not comparable(before, after) or len(labels) != len(before.outcomes or ()):
        return ()
    sign = 1.0 if after.higher_is_better else -1.0
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        groups[label].append(index)
    one, other = before.outcomes or (), after.outcomes or ()
    drops = {
        label: sign * sum(one[i] - other[i] for i in held) / len(held)
        for label, held in groups.items()
    }
    worst = sorted((label for label in drops if drops[label] > 0), key=lambda each: -drops[each])
    return tuple(
        _class_drop(
            label, [one[i] for i in groups[label]], [other[i] for i in groups[label]], after
        )
        for label in worst[:most]
    )


def _class_drop(label: int, one: list[float], other: list[float], score: Score) -> ClassDrop:
    from lepton_compress import statistics

    drop, interval = statistics.paired_drop_interval(
        one, other, higher_is_better=score.higher_is_better
    )
    n = len(one)
    return ClassDrop(label, n, sum(one) / n, sum(other) / n, drop, interval)
