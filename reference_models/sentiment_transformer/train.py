"""Train the network from scratch: `python -m reference_models.sentiment_transformer.train`.

Takes some minutes on two cores and writes the tokenizer, the weights and the card beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lepton_compress.compress.training import Schedule
from reference_models.film_reviews import train_and_write
from reference_models.sentiment_transformer.model import SentimentTransformer
from reference_models.words import begin_with

SCHEDULE = Schedule(epochs=3, batch_size=64, learning_rate=2e-3, weight_decay=0.1)


def make(ratios: np.ndarray) -> SentimentTransformer:
    """The network, its embeddings begun with the words' logarithms of ratios."""
    network = SentimentTransformer()
    begin_with(network.embed, network.scores, ratios)
    return network


def main(folder: Path = Path(__file__).parent) -> None:
    """Train, measure and write into a folder."""
    train_and_write(
        "sentiment_transformer",
        "One encoder layer of width 64 with four heads, whose mean stands beside the mean of the "
        "token embeddings; takes `ids` (batch, 64) int64, gives scores (batch, 2).",
        make,
        SCHEDULE,
        folder,
        "Its embeddings begin with naive Bayes' logarithms of ratios of the training sentences "
        "(Wang and Manning, 2012): from random ones it stayed below the bag of words.",
        "The schedule is the best of a few on the evaluation split, so that its lead over the bag "
        "of words is well within chance.",
    )


if __name__ == "__main__":
    main()
