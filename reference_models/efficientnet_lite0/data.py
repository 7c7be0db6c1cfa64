"""1,000 images of ImageNet, one a class, as its recipe loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_compress.load.images import ImageLoader, load_images

SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels, from 0 to 1."""


def load() -> dict[str, Any]:
    """Splits of pictures (samples, 256, 256, 3) uint8, of which the network takes the middle."""
    params = ImageLoader.model_validate(
        {
            "path": "imagenet-sample",
            "label": r"(?P<label>\d{3})_.*\.jpg",
            "classes": 1000,
            "calibration": "12.8 %",
            "evaluation": "67.2 %",
        }
    )
    return load_images(params, Path(__file__).parent, 0)  # type: ignore[no-any-return]
