"""Speech, and speech with something in it that does not belong there, as windows of 176 ms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reference_models import spoken_digits

SAMPLES = 1408
"""Of a window: ten frames."""
FEATURES: Mapping[str, Any] = {
    "rate": spoken_digits.RATE,
    "frame": "32 ms",
    "hop": "16 ms",
    "fft": 512,
    "mels": 64,
    "mean": -8,
    "std": 5,
    "layout": "flat",
}
"""Repeated in the recipe."""
KINDS = ("tone", "clicks", "backwards")


def load(seed: int = 0) -> dict[str, Any]:
    """int16 windows (samples, 1408): speech alone to train and calibrate with, and, to evaluate
    on, windows of other recordings, in every second of which an anomaly is planted; those have the
    target 1, the others 0.

    Raises:
        InputError: the recordings do not lie in `LEPTON_DATA`.
    """
    parts = spoken_digits.load(seed=seed)
    speech = {
        split: windows(parts[split]["inputs"]["sound"]) for split in parts if split != "notes"
    }
    held = speech["evaluation"]
    draw = np.random.default_rng(seed)
    anomalous = np.arange(len(held)) % 2
    kinds = np.array(["none", *KINDS])[anomalous * (1 + np.arange(len(held)) // 2 % len(KINDS))]
    made = np.stack([planted(each, kind, draw) for each, kind in zip(held, kinds, strict=True)])
    return {
        "train": {"inputs": {"sound": speech["train"]}},
        "calibration": {"inputs": {"sound": speech["calibration"]}},
        "evaluation": {
            "inputs": {"sound": made},
            "targets": anomalous.astype(np.int64),
            "slices": {"anomaly": kinds},
        },
        "notes": parts["notes"],
    }


def windows(sounds: np.ndarray) -> np.ndarray:
    """The windows of recordings (count, samples) that follow each other and hold speech: whose
    energy is no less than a hundredth of the loudest one's of the recording."""
    count = sounds.shape[1] // SAMPLES
    parts = sounds[:, : count * SAMPLES].reshape(len(sounds), count, SAMPLES)
    energies = np.square(parts.astype(np.float64)).mean(axis=2)
    made: np.ndarray = parts[energies >= energies.max(axis=1, keepdims=True) / 100]
    return made


def planted(window: np.ndarray, kind: str, draw: np.random.Generator) -> np.ndarray:
    """A window with an anomaly: a tone 6 dB below the speech, five clicks as loud as its loudest
    sample, or itself backwards, as loud, on top of it."""
    speech = window.astype(np.float64)
    loudness = np.sqrt(np.square(speech).mean())
    if kind == "tone":
        phase = 2 * np.pi * draw.uniform(500, 3500) / spoken_digits.RATE * np.arange(len(window))
        speech += loudness / np.sqrt(2) * np.sin(phase)
    elif kind == "clicks":
        speech[draw.integers(len(window), size=5)] = np.abs(speech).max()
    elif kind == "backwards":
        speech += speech[::-1].copy()
    return np.clip(np.round(speech), -32768, 32767).astype(np.int16)
