"""Train the digits network from scratch: `python -m reference_models.digits_cnn.train`.

Takes some minutes on two cores and writes the weights and the card beside this file.
"""

from __future__ import annotations

from pathlib import Path

from lepton_compress.artifacts import Split
from lepton_compress.compress.training import Schedule
from reference_models import card
from reference_models.digits_cnn.data import COUNTS, load
from reference_models.digits_cnn.model import DigitsCnn
from reference_models.training import answers, fit, save

SCHEDULE = Schedule(epochs=60, batch_size=64, learning_rate=2e-3, weight_decay=1e-2)


def main(folder: Path = Path(__file__).parent) -> None:
    """Train, measure and write into a folder."""
    splits = load()
    images, labels = splits["train"]
    made = fit(DigitsCnn, Split({"image": images}, labels), SCHEDULE, label="digits")
    images, labels = splits["evaluation"]
    scored = card.accuracy("evaluation", answers(made.module, {"image": images}).argmax(1), labels)
    parameters, macs = card.size(made.module, {"image": images})
    card.write(
        folder,
        card.Card(
            name="digits_cnn",
            about="Three convolutions with batch normalisation and two dense layers; takes `image` "
            "(batch, 1, 8, 8) float32 from 0 to 1, gives scores (batch, 10).",
            data="UCI handwritten digits, 1,797 images of 8x8 in 17 shades, as scikit-learn ships "
            "them; CC BY 4.0.",
            split=f"shuffled once with seed 7: {COUNTS['train']} to train, {COUNTS['calibration']} "
            f"to calibrate, {COUNTS['evaluation']} to evaluate.",
            retrain="python -m reference_models.digits_cnn.train",
            measured=(scored,),
            parameters=parameters,
            macs=macs,
            bytes=save(made.module, folder),
            seconds=made.seconds,
        ),
    )


if __name__ == "__main__":
    main()
