"""The UCI handwritten digits that scikit-learn ships: 1,797 images of 8x8 in 17 shades."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

COUNTS = {"train": 1000, "calibration": 197, "evaluation": 600}


def load(seed: int = 7) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Three disjoint splits, shuffled by the seed: images (n, 1, 8, 8) float32, labels (n,) int64.

    Raises:
        FileNotFoundError: scikit-learn is not installed.
    """
    # The file is read without importing scikit-learn, which would take two seconds.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the digits come with scikit-learn: pip install scikit-learn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    images, labels = table[:, :-1].reshape(-1, 1, 8, 8) / 16, table[:, -1].astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(images))
    ends = np.cumsum(list(COUNTS.values()))[:-1]
    parts = zip(COUNTS, np.split(order, ends), strict=True)
    return {name: (images[rows], labels[rows]) for name, rows in parts}


def parity(seed: int = 7) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The same splits for a network of 28x28 and another question: images (n, 1, 28, 28), and 0
    for an even digit, 1 for an odd one."""
    return {name: (_enlarged(images), labels % 2) for name, (images, labels) in load(seed).items()}


def _enlarged(images: np.ndarray) -> np.ndarray:
    """Each pixel a square of nine, with a dark margin of two."""
    large = images.repeat(3, axis=2).repeat(3, axis=3)
    return np.pad(large, ((0, 0), (0, 0), (2, 2), (2, 2)))
