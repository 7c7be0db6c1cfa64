"""Asking an artifact, for people who want to see what it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lepton_compress import registry
from lepton_compress.artifacts import Artifact, RunResult
from lepton_compress.errors import InputError
from lepton_compress.explain import subject
from lepton_compress.predict import manual, samples, streaming
from lepton_compress.predict.answers import answers
from lepton_compress.predictions import Answer, Answers, Heard, Listening
from lepton_compress.report import folder

if TYPE_CHECKING:
    from lepton_compress.targets.runner import Runner

RUNTIMES = {".onnx": "onnxruntime-cpu", ".tflite": "litert-cpu", ".pte": "executorch-cpu"}
"""What an artifact is asked in, by how its file's name ends."""
_REPEATS = 5


def predict(
    artifact: str,
    inputs: Sequence[str],
    *,
    top: int = 5,
    convert: bool = False,
    threads: int = 1,
    format: str | None = None,
) -> Answers:
    """What an artifact answers.

    Args:
        artifact: an .onnx, .tflite or .pte file, a run folder with one chosen artifact, or
            `run folder:candidate`.
        inputs: pictures, WAV files, texts or arrays, by what the artifact takes.
        top: how many classes to tell of each sample.
        convert: bring what is of another mode, size, rate or width to what the artifact takes.
        threads: that a call may use.
        format: of a run's artifacts, which to ask; that which was chosen by default.

    Raises:
        InputError: something cannot be read, or does not fit.
    """
    path, runner = _open(artifact, threads, format)
    about = manual.read(path)
    found: list[Answer] = []
    times: list[float] = []
    for given in inputs:
        feeds, notes = samples.read(given, about, runner, convert=convert)
        if not times:
            runner.run(feeds)  # the first call is slower than those that follow
        outputs: list[Any] = []
        for _ in range(_REPEATS):
            begun = time.perf_counter()
            outputs = runner.run(feeds)
            times.append((time.perf_counter() - begun) * 1e3 / _count(feeds))
        named = dict(zip((each.name for each in runner.outputs), outputs, strict=True))
        found += answers(named, about.outputs, given, top, notes)
    return Answers(str(path), tuple(found), sorted(times)[len(times) // 2], threads)


def listen(
    artifact: str,
    source: Path | BinaryIO,
    *,
    hop: float | None = None,
    top: int = 1,
    convert: bool = False,
    threads: int = 1,
    format: str | None = None,
    told: Callable[[Heard], None] = lambda _: None,
) -> Listening:
    """What an artifact hears in a stream, window by window; see `predict.streaming.listen`.

    Raises:
        InputError: it does not take sound, or the stream does not fit.
    """
    path, runner = _open(artifact, threads, format)
    about = manual.read(path)
    return streaming.listen(source, about, runner, hop=hop, top=top, convert=convert, told=told)


def _count(feeds: Mapping[str, Any]) -> int:
    """Samples in one reading of an input."""
    return max((len(array) for array in feeds.values() if array.ndim), default=1)


def _open(artifact: str, threads: int, format: str | None) -> tuple[Path, Runner]:
    path = _file(artifact, format)
    if path.suffix not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise InputError(f"is no artifact ({known})", where=str(path), mend="give one of a run")
    runner: Runner = registry.get("runtime", RUNTIMES[path.suffix]).function(path, threads)
    return path, runner


def _file(artifact: str, format: str | None) -> Path:
    """The file that is asked: of a run folder what was chosen, of a candidate its first format."""
    path, (place, _, candidate) = Path(artifact), artifact.rpartition(":")
    if (path / folder.RESULT).is_file():
        return path / _chosen(folder.read_result(path), artifact, format).path
    if not path.exists() and place:
        run = folder.read_result(Path(place))
        held = [each for each in run.artifacts if each.candidate == candidate]
        if held:
            return Path(place) / _of_format(held, artifact, format).path
    if format is not None:
        raise InputError("is one file", where=artifact, mend="drop --format, which goes with a run")
    return subject.find(artifact).path  # or what is wrong with the name


def _of_format(held: Sequence[Artifact], artifact: str, format: str | None) -> Artifact:
    """The one of a candidate's artifacts that is asked for, or the first."""
    for each in held:
        if format in (None, each.format):
            return each
    formats = ", ".join(each.format for each in held)
    raise InputError(f"has no {format} artifact", where=artifact, mend=f"it has {formats}")


def _chosen(run: RunResult, artifact: str, format: str | None) -> Artifact:
    """What a run has chosen, if that is one candidate; of the format that is asked for, whichever
    was chosen."""
    chosen = [each for each in run.chosen if each.candidate and format in (None, each.format)]
    chosen = chosen or [each for each in run.chosen if each.candidate]
    named = list(dict.fromkeys(each.candidate for each in chosen))
    if len(named) != 1:
        said = f"has chosen {' and '.join(map(str, named))}" if named else "has chosen nothing"
        mend = f"name a candidate, as {artifact}:baseline"
        raise InputError(said, where=artifact, mend=mend)
    if format is not None:
        held = [each for each in run.artifacts if each.candidate == named[0]]
        return _of_format(held, artifact, format)
    return run.artifact(str(named[0]), chosen[0].format or "onnx")
