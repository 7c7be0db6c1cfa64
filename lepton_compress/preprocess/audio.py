"""The preprocessing `audio`: samples of sound to log-mel features or MFCCs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import TensorSpec
from lepton_compress.budget import Name
from lepton_compress.errors import InputError
from lepton_compress.preprocess.form import Preprocessing
from lepton_compress.registry import Params, plugin
from lepton_compress.units import Duration

Positive = Annotated[float, Field(gt=0)]
WHERE = "preprocess: audio"


class Audio(Params):
    """Frames of sound, and what is computed of each."""

    input: Name | None = Field(None, description="Of the model; may be left out if it has one.")
    rate: Annotated[int, Field(strict=True, ge=1000, le=192_000)] = Field(
        description="Samples a second, in Hz. Part of the model: other recordings are refused."
    )
    frame: Duration = Field(0.032, description="Length of a frame, such as `32 ms`.")
    hop: Duration = Field(0.016, description="From the start of a frame to that of the next.")
    fft: Annotated[int, Field(strict=True, ge=8, le=65_536)] | None = Field(
        None,
        description="Samples of the Fourier transform, an even number; frames are filled up with "
        "zeros. By default the frame, rounded up to a power of two.",
    )
    features: Literal["log_mel", "mfcc"] = Field(
        "log_mel", description="Logarithms of mel bands, or their cosine transform."
    )
    mels: Annotated[int, Field(strict=True, ge=2, le=512)] = Field(40, description="Mel bands.")
    coefficients: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="Of `mfcc`: the first ones that are kept, 13 by default."
    )
    low: Annotated[float, Field(ge=0)] = Field(20.0, description="Lower end of the bands, in Hz.")
    high: Positive | None = Field(
        None, description="Upper end of the bands, in Hz; half the rate by default."
    )
    floor: Positive = Field(
        1e-6,
        description="Energies below it count as it, so that silence has a logarithm; full scale "
        "is an amplitude of 1.",
    )
    mean: float | list[float] = Field(0.0, description="Subtracted, one for all or one a feature.")
    std: Positive | list[Positive] = Field(1.0, description="Divided by after that.")
    layout: Literal["frames", "image", "flat"] = Field(
        "frames",
        description="Shape of a sample: (frames, features), (1, frames, features), or "
        "(frames x features).",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        high = self.high or self.rate / 2
        if high > self.rate / 2:
            raise ValueError(f"high is {high:g} Hz, but a rate of {self.rate} ends at half of it")
        if self.low >= high:
            raise ValueError(f"low is {self.low:g} Hz, which is not below high, {high:g} Hz")
        if self.coefficients is not None and self.features != "mfcc":
            raise ValueError("coefficients go with features: mfcc")
        if self.features == "mfcc" and self.width > self.mels:
            raise ValueError(f"{self.width} coefficients cannot come out of {self.mels} mel bands")
        if self.window % 2 or self.window < 2:
            raise ValueError(f"a frame has {self.window} samples; it needs an even number")
        if self.step > self.window:
            raise ValueError("the hop is longer than the frame, so that samples are left out")
        if self.fft is not None and (self.fft < self.window or self.fft % 2):
            raise ValueError(
                f"fft is {self.fft}; it needs an even number, at least the {self.window} samples "
                "of a frame"
            )
        for name in ("mean", "std"):
            given = getattr(self, name)
            if isinstance(given, list) and len(given) != self.width:
                raise ValueError(f"{name} has {len(given)} values for {self.width} features")
        return self

    @property
    def window(self) -> int:
        """Samples in a frame."""
        return _samples("frame", self.frame, self.rate)

    @property
    def step(self) -> int:
        """Samples from frame to frame."""
        return _samples("hop", self.hop, self.rate)

    @property
    def transform(self) -> int:
        """Samples of the Fourier transform."""
        return self.fft or 1 << (self.window - 1).bit_length()

    @property
    def width(self) -> int:
        """Features of one frame."""
        return self.mels if self.features == "log_mel" else self.coefficients or 13


def _samples(name: str, seconds: float, rate: int) -> int:
    """A whole number of samples, or a ValueError."""
    exact = Fraction(seconds).limit_denominator(10**9) * rate
    if exact.denominator != 1:
        raise ValueError(
            f"{name} is {seconds * 1e3:g} ms, which is {float(exact):g} samples at {rate} Hz; "
            "give a whole number of them"
        )
    return exact.numerator


@plugin("preprocessing", "audio", Audio)
def audio(params: Audio, raw: TensorSpec, folder: Path) -> Preprocessing:
    """Log-mel bands or MFCCs of PCM samples, by constant matrices that need no Fourier operator.

    Raw samples are int16 (samples); features are float32, shaped as `layout` says.

    Raises:
        InputError: the raw samples are of another type or shape, or shorter than a frame, or a
            mel band is so narrow that no frequency of the transform lies in it.
    """
    from lepton_compress.preprocess.mel import Mel

    length = raw.shape[1] if len(raw.shape) == 2 else None
    if raw.dtype != "int16" or not isinstance(length, int):
        raise InputError(
            f"takes int16 samples in one row, not {raw.dtype} {list(raw.shape[1:])}",
            where=WHERE,
            mend="the loader `wav` gives them",
        )
    if length < params.window:
        raise InputError(
            f"{length} samples are shorter than one frame of {params.window}", where=WHERE
        )
    mel = Mel(params, length)
    about = {"kind": "audio", "rate": params.rate, "samples": length, "dtype": raw.dtype}
    about |= {"window": params.window, "hop": params.step}
    return Preprocessing(mel.apply, mel.build, raw, about)
