"""Colour pictures of any size made from digits, for networks whose own data is not at hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from reference_models.mnist_cnn.data import load

FEWEST = 80
"""Least difference between the colours of digit and ground, in one of the channels."""


def load_coloured(
    side: int, *, train: int, evaluation: int = 2000, calibration: int = 500, even: bool = False
) -> dict[str, Any]:
    """Splits of MNIST as colour pictures (samples, side, side, 3) uint8, with the digits as labels
    or with `even` whether they are even. The digit is enlarged to fill the picture less a margin,
    and digit and ground get a random colour each.

    Args:
        train: how many samples of the split there to take, likewise `evaluation`, `calibration`.
    """
    counts = {"train": train, "calibration": calibration, "evaluation": evaluation}
    given, made = load(), {}
    for seed, (split, count) in enumerate(counts.items()):
        inputs, targets = given[split]["inputs"]["images"][:count], given[split]["targets"][:count]
        made[split] = {
            "inputs": {"images": coloured(inputs[..., 0], side, np.random.default_rng(seed))},
            "targets": (targets % 2 == 0).astype(np.uint8) if even else targets,
        }
    return made | {"notes": given["notes"]}


def coloured(grey: np.ndarray, side: int, draw: np.random.Generator) -> np.ndarray:
    """Pictures (samples, 28, 28) uint8 in colour: (samples, side, side, 3) uint8."""
    times = side // 28
    margin = side - 28 * times
    count = len(grey)
    ground = draw.integers(0, 256, (count, 3))
    # Half the range away in every channel, so that the digit can be seen.
    ink = (ground + draw.integers(FEWEST, 256 - FEWEST, (count, 3))) % 256
    made = np.empty((count, side, side, 3), np.uint8)
    before = margin // 2
    for row in range(count):
        large = grey[row].repeat(times, 0).repeat(times, 1)
        share = np.pad(large, (before, margin - before))[..., None] / 255
        made[row] = np.rint(ground[row] + share * (ink[row] - ground[row]))
    return made
