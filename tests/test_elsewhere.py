"""On a target with another runtime an artifact must answer as it did where it was evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compress import elsewhere, registry
from lepton_compress.artifacts import Artifact, Profile, Split
from lepton_compress.errors import MissingExtraError
from lepton_compress.recipe import from_target
from lepton_compress.registry import Plugin
from lepton_compress.report.silent import Silent
from tests.bench import splits
from tests.contract.needed import graph, parameters

OPENVINO = "openvino-cpu"


class Noting(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def check(runtime: str, monkeypatch: pytest.MonkeyPatch, folder: Path, spoil: Any) -> Any:
    """The profile that comes out, and the notes; `spoil` changes what the runtime gives."""
    file: Path = registry.get("exporter", "onnx").call(
        graph(), parameters("exporter", "onnx"), folder
    )
    real, get = registry.get("runtime", "onnxruntime-cpu"), registry.get
    inputs = real.function(file, 1).inputs

    class Spoilt:
        def __init__(self, runner: Any) -> None:
            self.runner, self.inputs, self.outputs = runner, runner.inputs, runner.outputs

        def run(self, feeds: Any) -> list[Any]:
            return [spoil(each) for each in self.runner.run(feeds)]

    def load(path: Path, threads: int) -> Spoilt:
        return Spoilt(real.function(path, threads))

    plugin = Plugin(**{**vars(real), "name": OPENVINO, "function": load})
    monkeypatch.setattr(
        registry, "get", lambda *asked: plugin if asked == ("runtime", OPENVINO) else get(*asked)
    )
    artifact = Artifact("int8", "onnx", "int8.onnx", "", 0, inputs, (), {})
    profile = Profile(
        "int8",
        "onnx",
        "cpu",
        runtime,
        "measured",
        "measured",
        1,
        1,
        latency={"p50": 1.0},
        ratio=0.5,
    )
    told = Noting()
    target = from_target({"runtime": runtime, "name": "cpu"})
    samples = Split({"image": splits()["evaluation"][0]})
    return elsewhere.checked(profile, artifact, file, target, samples, told), profile, told.notes


def turned(count: int) -> Any:
    """Answers of which so many, of each batch, are of another class."""

    def spoil(array: Any) -> Any:
        made = array.copy()
        made[:count] = np.roll(made[:count], 1, axis=1)
        return made

    return spoil


def test_what_answers_alike_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, before, notes = check(OPENVINO, monkeypatch, tmp_path, lambda array: array)
    assert made is before
    assert notes == []


def test_what_answers_otherwise_fails_with_the_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, _, _ = check(OPENVINO, monkeypatch, tmp_path, turned(10))
    assert (made.status, made.latency, made.ratio) == ("failed", {}, None)
    assert made.reason.startswith("answers otherwise than in onnxruntime-cpu, where it was eval")
    assert "classified otherwise" in made.reason


def test_where_it_was_evaluated_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, before, _ = check("onnxruntime-cpu", monkeypatch, tmp_path, turned(10))
    assert made is before


def test_a_runtime_that_is_not_here_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lacking(array: Any) -> Any:
        raise MissingExtraError("needs OpenVINO")

    made, before, notes = check(OPENVINO, monkeypatch, tmp_path, lacking)
    assert made is before
    assert notes == [
        "cpu: evaluated in onnxruntime-cpu alone, as openvino-cpu is not installed here"
    ]
