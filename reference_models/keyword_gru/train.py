"""Train the network from scratch: `python -m reference_models.keyword_gru.train`.

Takes some minutes on two cores and writes the weights and the card beside this file.
"""

from __future__ import annotations

from pathlib import Path

from lepton_compress.compress.training import Schedule
from reference_models.keyword_gru.model import KeywordGru
from reference_models.spoken_digits import LOG_MELS, train_and_write

SCHEDULE = Schedule(epochs=8, batch_size=64, learning_rate=5e-3, weight_decay=1e-2)


def main(folder: Path = Path(__file__).parent) -> None:
    """Train on both splits, measure and write into a folder."""
    train_and_write(
        "keyword_gru",
        "One GRU of 64 units, whose states are averaged over time, and a dense layer; takes "
        "`features` (batch, 49, 40) float32, log-mel bands, gives scores (batch, 10).",
        KeywordGru,
        LOG_MELS,
        SCHEDULE,
        folder,
    )


if __name__ == "__main__":
    main()
