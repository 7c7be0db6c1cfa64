"""Train MobileNetV1 from scratch: `python -m reference_models.mobilenet_v1_025.train`.

Takes a few minutes on two cores and writes the weights and the card beside this file.
"""

from __future__ import annotations

from pathlib import Path

from lepton_compress.compress.training import Schedule
from reference_models import card
from reference_models.classifier import trained_card
from reference_models.mnist_cnn.data import SOURCE
from reference_models.mobilenet_v1_025.data import load
from reference_models.mobilenet_v1_025.model import MobileNetV1

SCHEDULE = Schedule(epochs=8, batch_size=64, learning_rate=4e-3, weight_decay=1e-2)


def main(folder: Path = Path(__file__).parent) -> None:
    """Train, measure and write into a folder."""
    made = trained_card(
        folder,
        MobileNetV1,
        load(),
        SCHEDULE,
        mean=0.5,
        std=0.5,
        name="mobilenet_v1_025",
        about="MLPerf Tiny's MobileNetV1 at a quarter of its width: a convolution, 13 separable "
        "ones, a dense layer; takes `image` (batch, 3, 96, 96) float32 from -1 to 1, gives scores "
        "(batch, 2).",
        data="**Not the data of MLPerf Tiny, which is not at hand**, so that its accuracy says "
        "nothing about the benchmark: MNIST made into colour pictures of 96x96, digit and ground "
        f"of a random colour each, with whether it is even as the label. {SOURCE}",
        split="the last 2,000 to evaluate; of the rest, drawn by seed 0, 3,000 to train and 500 to "
        "calibrate.",
        retrain="python -m reference_models.mobilenet_v1_025.train",
    )
    card.write(folder, made)


if __name__ == "__main__":
    main()
