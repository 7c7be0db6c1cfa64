"""An artifact against its source, in the runtime that will run it, at two batch sizes.

The chain is checked link by link: the lowered graph against the torch model, the artifact against
the graph it was written from. Quantisation is not a link: what it costs is what the evaluation
measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def verify(
    subject: Run, reference: Run, samples: Split, *, candidate: str, format: str, against: str
) -> tuple[Parity, ...]:
    """Compare two ways of running a model on the same samples.

    Args:
        subject, reference: from inputs by name to outputs by name.
        samples: with inputs named as the model wants them.
        candidate, format, against: what to write into the result.
    """
    found = []
    for batch in BATCHES:
        # Repeated where there are too few: the batch is what is checked, too.
        rows = [index % len(samples) for index in range(batch)]
        feeds = {name: array[rows] for name, array in samples.inputs.items()}
        value = difference(reference(feeds), subject(feeds))
        size = min(batch, len(samples))
        found.append(Parity(candidate, format, against, METRIC, value, LIMIT, batch, size))
    return tuple(found)


def difference(wanted: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> float:
    """The largest difference over all outputs; infinite where shapes or names differ.

    Float outputs: relative to the largest magnitude wanted. Others: the share of elements that
    are not equal.
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
        scale = max(float(np.abs(reference).max(initial=0.0)), 1e-12)
        apart = np.abs(array.astype(np.float64) - reference).max(initial=0.0)
        if not np.isfinite(apart):
            return float("inf")
        worst = max(worst, float(apart) / scale)
    return worst
