"""Train the convolutional network from scratch: `python -m reference_models.keyword_dscnn.train`.

Takes some minutes on two cores and writes the weights and the card beside this file.
"""

from __future__ import annotations

from pathlib import Path

from lepton_compress.compress.training import Schedule
from reference_models.keyword_dscnn.model import KeywordDsCnn
from reference_models.spoken_digits import MFCCS, train_and_write

SCHEDULE = Schedule(epochs=4, batch_size=64, learning_rate=4e-3, weight_decay=1e-2)


def main(folder: Path = Path(__file__).parent) -> None:
    """Train on both splits, measure and write into a folder."""
    train_and_write(
        "keyword_dscnn",
        "One convolution and four depthwise-separable blocks of 64 channels, MLPerf Tiny's "
        "shape; takes `features` (batch, 1, 49, 10) float32, MFCCs, gives scores (batch, 10).",
        KeywordDsCnn,
        MFCCS,
        SCHEDULE,
        folder,
    )


if __name__ == "__main__":
    main()
