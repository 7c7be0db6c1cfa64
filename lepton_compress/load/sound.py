"""Recordings: found in a folder or a .zip, decoded, and brought to one rate and length."""

from __future__ import annotations

import io
import math
import wave
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from lepton_compress.errors import InputError

LARGEST = 512 * 1024**2
"""Bytes of one recording; what claims to be more is no sample."""
FASTEST = 768_000
"""Hz; what claims to be more is damaged, and would take a filter as long as its rate."""


@dataclass(frozen=True)
class Form:
    """What recordings are brought to.

    Attributes:
        rate: in Hz.
        samples: the length.
        trim: dB below the loudest 10 ms that count as silence at both ends; None keeps it.
        convert: whether other widths and several channels are taken.
    """

    rate: int
    samples: int
    trim: float | None
    convert: bool = False


@dataclass(frozen=True)
class Recording:
    """PCM as it was recorded.

    Attributes:
        signal: (length, channels) float64, in units of a 16-bit step.
        rate: in Hz.
        width: bytes of one sample in the file.
        where: to name in errors.
    """

    signal: np.ndarray
    rate: int
    width: int
    where: str


class Recordings:
    """The .wav files of a folder or a .zip, which is read without extracting it.

    Raises:
        InputError: the path is neither.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            names = [each.relative_to(path).as_posix() for each in path.rglob("*")]
        else:
            try:
                self._zip = zipfile.ZipFile(path)
            except (OSError, NotImplementedError, zipfile.BadZipFile) as error:
                raise InputError(
                    f"is neither a folder nor a .zip ({error})", where=str(path)
                ) from error
            names = self._zip.namelist()
        self.names = sorted(name for name in names if name.lower().endswith(".wav"))

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            InputError: it cannot be read, or is too large for a recording.
        """
        where = f"{self._path}/{name}"
        try:
            if self._zip is None:
                file = self._path / name
                size = file.stat().st_size
            else:
                size = self._zip.getinfo(name).file_size
            if size > LARGEST:
                raise InputError(f"has {size} bytes, too many for a recording", where=where)
            return file.read_bytes() if self._zip is None else self._zip.read(name)
        except (
            OSError,
            RuntimeError,
            NotImplementedError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise InputError(f"cannot be read ({error})", where=where) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._zip is not None:
            self._zip.close()


def read_wav(data: bytes, where: str) -> Recording:
    """Decode a WAV file of integer PCM with 8, 16, 24 or 32 bits.

    Raises:
        InputError: it is none.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            held = file.readframes(file.getnframes())
    except (wave.Error, EOFError, RuntimeError) as error:
        said = str(error) or "it ends too early"
        raise InputError(
            f"is not a WAV file of integer PCM ({said})",
            where=where,
            mend="convert it, for example with `sox IN -b 16 -e signed-integer OUT.wav`",
        ) from error
    if width not in (1, 2, 3, 4) or not 0 < rate <= FASTEST:
        raise InputError(
            f"has {8 * width} bits at {rate} Hz",
            where=where,
            mend=f"give up to 32 bits at {FASTEST} Hz at most",
        )
    held = held[: len(held) // (width * channels) * width * channels]
    return Recording(_decoded(held, width).reshape(-1, channels), rate, width, where)


def _decoded(held: bytes, width: int) -> np.ndarray:
    """float64 (samples) in units of a 16-bit step."""
    if width == 1:  # the only width without a sign
        return (np.frombuffer(held, np.uint8).astype(np.float64) - 128) * 256
    if width == 3:
        wide = np.zeros((len(held) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(held, np.uint8).reshape(-1, 3)
        return wide.view("<i4").ravel() / 65536.0
    return np.frombuffer(held, f"<i{width}") / float(256 ** (width - 2))


def fit(recording: Recording, form: Form) -> tuple[np.ndarray, tuple[str, ...]]:
    """A recording as int16 (samples), or (0,) if it is silent; and what was done to it:
    "converted", "resampled" and "cut".

    Resampled by a polyphase filter (scipy.signal.resample_poly).

    Raises:
        InputError: it has several channels or another width, and `form.convert` is not set.
    """
    signal, done = recording.signal, []
    channels = signal.shape[1]
    if channels != 1 or recording.width != 2:
        if not form.convert:
            raise InputError(
                f"has {channels} channel{'s' * (channels > 1)} of {8 * recording.width} bits, not "
                "one of 16",
                where=recording.where,
                mend="set `convert: true` to average channels and change the width",
            )
        done.append("converted")
    mono = signal.mean(axis=1) if signal.size else np.zeros(0)
    if recording.rate != form.rate and len(mono):
        from scipy.signal import resample_poly

        shared = math.gcd(form.rate, recording.rate)
        mono = resample_poly(mono, form.rate // shared, recording.rate // shared)
        done.append("resampled")
    if form.trim is not None:
        mono = trimmed(mono, form.rate, form.trim)
    elif not mono.any():
        mono = mono[:0]
    if not len(mono):
        return np.zeros(0, np.int16), tuple(done)
    if len(mono) > form.samples:
        done.append("cut")
    made = np.zeros(form.samples, np.int16)
    mono = np.clip(np.round(mono[: form.samples]), -32768, 32767)
    made[: len(mono)] = mono.astype(np.int16)
    return made, tuple(done)


def trimmed(signal: np.ndarray, rate: int, decibels: float) -> np.ndarray:
    """A signal (samples) without the 10 ms pieces at both ends whose mean square lies that far
    below the loudest piece's; (0,) if it is silent."""
    piece = max(1, rate // 100)
    starts = np.arange(0, len(signal), piece)
    energies = np.add.reduceat(signal**2, starts) if len(signal) else np.zeros(0)
    energies = energies / np.diff(np.append(starts, len(signal)))
    if not energies.any():
        return signal[:0]
    loud = np.flatnonzero(energies >= energies.max() * 10 ** (-decibels / 10))
    return signal[starts[loud[0]] : starts[loud[-1]] + piece]
