"""Common corruptions of images, and noise on signals, at severities from 1 to 5.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations (ICLR 2019), whose kinds and order of severities these follow; strengths are shares
of the range of the values, so that any scaling of the input is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Split
from lepton_compress.errors import RecipeError
from lepton_compress.registry import nearest

if TYPE_CHECKING:
    import numpy as np

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "gaussian_blur": (0.5, 0.75, 1.0, 1.5, 2.0),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "noise_snr": (30.0, 20.0, 15.0, 10.0, 5.0),
}
"""By severity: standard deviation of the noise as a share of the range; of the blur in pixels;
shift as a share of the range; share of the contrast that is left; signal to noise in decibels."""
IMAGES = ("gaussian_blur", "brightness", "contrast")


def pick_input(split: Split, name: str | None, corruptions: list[str], where: str) -> str:
    """The input to corrupt.

    Raises:
        RecipeError: there is none of that name, none of floats, or it holds no images.
    """
    floats = [each for each, array in split.inputs.items() if array.dtype.kind == "f"]
    if name is not None and name not in floats:
        mend = nearest(name, floats)
        raise RecipeError(f"there is no float input {name!r}", where=where, mend=mend)
    if not floats:
        raise RecipeError("no input holds floats to corrupt", where=where, mend="remove it")
    chosen = name or floats[0]
    asked = [each for each in corruptions if each in IMAGES]
    if asked and split.inputs[chosen].ndim != 4:
        raise RecipeError(
            f"{asked[0]} is for images, but {chosen} has shape {split.inputs[chosen].shape[1:]} "
            "a sample",
            where=where,
            mend="write `corruptions: [noise_snr]`",
        )
    return chosen


def corrupted(split: Split, name: str, corruption: str, severity: int, seed: int) -> Split:
    """The samples with one input corrupted; float arrays of the same shape and dtype.

    Values stay in the range that the input had over all samples (but for `noise_snr`).

    Args:
        name: of the input, (samples, channels, height, width) or with channels last for images.
        severity: from 1 to 5.
        seed: of the noise.
    """
    import dataclasses

    array = split.inputs[name]
    low, high = float(array.min()), float(array.max())
    made = _apply(array, corruption, STRENGTHS[corruption][severity - 1], low, high, seed)
    if corruption != "noise_snr":
        made = made.clip(low, high)
    held = {**split.inputs, name: made.astype(array.dtype)}
    return dataclasses.replace(split, inputs=held)


def _apply(
    array: np.ndarray, corruption: str, strength: float, low: float, high: float, seed: int
) -> np.ndarray:
    import numpy as np

    draw = np.random.default_rng(seed)
    axes = tuple(range(1, array.ndim))
    made: np.ndarray
    if corruption == "gaussian_noise":
        made = array + strength * (high - low) * draw.standard_normal(array.shape, np.float32)
    elif corruption == "gaussian_blur":
        from scipy.ndimage import gaussian_filter

        last = array.shape[-1] < min(array.shape[1:3])  # channels stand last
        sigma = (0, strength, strength, 0) if last else (0, 0, strength, strength)
        made = gaussian_filter(array, sigma, mode="reflect")
    elif corruption == "brightness":
        made = array + strength * (high - low)
    elif corruption == "contrast":
        means = array.mean(axis=axes, keepdims=True)
        made = (array - means) * strength + means
    else:
        power = (array.astype(np.float64) ** 2).mean(axis=axes, keepdims=True)
        scale = np.sqrt(power / 10 ** (strength / 10))
        made = array + scale * draw.standard_normal(array.shape)
    return made
