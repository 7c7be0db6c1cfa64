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
        RecipeError: there is none of that name, none of a signal, or it holds no images.
    """
    signals = [each for each, array in split.inputs.items() if _is_signal(array)]
    if name is not None and name not in signals:
        problem = f"there is no input {name!r} of floats, pictures or sound"
        raise RecipeError(problem, where=where, mend=nearest(name, signals))
    if not signals:
        problem = "no input holds floats, pictures or sound to corrupt"
        raise RecipeError(problem, where=where, mend="remove it")
    chosen = name or signals[0]
    asked = [each for each in corruptions if each in IMAGES]
    if asked and split.inputs[chosen].ndim != 4:
        raise RecipeError(
            f"{asked[0]} is for images, but {chosen} has shape {split.inputs[chosen].shape[1:]} "
            "a sample",
            where=where,
            mend="write `corruptions: [noise_snr]`",
        )
    return chosen


def _is_signal(array: np.ndarray) -> bool:
    """Floats, pictures of unsigned bytes, or PCM."""
    raw = {"uint8": 4, "int16": 2}.get(array.dtype.name)
    return array.dtype.kind == "f" or array.ndim == raw


def corrupted(split: Split, name: str, corruption: str, severity: int, seed: int) -> Split:
    """The samples with one input corrupted, of the same shape and dtype.

    Values stay in the range that the input had over all samples (but for `noise_snr`), those of
    whole numbers in the range of their dtype.

    Args:
        name: of the input, (samples, channels, height, width) or with channels last for images.
        severity: from 1 to 5.
        seed: of the noise.
    """
    import dataclasses

    import numpy as np

    array = split.inputs[name]
    low, high = float(array.min()), float(array.max())
    signal = array if array.dtype.kind == "f" else array.astype(np.float32)
    made = _apply(signal, corruption, STRENGTHS[corruption][severity - 1], low, high, seed)
    if corruption != "noise_snr":
        made = made.clip(low, high)
    if array.dtype.kind != "f":
        limits = np.iinfo(array.dtype)
        made = made.round().clip(limits.min, limits.max)
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
