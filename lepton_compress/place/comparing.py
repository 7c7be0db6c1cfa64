"""Two halves beside the whole, in the runtime, on real samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Split
from lepton_compress.verify import BATCHES, LIMIT, difference

if TYPE_CHECKING:
    import numpy as np

    from lepton_compress.targets.runner import Runner

    Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Composed:
    """How the halves fared.

    Attributes:
        exact: every output was the whole's bit for bit.
        difference: the largest one, as `verify.difference` tells it.
        samples: how many were run.
    """

    exact: bool
    difference: float
    samples: int

    @property
    def holds(self) -> bool:
        """Whether it is no more than the reassociation of float sums may change."""
        return self.difference <= LIMIT


def outputs(runner: Runner, feeds: Feeds) -> dict[str, np.ndarray]:
    """What an artifact gives, by name."""
    wanted = {spec.name: feeds[spec.name] for spec in runner.inputs}
    return dict(zip((spec.name for spec in runner.outputs), runner.run(wanted), strict=True))


def composed(edge: Runner, cloud: Runner, feeds: Feeds, order: tuple[str, ...]) -> Feeds:
    """The whole's outputs, in `order`, computed by the halves."""
    early = outputs(edge, feeds)
    late = outputs(cloud, {**feeds, **early})
    return {name: late[name] if name in late else early[name] for name in order}


def compare(
    whole: Runner, edge: Runner, cloud: Runner, samples: Split, batches: tuple[int, ...] = BATCHES
) -> Composed:
    """Run the halves and the whole on the same samples, at several batch sizes.

    Raises:
        InputError: one of them cannot be run.
    """
    import numpy as np

    order = tuple(spec.name for spec in whole.outputs)
    exact, worst, count = True, 0.0, 0
    for batch in batches:
        for start in range(0, max(len(samples) - batch + 1, 1), batch):
            rows = [index % len(samples) for index in range(start, start + batch)]
            feeds = {
                name: np.ascontiguousarray(array[rows]) for name, array in samples.inputs.items()
            }
            wanted, made = outputs(whole, feeds), composed(edge, cloud, feeds, order)
            worst = max(worst, difference(wanted, made))
            exact = exact and all(np.array_equal(wanted[name], made[name]) for name in order)
        count = max(count, len(samples))
    return Composed(exact, worst, count)
