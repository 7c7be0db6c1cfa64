"""Train a classifier of pictures, measure it and say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from torch import nn

from lepton_compress.artifacts import Split
from lepton_compress.compress.training import Schedule
from reference_models import card
from reference_models.training import WEIGHTS, answers, fit, pictures, save


class Said(TypedDict):
    """The sentences of a card."""

    name: str
    about: str
    data: str
    split: str
    retrain: str


def trained_card(
    folder: Path,
    make: Callable[[], nn.Module],
    samples: Mapping[str, Any],
    schedule: Schedule,
    *,
    weights: str = WEIGHTS,
    mean: float = 0.0,
    std: float = 1.0,
    **said: Unpack[Said],
) -> card.Card:
    """Train from scratch, write the weights into a folder, and return the card to write.

    Args:
        make: gives the network, which takes `image` and gives scores or one probability.
        samples: as `load` of a reference model gives it: pictures of bytes, channels last.
        mean: of the values from 0 to 1, as the network takes them.
        std: their deviation.
        said: the sentences of the card.
    """
    splits = {name: samples[name] for name in ("train", "evaluation")}
    held = {name: {"image": pictures(each["inputs"]["images"], mean=mean, std=std)}
            for name, each in splits.items()}  # fmt: skip
    split = Split(held["train"], splits["train"]["targets"])
    made = fit(make, split, schedule, label=said["name"])
    right = splits["evaluation"]["targets"]
    scored = card.accuracy("evaluation", labels(answers(made.module, held["evaluation"])), right)
    parameters, macs = card.size(made.module, held["evaluation"])
    return card.Card(
        **said,
        measured=(scored,),
        parameters=parameters,
        macs=macs,
        bytes=save(made.module, folder, weights),
        seconds=made.seconds,
    )


def labels(scores: np.ndarray) -> np.ndarray:
    """The label of each sample, (samples,), from (samples, classes), or from (samples, 1)
    probabilities of the label 1."""
    predicted: np.ndarray = scores.argmax(1) if scores.shape[1] > 1 else scores[:, 0] > 0.5
    return predicted
