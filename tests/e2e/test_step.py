"""A recurrent network exported for one frame a call, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lepton_compress.errors import EXIT_OK
from tests.bench import Bench, Done, refused
from tests.e2e.test_sound_and_text import BASE, RATE, record, write_model

STEP: dict[str, Any] = {
    "exports": [{"onnx": {"recurrent": "step"}}],
    "data": {"wav": {"path": "tones", "rate": RATE, "samples": 1600}},
    "preprocess": [{"audio": {"rate": RATE, "mels": 20, "mean": -5, "std": 3}}],
    "postprocess": [{"classes": {"labels": ["high", "low"]}}],
}
HOP, FRAMES = 128, 11


def tone(hertz: float, samples: int = 1600) -> np.ndarray:
    made: np.ndarray = 9000 * np.sin(2 * np.pi * hertz / RATE * np.arange(samples))
    return made


def network(path: Path, direction: str = "forward") -> None:
    """A GRU whose two states follow the low and the high bands, and scores of the last ones."""
    ways = 2 if direction == "bidirectional" else 1
    bands = np.repeat(np.array([[-0.1, 0.1], [0.1, -0.1]]), 10, axis=1)
    weights = np.concatenate([np.zeros((4, 20)), bands])[None]
    nodes = [
        helper.make_node("Transpose", ["features"], ["turned"], "turn", perm=[1, 0, 2]),
        helper.make_node(
            "GRU", ["turned", "W", "R"], ["", "last"], "gru", hidden_size=2, direction=direction
        ),
        helper.make_node("Gather", ["last", "first"], ["state"], "pick", axis=0),
        helper.make_node("MatMul", ["state", "mix"], ["scores"], "mix"),
    ]
    constants = {
        "W": np.repeat(weights, ways, axis=0).astype(np.float32),
        "R": np.zeros((ways, 6, 2), np.float32),
        "first": np.array(0),
        "mix": 4 * np.eye(2, dtype=np.float32),
    }
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", FRAMES, 20])
    write_model(path, given, nodes, constants)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Done]:
    """Low and high tones, and a network that tells them apart frame by frame; it was run."""
    folder = tmp_path_factory.mktemp("step")
    draw = np.random.default_rng(0)
    for index in range(40):
        hertz = draw.uniform(200, 700) if index % 2 else draw.uniform(2000, 3500)
        record(folder / "tones" / ("high", "low")[index % 2] / f"{index}.wav", tone(hertz))
    network(folder / "model.onnx")
    bench = Bench(folder)
    recipe = bench.recipe(BASE, **STEP, variants={"int8": ["quantize_dynamic"]})
    return bench, bench.lepton("run", recipe)


@pytest.fixture(scope="module")
def sound(ran: tuple[Bench, Done]) -> Bench:
    bench, done = ran
    assert done.code == EXIT_OK, done
    record(bench.folder / "low.wav", tone(450))
    record(bench.folder / "both.wav", np.concatenate([tone(450, 2400), tone(2500, 2400)]))
    return bench


def test_the_result_shows_the_inputs_of_the_file(sound: Bench) -> None:
    for each in sound.result()["artifacts"]:
        shown = [(spec["name"], spec["dtype"], spec["shape"]) for spec in each["inputs"]]
        assert shown == [
            ("features", "int16", ["batch", HOP]),
            ("state_0", "int16", ["batch", 128]),
            ("state_1", "float32", [1, "batch", 2]),
        ]
        file = onnx.load(sound.folder / "runs/tiny" / each["path"])
        assert [value.name for value in file.graph.input] == [name for name, _, _ in shown]


def test_it_is_verified_and_evaluated_as_a_whole(sound: Bench) -> None:
    result = sound.result()
    found = {each["against"] for each in result["parities"]}
    assert {"preprocessing", "graph"} <= found
    assert all(each["value"] <= each["limit"] for each in result["parities"])
    assert {each["value"] for each in result["scores"]} == {1}
    assert {each["status"] for each in result["profiles"]} == {"measured"}
    assert not [note for note in result["notes"] if "not known" in note]


def test_a_recording_is_answered(sound: Bench) -> None:
    done = sound.lepton("predict", "runs/tiny:baseline", "low.wav", "--json")
    assert done.code == EXIT_OK, done
    assert json.loads(done.out)["answers"][0]["guesses"][0]["label"] == "low"


def test_a_stream_is_followed_frame_by_frame(sound: Bench) -> None:
    asked = ("predict", "runs/tiny:baseline", "both.wav", "--stream", "--hop", "64 ms", "--json")
    done = sound.lepton(*asked)
    assert done.code == EXIT_OK, done
    told = json.loads(done.out)
    words = [each["answer"]["guesses"][0]["label"] for each in told["heard"]]
    assert (words[0], words[-1]) == ("low", "high")
    assert sorted(words, reverse=True) == words  # it changes its mind once
    starts = [each["start"] for each in told["heard"]]
    assert np.diff(starts) == pytest.approx(4 * HOP / RATE)
    assert told["frame"] == HOP / RATE
    assert 0 < told["typical"] <= told["worst"]
    frames = round((told["heard"][-1]["end"] * RATE - 1600) / HOP) + FRAMES
    assert told["factor"] == pytest.approx(told["busy"] / (frames * HOP / RATE))
    shown = sound.lepton(*asked[:-1])
    assert "Each frame of 16 ms is computed once, in 0." in shown.out


def test_after_a_whole_window_a_stream_says_what_a_recording_does(sound: Bench) -> None:
    streamed = sound.lepton("predict", "runs/tiny:int8", "low.wav", "--stream", "--json")
    whole = sound.lepton("predict", "runs/tiny:int8", "low.wav", "--top", "1", "--json")
    (heard,) = json.loads(streamed.out)["heard"]
    (answer,) = json.loads(whole.out)["answers"]
    assert heard["answer"]["guesses"] == answer["guesses"]
    assert (heard["start"], heard["end"]) == (0, 0.2)


def test_a_pipe_is_heard_as_its_recording(sound: Bench) -> None:
    command = [sys.executable, "-m", "lepton_compress.cli", "predict", "runs/tiny:baseline", "-"]
    done = subprocess.run(
        [*command, "--stream", "--json"],
        input=np.concatenate([tone(450, 2400), tone(2500, 2400)]).astype("<i2").tobytes(),
        cwd=sound.folder,
        capture_output=True,
        check=True,
    )
    file = sound.lepton("predict", "runs/tiny:baseline", "both.wav", "--stream", "--json")
    both = [json.loads(each)["heard"] for each in (done.stdout, file.out)]
    labels = [[each["answer"]["guesses"] for each in heard] for heard in both]
    assert labels[0] == labels[1]


def test_a_short_stream_is_filled_up_with_silence(sound: Bench) -> None:
    record(sound.folder / "brief.wav", tone(450, 300))
    streamed = sound.lepton("predict", "runs/tiny:baseline", "brief.wav", "--stream", "--json")
    whole = sound.lepton("predict", "runs/tiny:baseline", "brief.wav", "--top", "1", "--json")
    (heard,) = json.loads(streamed.out)["heard"]
    assert heard["answer"]["guesses"] == json.loads(whole.out)["answers"][0]["guesses"]


def test_explaining_it_is_refused_with_the_mend(sound: Bench) -> None:
    done = sound.lepton("explain", "runs/tiny:int8")
    refused(done, ("is a step model, which is not explained.*recurrent: sequence",))


def test_a_recurrence_both_ways_is_refused(sound: Bench) -> None:
    network(sound.folder / "both.onnx", "bidirectional")
    recipe = sound.recipe(BASE, "both", **STEP, model={"onnx": "both.onnx"}, name="both")
    said = r"gru.*\(GRU\) runs both ways in time.*forward recurrence"
    refused(sound.lepton("run", recipe), (said,))
    assert not (sound.folder / "runs/both").exists()


def test_an_unknown_way_is_refused(sound: Bench) -> None:
    exports = [{"onnx": {"recurrent": "frame"}}]
    recipe = sound.recipe(BASE, "odd", **{**STEP, "exports": exports})
    refused(sound.lepton("validate", recipe), (r"exports.*recurrent.*'sequence' or 'step'",))
