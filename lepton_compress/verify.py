"""An artifact against its source, in the runtime that will run it, at two batch sizes.

The chain is checked link by link: the lowered graph against the torch model, the artifact against
the graph it was written from. Quantisation is not a link: what it costs is what the evaluation
measures.

Two runtimes round integers differently, by a step here and there, so that a quantised graph and
its artifact in another runtime agree less than their float versions do. Of those it is asked that
they answer alike: the same class, and outputs within a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Parity, Split

if TYPE_CHECKING:
    import numpy as np

    Feeds = Mapping[str, np.ndarray]
    Run = Callable[[Feeds], dict[str, np.ndarray]]

BATCHES = (1, 7)
"""Neither is the batch of the traced example, so that a batch baked into the graph shows."""

LIMIT = 1e-4
"""Largest difference allowed, relative to the largest magnitude in the reference's output. Float32
reassociation stays below 1e-5 on deep networks; a wrong weight does not."""

METRIC = "largest difference, relative to the output's largest magnitude"


AGREEMENT, AGREEMENT_LIMIT = "share of samples that are classified otherwise", 0.005
DEVIATION, DEVIATION_LIMIT = "root mean square of the difference, relative to the output's", 0.1
AGREEMENT_SAMPLES = 1000
"""As many as the evaluation split has, up to this."""
_BATCH = 64


def verify(
    subject: Run,
    reference: Run,
    samples: Split,
    *,
    candidate: str,
    format: str,
    against: str,
    given: Split | None = None,
) -> tuple[Parity, ...]:
    """Compare two ways of running a model on the same samples.

    Args:
        subject, reference: from inputs by name to outputs by name.
        samples: with inputs named as the model wants them.
        candidate, format, against: what to write into the result.
        given: the same samples as the subject takes them, where that differs.
    """
    found, given = [], given or samples
    for batch in BATCHES:
        # Repeated where there are too few: the batch is what is checked, too.
        rows = [index % len(samples) for index in range(batch)]
        feeds, mine = (_rows(each, rows) for each in (samples, given))
        value = difference(reference(feeds), subject(mine))
        size = min(batch, len(samples))
        found.append(Parity(candidate, format, against, METRIC, value, LIMIT, batch, size))
    return tuple(found)


def agree(
    subject: Run,
    reference: Run,
    samples: Split,
    *,
    candidate: str,
    format: str,
    against: str,
    given: Split | None = None,
    classes: bool = True,
) -> tuple[Parity, ...]:
    """Compare two ways of running a quantised model: the outputs' deviation, and for an output of
    classes (samples, classes) how many samples fall into another one.

    The arguments are those of `verify`. The deviation is that of the worst output; it is infinite
    where shapes or names differ or a value is not finite. Without `classes` only that is compared.
    """
    given = given or samples
    count = min(len(samples), AGREEMENT_SAMPLES)
    found = _Apart()
    for start in range(0, count, _BATCH):
        rows = list(range(start, min(start + _BATCH, count)))
        wanted, made = reference(_rows(samples, rows)), subject(_rows(given, rows))
        if not found.add(wanted, made):
            break
    about = (candidate, format, against)
    parities = [Parity(*about, DEVIATION, found.deviation, DEVIATION_LIMIT, _BATCH, count)]
    if classes and found.classes:
        share = found.changed / count
        parities.append(Parity(*about, AGREEMENT, share, AGREEMENT_LIMIT, _BATCH, count))
    return tuple(parities)


@dataclass
class _Apart:
    """Sums over batches of how far outputs are apart."""

    errors: dict[str, float] = field(default_factory=dict)
    powers: dict[str, float] = field(default_factory=dict)
    given: dict[str, float] = field(default_factory=dict)
    changed: int = 0
    classes: bool = False
    strange: bool = False

    def add(self, wanted: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> bool:
        """Take a batch in; False if its names or shapes differ, after which nothing counts."""
        import numpy as np

        self.strange = [(name, array.shape) for name, array in wanted.items()] != [
            (name, array.shape) for name, array in given.items()
        ]
        if self.strange:
            return False
        for name, array in wanted.items():
            reference = array.astype(np.float64)
            made = given[name].astype(np.float64)
            error = np.square(made - reference).sum()
            self.given[name] = self.given.get(name, 0.0) + float(np.square(made).sum())
            self.errors[name] = self.errors.get(name, 0.0) + float(error)
            self.powers[name] = self.powers.get(name, 0.0) + float(np.square(reference).sum())
        first = next(iter(wanted))
        if wanted[first].ndim == 2 and wanted[first].shape[1] > 1:
            self.classes = True
            classes = [each[first].argmax(axis=1) for each in (given, wanted)]
            self.changed += int((classes[0] != classes[1]).sum())
        return True

    @property
    def deviation(self) -> float:
        """Of the worst output, as a share of the larger of the two, so that it stays below 2 where
        a reference is zero all over."""
        shares = [
            math.sqrt(error / max(self.powers[name], self.given[name], 1e-24))
            for name, error in self.errors.items()
            if not self.strange and math.isfinite(error)
        ]
        known = not self.strange and len(shares) == len(self.errors)
        return max(shares, default=0.0) if known else math.inf


def _rows(samples: Split, rows: Sequence[int]) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in samples.inputs.items()}


def difference(wanted: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> float:
    """The largest difference over all outputs; infinite where shapes or names differ.

    Float outputs: relative to the largest magnitude of the two, so that a reference of zeros tells
    something, too. Others: the share of elements that are not equal.
    """
    import numpy as np

    if list(wanted) != list(given):
        return float("inf")
    worst = 0.0
    for name, reference in wanted.items():
        array = given[name]
        if array.shape != reference.shape:
            return float("inf")
        if reference.dtype.kind != "f":
            worst = max(worst, float((array != reference).mean()) if array.size else 0.0)
            continue
        sizes = (float(np.abs(each).max(initial=0.0)) for each in (reference, array))
        scale = max((each for each in sizes if np.isfinite(each)), default=0.0)
        apart = np.abs(array.astype(np.float64) - reference).max(initial=0.0)
        if not np.isfinite(apart):
            return float("inf")
        worst = max(worst, float(apart) / max(scale, 1e-12))
    return worst
