"""Samples that no model should learn from or be judged by: found before a dataset is split, and
told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from lepton_compress.errors import InputError
from lepton_compress.registry import Params

if TYPE_CHECKING:
    import numpy as np

    Rows = np.ndarray

_SHOWN = 60


class Cleaning(Params):
    """What a loader drops before it splits."""

    clean: bool = Field(
        True,
        description="Drop samples that lack a value, stand twice, contradict each other or are "
        "out of range. The result notes which.",
    )
    classes: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="Allowed are the labels from 0 to below this."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.limits()
        if not self.clean and any(each is not None for each in (low, high, self.classes)):
            raise ValueError("limits go with `clean`")
        if low is not None and high is not None and low > high:
            raise ValueError(f"low {low} is above high {high}")
        return self

    def limits(self) -> tuple[float | None, float | None]:
        """The least and the largest value allowed in inputs."""
        return None, None

    def kept(self, inputs: Mapping[str, Any], targets: Any = None, **how: Any) -> Cleaned:
        """The samples to keep, as `clean` finds them with these limits; all if not asked to."""
        import numpy as np

        if not self.clean:
            return Cleaned(np.arange(len(next(iter(inputs.values())))), ())
        allowed = None if self.classes is None else range(self.classes)
        low, high = self.limits()
        return clean(inputs, targets, low=low, high=high, labels=allowed, **how)


class CleaningOfValues(Cleaning):
    """The same, of numbers that have limits."""

    low: float | None = Field(None, description="The least value allowed in inputs as they lie.")
    high: float | None = Field(None, description="The largest.")

    def limits(self) -> tuple[float | None, float | None]:
        """The least and the largest value allowed in inputs."""
        return self.low, self.high


@dataclass(frozen=True)
class Cleaned:
    """What is left.

    Attributes:
        rows: (kept,) int64, the samples to keep, ascending.
        notes: what was dropped, for the user; none if nothing was.
    """

    rows: Rows
    notes: tuple[str, ...]


def clean(
    inputs: Mapping[str, Any],
    targets: Any = None,
    *,
    where: str,
    low: float | None = None,
    high: float | None = None,
    labels: Collection[Any] | None = None,
    named: Callable[[int], str] = "sample {}".format,
    order: Iterable[int] | None = None,
) -> Cleaned:
    """Find the samples to keep.

    Dropped are samples with a missing value (NaN, infinity, an empty array or blank text, in an
    input or the target); samples with a value outside [low, high] or a label that is not allowed;
    all samples that are alike in every input but labelled differently; and of samples that are
    alike in all, every one but the first. Samples are alike if they are so bit for bit.

    Run it on all samples before they are split: one that stands twice may end up in two splits.

    Args:
        inputs: name to one value a sample: an array of shape (samples, ...), or a sequence of
            arrays or texts of any length. All have as many samples.
        targets: one label or array a sample, or None.
        where: what to name in errors.
        low: the least value allowed in the inputs, itself included.
        high: the largest.
        labels: all labels that are allowed.
        named: what to call a sample in notes, by its index.
        order: in which to look at the samples. Those to evaluate on go first, so that it is their
            doubles that are dropped.

    Raises:
        InputError: nothing is left, or more than half lacks a value or is out of range.
    """
    import numpy as np

    count = len(next(iter(inputs.values())))
    missing, outside, first, others = _Found(), _Found(), dict[bytes, int](), dict[int, list[int]]()
    for row in range(count) if order is None else order:
        sample = {name: values[row] for name, values in inputs.items()}
        target = None if targets is None else targets[row]
        empty = next((name for name, value in sample.items() if _missing(value)), None)
        if empty is None and targets is not None and _missing(target):
            empty = "the target"
        if empty is not None:
            missing.add(row, f"{named(row)}, in {empty}")
        elif wrong := _outside(sample, target, low, high, labels):
            outside.add(row, f"{named(row)}, {wrong}")
        else:
            original = first.setdefault(_digest(sample.values()), row)
            if original != row:
                others.setdefault(original, []).append(row)
    doubled, disputed = _Found(), _Found()
    for original, copies in others.items():
        differing = [row for row in copies if not _same(targets, original, row)]
        if differing:
            shown = f"{named(original)} and {named(differing[0])}"
            disputed.add(original, shown + _labelled(targets, original, differing[0]))
            for row in copies:
                disputed.add(row, "")
        else:
            for row in copies:
                doubled.add(row, f"{named(row)}, of {named(original)}")
    told = [
        (missing, "with a missing value"),
        (outside, "out of range"),
        (disputed, "labelled differently though alike"),
        (doubled, "that stand twice"),
    ]
    dropped = {row for found, _ in told for row in found.rows}
    notes = tuple(found.told(what) for found, what in told if found.rows)
    # Most of them wrong are no blemish of the data but a mistake in what is said of it.
    if len(dropped) == count or 2 * len(missing.rows + outside.rows) > count:
        left = count - len(dropped)
        raise InputError(
            f"only {left} of {count} samples are left: {'; '.join(notes) or 'there is none'}",
            where=where,
            mend="correct the data, or the limits and labels that it is held to",
        )
    kept = np.array([row for row in range(count) if row not in dropped], np.int64)
    return Cleaned(kept, notes)


class _Found:
    """Samples to drop for one reason."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.first = ""

    def add(self, row: int, shown: str) -> None:
        self.first = self.first or shown
        self.rows.append(row)

    def told(self, what: str) -> str:
        count = len(self.rows)
        one = what.replace("stand", "stands") if count == 1 else what
        return f"{count} sample{'' if count == 1 else 's'} {one} dropped (first: {self.first})"


def _missing(value: Any) -> bool:
    import numpy as np

    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    array = np.asarray(value)
    return array.size == 0 or (array.dtype.kind in "fc" and not bool(np.isfinite(array).all()))


def _outside(
    sample: Mapping[str, Any],
    target: Any,
    low: float | None,
    high: float | None,
    labels: Collection[Any] | None,
) -> str:
    """What is out of range, or nothing."""
    import numpy as np

    if low is not None or high is not None:
        for name, value in sample.items():
            if isinstance(value, str):
                continue
            array = np.asarray(value)
            for end in (array.min(), array.max()):
                if (low is not None and end < low) or (high is not None and end > high):
                    return f"{end} in {name}"
    if labels is not None and target is not None and _plain(target) not in labels:
        return f"label {_plain(target)!r}"
    return ""


def _digest(values: Collection[Any]) -> bytes:
    import numpy as np

    found = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, str):
            data, head = value.encode(), "text"
        else:
            array = np.ascontiguousarray(value)
            data, head = array.tobytes(), f"{array.dtype}{array.shape}"
        found.update(f"{head}:{len(data)}:".encode() + data)
    return found.digest()


def _same(targets: Any, one: int, other: int) -> bool:
    import numpy as np

    return targets is None or bool(np.array_equal(targets[one], targets[other]))


def _labelled(targets: Any, one: int, other: int) -> str:
    if targets is None:
        return ""
    shown = f", labelled {_plain(targets[one])} and {_plain(targets[other])}"
    return shown if len(shown) <= _SHOWN else ""


def _plain(value: Any) -> Any:
    """A label as Python's own type, so that 3 is found in a range and shown as 3."""
    return value.tolist() if hasattr(value, "tolist") else value
