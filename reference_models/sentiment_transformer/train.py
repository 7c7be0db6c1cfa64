"""Train the network from scratch: `python -m reference_models.sentiment_transformer.train`.

Takes some minutes on two cores and writes the tokenizer, the weights and the card beside this file.
"""

from __future__ import annotations

from pathlib import Path

from lepton_compress.compress.training import Schedule
from reference_models.film_reviews import train_and_write
from reference_models.sentiment_transformer.model import SentimentTransformer

SCHEDULE = Schedule(epochs=5, batch_size=64, learning_rate=2e-3, weight_decay=0.1)


def main(folder: Path = Path(__file__).parent) -> None:
    """Train, measure and write into a folder."""
    train_and_write(
        "sentiment_transformer",
        "One encoder layer of width 64 with four heads, whose mean stands beside the mean of the "
        "token embeddings; takes `ids` (batch, 64) int64, gives scores (batch, 2).",
        SentimentTransformer,
        SCHEDULE,
        folder,
    )


if __name__ == "__main__":
    main()
