"""Log-mel bands and MFCCs of sound, in numpy by the Fourier transform, and as nodes without it.

The mel scale is 2595 log10(1 + f / 700) (O'Shaughnessy, Speech Communication, 1987), with
triangular filters over the power spectrum of periodic Hann windows, as HTK has them; MFCCs are the
orthonormal DCT-II of their logarithms (Davis and Mermelstein, IEEE TASSP 28, 1980). Frames are not
padded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lepton_compress.errors import InputError

if TYPE_CHECKING:
    from lepton_compress.preprocess.audio import Audio
    from lepton_compress.preprocess.nodes import Nodes

FULL_SCALE = 32768
CHUNK = 64
"""Samples whose frames are held at once."""


class Mel:
    """The features of recordings of one length.

    Args:
        params: what to compute.
        length: samples of a recording, at least one frame.

    Raises:
        InputError: a mel band holds no frequency of the transform.
    """

    def __init__(self, params: Audio, length: int) -> None:
        self.params = params
        self.length = length
        self.frames = 1 + (length - params.window) // params.step
        self.window = hann(params.window)
        self.filters = filters(params)
        self.cosines = dct(params.mels, params.width) if params.features == "mfcc" else None
        self.mean = np.broadcast_to(np.asarray(params.mean, np.float64), params.width)
        self.std = np.broadcast_to(np.asarray(params.std, np.float64), params.width)

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """int16 (samples, length) to float32 features, computed in float64."""
        parts = [self._features(raw[at : at + CHUNK]) for at in range(0, len(raw), CHUNK)]
        made = np.concatenate(parts) if parts else np.empty((0, self.frames, self.params.width))
        return made.reshape(len(raw), *self._shape).astype(np.float32)

    @property
    def _shape(self) -> tuple[int, ...]:
        frames, width = self.frames, self.params.width
        shapes = {"frames": (frames, width), "image": (1, frames, width), "flat": (frames * width,)}
        return shapes[self.params.layout]

    def _features(self, raw: np.ndarray) -> np.ndarray:
        signal = raw.astype(np.float64) / FULL_SCALE
        framed = sliding_window_view(signal, self.params.window, axis=1)[:, :: self.params.step]
        spectrum = np.fft.rfft(framed * self.window, self.params.transform, axis=2)
        energies = (spectrum.real**2 + spectrum.imag**2) @ self.filters
        made = np.log(np.maximum(energies, self.params.floor))
        if self.cosines is not None:
            made = made @ self.cosines
        normalised: np.ndarray = (made - self.mean) / self.std
        return normalised

    def build(self, nodes: Nodes, raw: str) -> str:
        """The same in float32. Frames are centred at time 0, which power does not see: cosines are
        then even and sines odd, so that sums and differences of mirrored samples halve both
        matrices. Frequencies outside all bands are left out."""
        half = self.params.window // 2
        framed = self._framed(nodes, nodes.add("Cast", [raw], to=_FLOAT))
        ahead = _sliced(nodes, framed, axis=2, start=half, stop=self.params.window)
        behind = _sliced(nodes, framed, axis=2, start=half, stop=0, step=-1)
        used = np.flatnonzero(self.filters.any(axis=1))
        weights = self.window[half:, None] / FULL_SCALE
        weights[0] /= 2  # the sample in the middle is its own mirror; its sine is 0
        weighted = nodes.constant(weights, np.float32)
        turns = _turns(nodes, half, used, self.params.transform)
        circle = 2 * np.pi / self.params.transform * np.arange(self.params.transform)
        powers = []
        for operator, wave in (("Add", np.cos(circle)), ("Sub", np.sin(circle))):
            folded = nodes.add(operator, [ahead, behind])
            matrix = nodes.add("Gather", [nodes.constant(wave, np.float32), turns])
            part = nodes.add("MatMul", [folded, nodes.add("Mul", [matrix, weighted])])
            powers.append(nodes.add("Mul", [part, part]))
        power = nodes.add("Add", powers)
        energies = nodes.add("MatMul", [power, nodes.constant(self.filters[used], np.float32)])
        floored = nodes.add("Max", [energies, nodes.constant(self.params.floor, np.float32)])
        return self._ended(nodes, nodes.add("Log", [floored]))

    def _framed(self, nodes: Nodes, signal: str) -> str:
        """(batch, length) to (batch, frames, window), by pieces that every frame begins at."""
        window, step = self.params.window, self.params.step
        piece = math.gcd(window, step)
        pieces, stride = window // piece, step // piece
        count = (self.frames - 1) * stride + pieces
        held = _sliced(nodes, signal, axis=1, start=0, stop=count * piece)
        shape = nodes.constant([0, count, piece], np.int64)
        held = nodes.add("Reshape", [held, shape])
        reach = (self.frames - 1) * stride + 1
        parts = [
            _sliced(nodes, held, axis=1, start=at, stop=at + reach, step=stride)
            for at in range(pieces)
        ]
        return nodes.add("Concat", parts, axis=2) if pieces > 1 else parts[0]

    def _ended(self, nodes: Nodes, made: str) -> str:
        scale, shift = 1 / self.std, -self.mean / self.std
        if self.cosines is not None:
            matrix = nodes.constant(self.cosines * scale, np.float32)
            made = nodes.add("MatMul", [made, matrix])
        elif (scale != 1).any():
            made = nodes.add("Mul", [made, nodes.constant(scale, np.float32)])
        if shift.any():
            made = nodes.add("Add", [made, nodes.constant(shift, np.float32)])
        if self.params.layout == "frames":
            return made
        shape = nodes.constant([0, *self._shape], np.int64)
        return nodes.add("Reshape", [made, shape])


_FLOAT = 1
"""FLOAT in onnx's TensorProto."""


