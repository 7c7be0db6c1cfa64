"""Listening to a stream: a window of sound at a time, or with a step model frame by frame, and
whether the artifact keeps up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lepton_compress.artifacts import Json
from lepton_compress.errors import InputError
from lepton_compress.predict import following
from lepton_compress.predict.answers import answers
from lepton_compress.predict.manual import Manual, single_input
from lepton_compress.predict.samples import decoded
from lepton_compress.predictions import Heard, Listening

if TYPE_CHECKING:
    import numpy as np

    from lepton_compress.targets.runner import Runner

PIPE = "-"
"""Standard input: PCM of 16 bits, little-endian, one channel, at the artifact's rate."""


def listen(
    source: Path | BinaryIO,
    manual: Manual,
    runner: Runner,
    *,
    hop: float | None,
    top: int,
    convert: bool,
    told: Callable[[Heard], None],
) -> Listening:
    """Ask the artifact about each window of a stream as it comes. A step model is given each frame
    once, and tells after as many as a window has what it hears by then.

    Args:
        source: a WAV file, or PCM as `PIPE` says.
        hop: seconds from one window to the next; a quarter of the window by default. A step model
            tells at the end of a frame.
        convert: bring a recording of another rate, width or number of channels to the artifact's.
        told: is given each window as soon as it is heard.

    Raises:
        InputError: the artifact does not take sound, or the stream is empty.
    """
    spec = single_input(manual, runner)
    about = manual.inputs.get(spec.name, {})
    if about.get("kind") != "audio":
        raise InputError(
            f"its input {spec.name} is no sound", where=str(manual.path), mend="drop --stream"
        )
    rate, size = int(about["rate"]), int(about["samples"])
    step = size // 4 if hop is None else round(hop * rate)
    if not 1 <= step <= size:
        raise InputError(
            f"a hop of {step / rate:g} s does not fit windows of {size / rate:g} s",
            where="predict",
            mend="give one up to the window's length",
        )
    runner.run({spec.name: _silence(size)})  # the first call is slower than those that follow
    follower = following.of(runner, size, step)
    if follower is not None:
        step = follower.every
    times: list[float] = []
    heard: list[Heard] = []
    length = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal length
        read = step if follower is None else follower.hop
        for chunk in _chunks(source, about, read, convert=convert):
            length += len(chunk)
            yield chunk

    def asked() -> Iterator[tuple[int, list[np.ndarray]]]:
        for start, window in _windows(counted(), size, step):
            begun = time.perf_counter()
            outputs = runner.run({spec.name: window[None]})
            times.append(time.perf_counter() - begun)
            yield start, outputs

    told_of = asked() if follower is None else follower.heard(counted(), times)
    for start, outputs in told_of:
        named = dict(zip((each.name for each in runner.outputs), outputs, strict=True))
        first = answers(named, manual.outputs, _name(source), top)[0]
        heard.append(Heard(start / rate, (start + size) / rate, first))
        told(heard[-1])
    if not heard:
        raise InputError("holds no sound", where=_name(source))
    busy = sum(times)
    every = step if follower is None else follower.hop
    return Listening(
        artifact=str(manual.path),
        rate=rate,
        window=size / rate,
        hop=step / rate,
        seconds=length / rate,
        busy=busy,
        # A window, or a frame, must be done before the next one is there.
        factor=busy / (len(times) * every / rate),
        worst=max(times) * 1e3,
        heard=tuple(heard),
        frame=None if follower is None else every / rate,
        typical=None if follower is None else statistics.median(times) * 1e3,
    )


def _name(source: Path | BinaryIO) -> str:
    return str(source) if isinstance(source, Path) else "standard input"


def _silence(size: int) -> np.ndarray:
    import numpy as np

    return np.zeros((1, size), np.int16)


def _chunks(
    source: Path | BinaryIO, about: Mapping[str, Json], step: int, *, convert: bool
) -> Iterator[np.ndarray]:
    """int16 (up to `step` samples), in order."""
    import numpy as np

    if isinstance(source, Path):
        whole = _whole(source, about, convert=convert)
        for start in range(0, len(whole), step):
            yield whole[start : start + step]
        return
    while held := source.read(2 * step):
        if len(held) > 1:
            yield np.frombuffer(held[: len(held) // 2 * 2], "<i2").astype(np.int16)


def _whole(path: Path, about: Mapping[str, Json], *, convert: bool) -> np.ndarray:
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    return decoded(path, about, None, convert=convert)[0]


def _windows(
    chunks: Iterator[np.ndarray], size: int, step: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Where each window starts, and its samples."""
    import numpy as np

    kept, start = np.zeros(0, np.int16), 0
    for chunk in chunks:
        kept = np.concatenate([kept, chunk])
        while len(kept) >= size:
            yield start, kept[:size]
            kept, start = kept[step:], start + step
    heard = size - step if start else 0
    if len(kept) > heard:  # what is left is filled up, as a short recording is
        yield start, np.pad(kept, (0, size - len(kept)))
