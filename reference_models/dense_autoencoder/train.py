"""Train the autoencoder from scratch: `python -m reference_models.dense_autoencoder.train`.

Takes a minute on two cores and writes the weights and the card beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from lepton_compress.artifacts import Split
from lepton_compress.compress.training import Schedule
from reference_models import card, spoken_digits
from reference_models.dense_autoencoder.data import FEATURES, KINDS, load
from reference_models.dense_autoencoder.model import DenseAutoencoder
from reference_models.training import answers, fit, save

SCHEDULE = Schedule(epochs=40, batch_size=128, learning_rate=3e-3)

NOTE = (
    "Planted are, in turn: a tone from 500 to 3500 Hz 6 dB below the speech; five clicks as loud "
    "as its loudest sample; the window itself backwards on top of it."
)


def main(folder: Path = Path(__file__).parent) -> None:
    """Train, measure and write into a folder."""
    parts = load()
    windows = parts["train"]["inputs"]["sound"]
    given = {"features": spoken_digits.features(FEATURES, windows)}
    made = fit(DenseAutoencoder, Split(given), SCHEDULE, label="autoencoder", loss=error)
    parameters, macs = card.size(made.module, given)
    card.write(
        folder,
        card.Card(
            name="dense_autoencoder",
            about="MLPerf Tiny's shape: 640 numbers through four dense layers of 128 to 8 and "
            "back; takes `features` (batch, 640) float32, ten frames of 64 log-mel bands; gives "
            "`error` (batch) and `reconstruction` (batch, 640).",
            data="windows of 176 ms of the Free Spoken Digit Dataset (CC BY-SA 4.0) in place of "
            "MLPerf Tiny's machine sounds, which are not at hand; numbers are not comparable.",
            split=f"trained on {len(windows):,} windows of speech; evaluated on windows of "
            "the dataset's test recordings, in every second of which an anomaly is planted.",
            retrain="python -m reference_models.dense_autoencoder.train",
            measured=measured(made.module, parts["evaluation"]),
            parameters=parameters,
            macs=macs,
            bytes=save(made.module, folder),
            seconds=made.seconds,
            notes=(NOTE,),
        ),
    )


def measured(module: nn.Module, held: Mapping[str, Any]) -> tuple[card.Measured, ...]:
    """Areas under the ROC curve on the evaluation split: all anomalies, then each kind."""
    found = answers(module, {"features": spoken_digits.features(FEATURES, held["inputs"]["sound"])})
    kinds = held["slices"]["anomaly"]
    made = [area("speech against anomalies", found, held["targets"])]
    for kind in KINDS:
        rows = (kinds == "none") | (kinds == kind)
        made.append(area(f"speech against {kind}", found[rows], held["targets"][rows]))
    return tuple(made)


def error(outputs: list[Tensor], _: dict[str, Tensor], __: Tensor | None) -> Tensor:
    """The mean squared error of reconstruction."""
    return outputs[0].mean()


def area(split: str, errors: np.ndarray, targets: np.ndarray) -> card.Measured:
    """The area under the ROC curve with a bootstrap interval of 500 resamples."""
    value = float(roc_auc_score(targets, errors))
    resampled = bootstrap(
        (targets, errors),
        roc_auc_score,
        paired=True,
        vectorized=False,
        n_resamples=500,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    interval = (float(resampled.low), float(resampled.high))
    return card.Measured(split, "auroc", value, interval, len(targets))


if __name__ == "__main__":
    main()