def _turns(nodes: Nodes, samples: int, frequencies: np.ndarray, transform: int) -> str:
    """Where on the circle each sample stands at each frequency, (samples, frequencies), in steps of
    the transform. Worked out by the runtime when it loads the file, which holds a hundredth of the
    matrices so."""
    times = nodes.constant(np.arange(samples)[:, None], np.int64)
    steps = nodes.add("Mul", [times, nodes.constant(frequencies, np.int64)])
    return nodes.add("Mod", [steps, nodes.constant(transform, np.int64)])


def _sliced(nodes: Nodes, value: str, *, axis: int, start: int, stop: int, step: int = 1) -> str:
    bounds: list[Any] = [start, stop, axis, step]
    return nodes.add("Slice", [value, *(nodes.constant([each], np.int64) for each in bounds)])


def hann(samples: int) -> np.ndarray:
    """The periodic Hann window, float64 (samples)."""
    made: np.ndarray = 0.5 - 0.5 * np.cos(2 * np.pi / samples * np.arange(samples))
    return made


def to_mel(hertz: np.ndarray) -> np.ndarray:
    """Hertz on the mel scale."""
    made: np.ndarray = 2595 * np.log10(1 + hertz / 700)
    return made


def from_mel(mel: np.ndarray) -> np.ndarray:
    """The other way."""
    made: np.ndarray = 700 * (10 ** (mel / 2595) - 1)
    return made


def filters(params: Audio) -> np.ndarray:
    """Triangular filters of height 1, float64 (frequencies of the transform, mels).

    Raises:
        InputError: a filter holds no frequency.
    """
    low, high = to_mel(np.array([params.low, params.high or params.rate / 2]))
    edges = from_mel(np.linspace(low, high, params.mels + 2))
    hertz = np.arange(params.transform // 2 + 1)[:, None] * params.rate / params.transform
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    made: np.ndarray = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(~made.any(axis=0))
    if len(empty):
        raise InputError(
            f"{len(empty)} of {params.mels} mel bands hold no frequency, the first from "
            f"{edges[empty[0]]:.0f} to {edges[empty[0] + 2]:.0f} Hz",
            where="preprocess: audio",
            mend="use fewer mels or a larger fft",
        )
    return made


def dct(bands: int, coefficients: int) -> np.ndarray:
    """The first columns of the orthonormal DCT-II, float64 (bands, coefficients)."""
    made: np.ndarray = np.cos(
        np.pi / bands * np.outer(np.arange(bands) + 0.5, np.arange(coefficients))
    )
    made *= np.sqrt(2 / bands)
    made[:, 0] /= np.sqrt(2)
    return made
