"""The reference models with their data, prepared as the networks take them, for benchmarks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lepton_compress.artifacts import Dataset, Split

SPLITS = ("train", "calibration", "evaluation")


@dataclass(frozen=True)
class Task:
    """A network with its splits, prepared as it takes them."""

    network: Any
    data: Dataset
    metric: Any = "accuracy"
    outputs: tuple[str, ...] = ("scores",)


def pictures(name: str) -> Task:
    """A network on coloured digits."""
    from reference_models.training import pictures as prepared

    module = importlib.import_module(f"reference_models.{name}.model")
    given = importlib.import_module(f"reference_models.{name}.data").load()
    splits = {
        split: Split(
            {"image": prepared(given[split]["inputs"]["images"], mean=0.5, std=0.5)},
            given[split]["targets"].astype(np.int64),
        )
        for split in SPLITS
    }
    return Task(module.trained(), Dataset(**splits, fingerprint=name))


def words(name: str) -> Task:
    """A network on spoken digits."""
    from reference_models import spoken_digits as spoken

    settings = spoken.MFCCS if name == "keyword_dscnn" else spoken.LOG_MELS
    given = spoken.load()
    splits = {
        split: Split(
            {"features": spoken.features(settings, given[split]["inputs"]["sound"])},
            given[split]["targets"],
        )
        for split in SPLITS
    }
    module = importlib.import_module(f"reference_models.{name}.model")
    return Task(module.trained(), Dataset(**splits, fingerprint=name))


def reviews(name: str) -> Task:
    """A network on film reviews."""
    from reference_models import film_reviews as films

    module = importlib.import_module(f"reference_models.{name}.model")
    given, folder = films.load(), Path(module.__file__).parent
    splits = {
        split: Split(
            {"ids": films.tokens(given[split]["inputs"]["text"], folder)}, given[split]["targets"]
        )
        for split in SPLITS
    }
    return Task(module.trained(), Dataset(**splits, fingerprint=name))


def digits(name: str) -> Task:
    """The network on digits of 28 by 28."""
    from reference_models.mnist_cnn import data, model
    from reference_models.training import pictures as prepared

    given = data.load()
    splits = {
        split: Split(
            {"image": prepared(given[split]["inputs"]["images"])},
            given[split]["targets"].astype(np.int64),
        )
        for split in SPLITS
    }
    return Task(model.trained(), Dataset(**splits, fingerprint=name))


def anomalies(name: str) -> Task:
    """The network that gives its input again, and strange sound less well: an NPU computes that,
    and the host the error. Targets are the labels, then the features that the error is from."""
    from reference_models import spoken_digits as spoken
    from reference_models.dense_autoencoder import data, model

    given = data.load()
    splits = {}
    for split in SPLITS:
        features = spoken.features(data.FEATURES, given[split]["inputs"]["sound"])
        labels = given[split].get("targets")
        targets = None if labels is None else np.column_stack([labels, features])
        splits[split] = Split({"features": features}, targets)
    held = Dataset(**splits, fingerprint=name)
    return Task(_Reconstruction(model.trained()), held, area, ("reconstruction",))


class _Reconstruction(torch.nn.Module):
    """The network without the error that it tells as well."""

    def __init__(self, whole: torch.nn.Module) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.whole(features)[1]


def area(outputs: Mapping[str, np.ndarray], targets: np.ndarray) -> float:
    """Area under the ROC curve of the squared error of reconstruction."""
    from sklearn.metrics import roc_auc_score

    errors = np.square(outputs["reconstruction"] - targets[:, 1:]).mean(axis=1)
    return float(roc_auc_score(targets[:, 0], errors))


TASKS: dict[str, Callable[[str], Task]] = {
    "mnist_cnn": digits,
    "resnet8": pictures,
    "mobilenet_v1_025": pictures,
    "keyword_dscnn": words,
    "dense_autoencoder": anomalies,
    "keyword_gru": words,
    "keyword_lstm": words,
    "sentiment_transformer": reviews,
    "text_cnn": reviews,
}
