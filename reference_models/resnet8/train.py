"""Train ResNet8 from scratch: `python -m reference_models.resnet8.train`.

Takes a few minutes on two cores and writes the weights and the card beside this file.
"""

from __future__ import annotations

from pathlib import Path

from lepton_compress.compress.training import Schedule
from reference_models import card
from reference_models.classifier import trained_card
from reference_models.mnist_cnn.data import SOURCE
from reference_models.resnet8.data import load
from reference_models.resnet8.model import ResNet8

SCHEDULE = Schedule(epochs=6, batch_size=64, learning_rate=4e-3, weight_decay=1e-2)


def main(folder: Path = Path(__file__).parent) -> None:
    """Train, measure and write into a folder."""
    made = trained_card(
        folder,
        ResNet8,
        load(),
        SCHEDULE,
        mean=0.5,
        std=0.5,
        name="resnet8",
        about="MLPerf Tiny's ResNet8: a convolution, three residual blocks of 16, 32 and 64, a "
        "dense layer; takes `image` (batch, 3, 32, 32) float32 from -1 to 1, gives scores "
        "(batch, 10).",
        data="**Not the data of MLPerf Tiny, which is not at hand**, so that its accuracy says "
        "nothing about the benchmark: MNIST made into colour pictures of 32x32, digit and ground "
        f"of a random colour each, with the digit as the label. {SOURCE}",
        split="the last 2,000 to evaluate; of the rest, drawn by seed 0, 7,000 to train and 500 to "
        "calibrate.",
        retrain="python -m reference_models.resnet8.train",
    )
    card.write(folder, made)


if __name__ == "__main__":
    main()
