"""Train the network from scratch: `python -m reference_models.text_cnn.train`.

Takes some minutes on two cores and writes the tokenizer, the weights and the card beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lepton_compress.compress.training import Schedule
from reference_models.film_reviews import train_and_write
from reference_models.text_cnn.model import TextCnn

SCHEDULE = Schedule(epochs=5, batch_size=64, learning_rate=2e-3, weight_decay=0.1)


def make(ratios: np.ndarray) -> TextCnn:
    """The network; it reaches the bag of words from random embeddings."""
    return TextCnn()


def main(folder: Path = Path(__file__).parent) -> None:
    """Train, measure and write into a folder."""
    train_and_write(
        "text_cnn",
        "Convolutions over two, three and four tokens, 48 of each, beside the mean of the "
        "embeddings; takes `ids` (batch, 64) int64, numbers of tokens, gives scores (batch, 2).",
        make,
        SCHEDULE,
        folder,
    )


if __name__ == "__main__":
    main()
