"""The Free Spoken Digit Dataset, and how the keyword networks are trained and measured on it: 3,000
recordings of ten words by six speakers, 8 kHz."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import resample_poly
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.artifacts import Split, TensorSpec
from lepton_compress.compress.training import Schedule
from lepton_compress.load.wav import WavLoader, load_wav
from lepton_compress.preprocess.audio import Audio, audio
from reference_models import card
from reference_models.training import Trained, answers, fit, save

RATE, SAMPLES = 8000, 8000
RECORDINGS: Mapping[str, Any] = {
    "path": "fsdd.zip",
    "sha256": "771cbb3de55a38eccfb76792f0e731ec43b16009d6d8709422cb3f40bfffdb71",
    "pattern": r"(?P<label>\d)_(?P<speaker>\w+)_(?P<index>\d+)\.wav",
    "rate": RATE,
    "samples": SAMPLES,
    "calibration": "5 %",
}
OWN = {"index": [0, 1, 2, 3, 4]}
"""The dataset's own split: these recordings of every speaker and word are for testing."""
STRANGERS = {"speaker": ["lucas", "theo"]}
"""Speakers that a network has never heard."""
MFCCS: Mapping[str, Any] = {
    "rate": RATE,
    "hop": "20 ms",
    "features": "mfcc",
    "coefficients": 10,
    "mean": [-42, 0, 1, 0, -1, -1, 0, 0, 0, 0],
    "std": [26, 6, 3, 2.5, 2.5, 2, 1.5, 1.5, 1.5, 1.5],
    "layout": "image",
}
LOG_MELS: Mapping[str, Any] = {"rate": RATE, "hop": "20 ms", "mean": -10, "std": 5}
"""Both are repeated in the recipes; means and deviations are of the training recordings."""
NOTE = (
    "Features are computed from int16 recordings of one second, silence at both ends trimmed, by "
    "the preprocessing `audio`; trained on them and on three altered copies of each: faster or "
    "slower, moved, with noise."
)
COPIES = 3
"""Altered recordings for each one."""


def load(hold_out: Mapping[str, list[Any]] = OWN, seed: int = 0) -> Any:
    """What the loader `wav` gives: int16 (samples, 8000) in three splits, labels int64.

    Raises:
        InputError: the recordings do not lie in `LEPTON_DATA`.
    """
    params = WavLoader.model_validate({**RECORDINGS, "hold_out": hold_out})
    return load_wav(params, Path(), seed)


def altered(sounds: np.ndarray, seed: int) -> np.ndarray:
    """Recordings spoken up to 15 % faster or slower, moved in time, with noise 5 to 40 dB below.

    Args:
        sounds: int16 (count, samples), silence at the end.

    Returns:
        int16 (count, samples).
    """
    draw = np.random.default_rng(seed)
    made = np.zeros_like(sounds)
    for row, sound in enumerate(sounds):
        length = np.flatnonzero(sound)[-1] + 1
        spoken = resample_poly(sound[:length].astype(np.float64), int(draw.integers(17, 24)), 20)
        spoken = spoken[: sounds.shape[1]]
        start = draw.integers(sounds.shape[1] - len(spoken) + 1)
        noise = np.sqrt((spoken**2).mean()) * 10 ** (-draw.uniform(5, 40) / 20)
        mixed = draw.normal(scale=noise, size=sounds.shape[1])
        mixed[start : start + len(spoken)] += spoken
        made[row] = np.clip(np.round(mixed), -32768, 32767)
    return made


def features(settings: Mapping[str, Any], sounds: np.ndarray) -> np.ndarray:
    """What the preprocessing `audio` gives for sounds (count, samples) of int16."""
    raw = TensorSpec("sound", "int16", ("batch", *sounds.shape[1:]))
    return audio(Audio.model_validate(settings), raw, Path()).apply(sounds)


def smoothed(outputs: list[Tensor], _: dict[str, Tensor], targets: Tensor | None) -> Tensor:
    """Cross-entropy with labels smoothed by 5 % (Szegedy et al., 2016)."""
    if targets is None:
        raise ValueError("words have labels")
    return functional.cross_entropy(outputs[0], targets, label_smoothing=0.05)


def trained_on(
    hold_out: Mapping[str, list[Any]],
    make: Callable[[], nn.Module],
    settings: Mapping[str, Any],
    schedule: Schedule,
    label: str,
) -> tuple[Trained, card.Measured]:
    """A network trained on all recordings but those held out, and its accuracy on those."""
    parts = load(hold_out)
    sounds, labels = parts["train"]["inputs"]["sound"], parts["train"]["targets"]
    every = np.concatenate([sounds, *(altered(sounds, copy) for copy in range(COPIES))])
    split = Split({"features": features(settings, every)}, np.tile(labels, COPIES + 1))
    made = fit(
        make,
        split,
        schedule,
        label=label,
        loss=smoothed,
    )
    held = parts["evaluation"]
    given = features(settings, held["inputs"]["sound"])
    found = answers(made.module, {"features": given}).argmax(1)
    name = "own split" if hold_out == OWN else "speakers never heard"
    return made, card.accuracy(name, found, held["targets"])


def train_and_write(
    name: str,
    about: str,
    make: Callable[[], nn.Module],
    settings: Mapping[str, Any],
    schedule: Schedule,
    folder: Path,
) -> None:
    """Train on both splits, keep the weights of the dataset's own, and write them and the card."""
    made, own = trained_on(OWN, make, settings, schedule, name)
    apart, strangers = trained_on(STRANGERS, make, settings, schedule, name)
    probe = features(settings, np.zeros((2, SAMPLES), np.int16))
    parameters, macs = card.size(made.module, {"features": probe})
    card.write(
        folder,
        card.Card(
            name=name,
            about=about,
            data="Free Spoken Digit Dataset, 3,000 recordings of the ten digits by six speakers "
            "at 8 kHz; CC BY-SA 4.0.",
            split="own split: recordings 0 to 4 of each speaker and digit to evaluate on, 5 % of "
            "all to calibrate with, the rest to train on; speakers never heard: a second network "
            f"of the same kind, for which {' and '.join(STRANGERS['speaker'])} are held out.",
            retrain=f"python -m reference_models.{name}.train",
            measured=(own, strangers),
            parameters=parameters,
            macs=macs,
            bytes=save(made.module, folder),
            seconds=made.seconds + apart.seconds,
            notes=(NOTE,),
        ),
    )
