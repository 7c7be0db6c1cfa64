"""Recordings and sentences, from the loader to the answer, through the command line."""

from __future__ import annotations

import json
import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.errors import EXIT_OK
from tests.bench import Bench, refused
from tests.preprocess.tokenizers import write_tokenizer

RATE = 8000
BASE: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "model": {"onnx": "model.onnx"},
    "metrics": ["accuracy"],
    "gates": {"score": "99 %"},
    "measure": {"rounds": 5, "cap": "1 s"},
}


def write_model(path: Path, given: Any, nodes: list[Any], constants: dict[str, Any]) -> None:
    """A graph that gives `scores` of two classes."""
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])
    held = [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()]
    graph = helper.make_graph(nodes, "net", [given], [scores], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Low and high tones, and a network that tells their mel bands apart; it was run."""
    folder = tmp_path_factory.mktemp("sound")
    draw = np.random.default_rng(0)
    for index in range(40):
        hertz = draw.uniform(200, 700) if index % 2 else draw.uniform(2000, 3500)
        tone = 9000 * np.sin(2 * np.pi * hertz / RATE * np.arange(1600) + draw.uniform(0, 6))
        record(folder / "tones" / ("high", "low")[index % 2] / f"{index}.wav", tone)
    bands = np.repeat(np.array([[-1, 1], [1, -1]], np.float32), 10, axis=0)
    nodes = [
        helper.make_node("ReduceMean", ["features", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "bands"], ["scores"]),
    ]
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 11, 20])
    write_model(folder / "model.onnx", given, nodes, {"bands": bands, "axes": np.array([1])})
    bench = Bench(folder)
    recipe = bench.recipe(
        BASE,
        data={"wav": {"path": "tones", "rate": RATE, "samples": 1600}},
        preprocess=[{"audio": {"rate": RATE, "mels": 20, "mean": -5, "std": 3}}],
        postprocess=[{"classes": {"labels": ["high", "low"]}}],
    )
    done = bench.lepton("run", recipe)
    assert done.code == EXIT_OK, done
    return bench


def record(path: Path, tone: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(tone.astype("<i2").tobytes())
    return path


def test_the_artifact_takes_pcm_and_equals_the_original(sound: Bench) -> None:
    (artifact,) = sound.result()["artifacts"]
    assert artifact["inputs"][0]["dtype"] == "int16"
    assert artifact["inputs"][0]["shape"] == ["batch", 1600]
    found = [each for each in sound.result()["parities"] if each["against"] == "preprocessing"]
    assert found
    assert all(each["value"] <= each["limit"] for each in found)
    assert sound.result()["scores"][0]["value"] == 1


def test_a_recording_is_answered(sound: Bench) -> None:
    tone = 9000 * np.sin(2 * np.pi * 450 / RATE * np.arange(1600))
    record(sound.folder / "heard.wav", tone)
    done = sound.lepton("predict", "runs/tiny", "heard.wav", "--json")
    assert done.code == EXIT_OK, done
    assert json.loads(done.out)["answers"][0]["guesses"][0]["label"] == "low"


def test_a_recording_of_another_rate_is_refused(sound: Bench) -> None:
    record(sound.folder / "fast.wav", np.full(1600, 900), rate=16000)
    refused(sound.lepton("predict", "runs/tiny", "fast.wav"), ("fast.wav.*16000",))


def test_missing_recordings_are_named_with_where_to_put_them(sound: Bench) -> None:
    wav = {"path": "elsewhere.zip", "rate": RATE, "samples": 1600}
    recipe = sound.recipe(BASE, "missing", data={"wav": wav})
    says = r"elsewhere.zip: no such file or folder: .*LEPTON_DATA"
    refused(sound.lepton("run", recipe, "--out", "runs/missing"), (says,))
    assert not (sound.folder / "runs" / "missing").exists()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Sentences of good and bad films, and a network that counts the words; it was run."""
    folder = tmp_path_factory.mktemp("text")
    write_tokenizer(folder / "tokenizer.json")
    rows = [
        f"{'a ' * (each // 2)}{('bad', 'good')[each % 2]} movie,{each % 2}" for each in range(40)
    ]
    (folder / "films.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    table = np.array([[0, 0], [0, 0], [0, 0], [0, 1], [1, 0], [0, 0]], np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("ReduceSum", ["words", "axes"], ["scores"], keepdims=0),
    ]
    given = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 24])
    write_model(folder / "model.onnx", given, nodes, {"table": table, "axes": np.array([1])})
    bench = Bench(folder)
    recipe = bench.recipe(
        BASE,
        data={
            "text": {"path": "films.csv", "bytes": 60, "evaluation": "90 %", "calibration": "5 %"}
        },
        preprocess=[{"text": {"tokenizer": "tokenizer.json", "length": 24}}],
        postprocess=[{"classes": {"labels": ["bad", "good"]}}],
    )
    done = bench.lepton("run", recipe)
    assert done.code == EXIT_OK, done
    return bench


def test_sentences_are_answered_by_the_tokenizer_that_travels(text: Bench) -> None:
    assert any("unknown to the tokenizer" in note for note in text.result()["notes"])
    (text.folder / "tokenizer.json").rename(text.folder / "away.json")
    done = text.lepton("predict", "runs/tiny", "a bad film", "good", "--json")
    (text.folder / "away.json").rename(text.folder / "tokenizer.json")
    assert done.code == EXIT_OK, done
    told = json.loads(done.out)["answers"]
    assert [each["guesses"][0]["label"] for each in told] == ["bad", "good"]


def test_a_sentence_of_unknown_characters_is_refused(text: Bench) -> None:
    says = "holds only unknown tokens: '\u4e0d\u597d'"
    refused(text.lepton("predict", "runs/tiny", "\u4e0d\u597d"), (says,))


def test_a_text_of_other_bytes_than_utf_8_is_refused(text: Bench) -> None:
    says = "predict: the text is not UTF-8 at character 6"
    refused(text.lepton("predict", "runs/tiny", os.fsdecode(b"good \xe9")), (says,))


def test_a_text_may_end_like_the_name_of_an_array(text: Bench) -> None:
    done = text.lepton("predict", "runs/tiny", "a good .npz", "--json")
    assert done.code == EXIT_OK, done
    assert json.loads(done.out)["answers"][0]["guesses"][0]["label"] == "good"


def test_what_travels_with_an_artifact_is_part_of_what_is_measured_again(text: Bench) -> None:
    (text.folder / "budget.yaml").write_text("latency: 1 s\n")
    again = ("gate", "runs/tiny", "--budget", "budget.yaml", "--measure")
    done = text.lepton(*again)
    assert done.code == EXIT_OK, done
    (tokenizer,) = (text.folder / "runs/tiny/artifacts").rglob("tokenizer.json")
    held = tokenizer.read_bytes()
    tokenizer.write_bytes(held + b"\n")
    refused(text.lepton(*again), ("is another file than the run measured",))
    tokenizer.unlink()
    refused(text.lepton(*again), ("tokenizer.json: no such file; give the whole run folder",))
    tokenizer.write_bytes(held)
