"""Train both networks from scratch: `python -m reference_models.mnist_cnn.train`.

Takes a few minutes on two cores and writes the weights and the cards beside this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lepton_compress.compress.training import Schedule
from reference_models import card
from reference_models.classifier import trained_card
from reference_models.mnist_cnn.data import SOURCE, load
from reference_models.mnist_cnn.model import MnistBinary, MnistDigits

SCHEDULE = Schedule(epochs=6, batch_size=64, learning_rate=2e-3, weight_decay=1e-2)
COPIES = 3
FURTHEST = 2
"""Pixels; a digit has a margin of four."""
SPLIT = (
    "the last 2,000 to evaluate; of the rest, drawn by seed 0, 7,000 to train, 1,000 to calibrate. "
    f"Trained on {COPIES} copies of each, moved by up to {FURTHEST} pixels."
)
RETRAIN = "python -m reference_models.mnist_cnn.train"


def main(folder: Path = Path(__file__).parent) -> None:
    """Train, measure and write into a folder."""
    digits = trained_card(
        folder,
        MnistDigits,
        moved(load()),
        SCHEDULE,
        weights="digits.safetensors",
        name="mnist_cnn/digits",
        about="Which digit is it? A convolution of 32 with pooling, dense layers of 128 and 10; "
        "takes `image` (batch, 1, 28, 28) float32 from 0 to 1, gives scores (batch, 10).",
        data=SOURCE,
        split=SPLIT,
        retrain=RETRAIN,
    )
    binary = trained_card(
        folder,
        MnistBinary,
        moved(load(binary=True)),
        SCHEDULE,
        weights="binary.safetensors",
        name="mnist_cnn/binary",
        about="Is the digit 5 or more? Convolutions of 32 and 64 with pooling, dense layers of 64 "
        "and one sigmoid; takes `image` (batch, 1, 28, 28) float32 from 0 to 1, gives a "
        "probability (batch, 1).",
        data=SOURCE,
        split=SPLIT,
        retrain=RETRAIN,
    )
    card.write(folder, digits, binary)


def moved(data: dict[str, Any]) -> dict[str, Any]:
    """The same splits with copies of each sample to train on, moved by some pixels at random."""
    images, labels = data["train"]["inputs"]["images"], data["train"]["targets"]
    draw = np.random.default_rng(0)
    copies = [
        np.stack([np.roll(image, draw.integers(-FURTHEST, FURTHEST + 1, 2), (0, 1))
                  for image in images])
        for _ in range(COPIES)
    ]  # fmt: skip
    held = {"inputs": {"images": np.concatenate(copies)}, "targets": np.tile(labels, COPIES)}
    return {**data, "train": held}


if __name__ == "__main__":
    main()
