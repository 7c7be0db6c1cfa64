"""Preprocessing inside the artifact, and `lepton-compress predict`, through the command line."""

from __future__ import annotations

import json
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lepton_compress.errors import EXIT_GATE, EXIT_OK, EXIT_USER
from tests.bench import GRAPH, Bench, Done, copy_of, refused

RAW = """

def pictures():
    \"\"\"The same as unsigned bytes, as a camera gives them.\"\"\"
    made = {}
    for name, (images, labels) in load().items():
        raw = np.clip(np.round(images * 32 + 128), 0, 255).astype(np.uint8)
        made[name] = (raw.transpose(0, 2, 3, 1), labels)
    return made
"""
AROUND: dict[str, Any] = {
    "data": {"python": {"function": "data.py:pictures"}},
    "preprocess": [{"image": {"scale": 1 / 32, "mean": [4.0]}}],
    "postprocess": [{"classes": {"labels": ["ant", "bee", "cat", "dog"]}}],
}


@pytest.fixture(scope="module")
def ran(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Done]:
    """A run on raw pictures. Look, do not touch."""
    bench = copy_of(furnished, tmp_path_factory.mktemp("raw") / "bench")
    (bench.folder / "data.py").write_text((bench.folder / "data.py").read_text() + RAW)
    robust = {"corruptions": ["gaussian_noise"], "severities": [3]}
    recipe = bench.recipe(GRAPH, "raw", **AROUND, robustness=robust)
    return bench, bench.lepton("run", recipe)


@pytest.fixture(scope="module")
def raw(ran: tuple[Bench, Done]) -> Bench:
    bench, done = ran
    assert done.code == EXIT_OK, done
    held: dict[str, Any] = {}
    exec((bench.folder / "data.py").read_text(), held)
    images, labels = held["pictures"]()["evaluation"]
    for name in ("ant", "bee", "cat", "dog"):
        row = int(
            np.flatnonzero(labels == AROUND["postprocess"][0]["classes"]["labels"].index(name))[0]
        )
        Image.fromarray(images[row, :, :, 0]).save(bench.folder / f"{name}.png")
    np.save(bench.folder / "all.npy", images)
    np.save(bench.folder / "labels.npy", labels)
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(bench.folder / "colour.png")
    (bench.folder / "broken.png").write_bytes(b"no picture")
    np.save(bench.folder / "narrow.npy", np.zeros((2, 5, 6, 1), np.uint8))
    with zipfile.ZipFile(bench.folder / "other.npz", "w") as file:
        file.writestr("image", "no array")
    return bench


class TestRun:
    def test_every_artifact_takes_raw_samples_and_gives_probabilities(self, raw: Bench) -> None:
        for each in raw.result()["artifacts"]:
            assert each["inputs"][0]["dtype"] == "uint8"
            assert each["inputs"][0]["shape"] == ["batch", 6, 6, 1]

    def test_what_stands_before_is_compared_with_the_original(self, raw: Bench) -> None:
        found = raw.result()["parities"]
        assert {"preprocessing", "graph"} <= {each["against"] for each in found}
        assert all(each["value"] <= each["limit"] for each in found)

    def test_the_evaluation_is_of_what_runs_on_the_device(self, raw: Bench) -> None:
        labels = np.load(raw.folder / "labels.npy")
        done = raw.lepton("predict", "runs/tiny:int8", "all.npy", "--top", "1", "--json")
        told = json.loads(done.out)["answers"]
        right = [each["guesses"][0]["index"] for each in told] == labels
        scores = {each["candidate"]: each["value"] for each in raw.result()["scores"]}
        assert right.mean() == pytest.approx(scores["int8"])
        assert scores["int8"] > 0.8

    def test_raw_samples_are_corrupted_too(self, raw: Bench) -> None:
        found = next(e for e in raw.result()["behaviours"] if e["candidate"] == "int8")
        assert found["corrupted"][0]["corruption"] == "gaussian_noise"

    def test_the_preprocessing_stays_out_of_integers(self, raw: Bench) -> None:
        model = onnx.load(raw.folder / "runs/tiny/artifacts/int8.onnx")
        first = [node for node in model.graph.node if "/preprocess/" in node.name]
        assert {node.op_type for node in first} == {"Transpose", "Cast", "Reshape", "Mul", "Add"}

    def test_explaining_and_measuring_again_take_the_same_samples(self, raw: Bench) -> None:
        done = raw.lepton("explain", "runs/tiny:int8", "--json")
        assert done.code == EXIT_OK, done
        assert not any("other data" in note for note in json.loads(done.out)["account"]["notes"])
        (raw.folder / "budget.yaml").write_text("drop: 10 %\n")
        done = raw.lepton("gate", "runs/tiny", "--budget", "budget.yaml", "--measure")
        assert done.code == EXIT_OK, done

    def test_a_fault_in_the_nodes_is_never_chosen(self, raw: Bench, tmp_path: Path) -> None:
        (raw.folder / "runs").mkdir(exist_ok=True)
        bench = copy_of(raw.folder, tmp_path / "bench")
        plugins = tmp_path / "site"
        (plugins / "acme-0.dist-info").mkdir(parents=True)
        (plugins / "acme-0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: acme\nVersion: 0\n"
        )
        (plugins / "acme-0.dist-info" / "entry_points.txt").write_text(
            "[lepton_compress.plugins]\npreprocessing.skewed = skewed:skewed\n"
        )
        (plugins / "skewed.py").write_text(SKEWED)
        around = AROUND | {"preprocess": [{"skewed": {"scale": 1 / 32, "mean": [4.0]}}]}
        recipe = bench.recipe(GRAPH, "skewed", **around, name="skewed")
        done = bench.lepton("run", recipe, path=(plugins,))
        assert done.code == EXIT_GATE, done
        assert all(each["candidate"] is None for each in bench.result("runs/skewed")["chosen"])


SKEWED = """
import dataclasses

from lepton_compress import plugin
from lepton_compress.preprocess.image import Image, image


@plugin("preprocessing", "skewed", Image)
def skewed(params, raw, folder):
    \"\"\"Its nodes compute something else than its original.\"\"\"
    sound = image(params, raw, folder)
    other = image(params.model_copy(update={"mean": [3.9]}), raw, folder)
    return dataclasses.replace(sound, build=other.build)
"""


class TestPictures:
    def test_a_label_and_a_probability_for_people(self, raw: Bench) -> None:
        done = raw.lepton("predict", "runs/tiny", "bee.png", "dog.png", "--top", "2")
        assert done.code == EXIT_OK, done
        lines = done.out.splitlines()
        assert lines[0] == "bee.png"
        assert lines[1].split()[0] == "bee"
        assert lines[1].split()[1].endswith("%")
        assert lines[4].split()[0] == "dog"
        assert "ms a sample on 1 thread" in lines[-1]

    def test_a_file_needs_nothing_beside_it(self, raw: Bench, tmp_path: Path) -> None:
        alone = tmp_path / "shipped.onnx"
        alone.write_bytes((raw.folder / "runs/tiny/artifacts/int8.onnx").read_bytes())
        done = raw.lepton("predict", alone, "cat.png", "--json")
        assert json.loads(done.out)["answers"][0]["guesses"][0]["label"] == "cat"

    def test_converting_is_asked_for_and_told(self, raw: Bench) -> None:
        done = raw.lepton("predict", "runs/tiny", "colour.png", "--convert")
        assert done.code == EXIT_OK, done
        assert "converted from RGB to L" in done.out
        assert "resized from 9 by 7" in done.out

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["runs/tiny", "colour.png"], "has the mode RGB.*--convert"),
            (["runs/tiny", "broken.png"], "broken.png: is no picture"),
            (["runs/tiny", "absent.png"], "absent.png: no such file"),
            (["runs/tiny", "labels.npy"], "labels.npy: image is int64"),
            (
                ["runs/tiny", "narrow.npy"],
                r"narrow.npy: image is uint8\[2, 5, 6, 1\]; the",
            ),
            (["runs/tiny", "other.npz"], "other.npz: no arrays .it holds other files"),
            (["runs/tiny:int9", "bee.png"], "did you mean 'int8'"),
            (["absent.onnx", "bee.png"], "absent.onnx: no such file"),
            (["bee.png", "bee.png"], r"bee.png: is no artifact .\.onnx, \.tflite, \.pte."),
            (["model.onnx", "bee.png"], "does not say how its input image"),
            (["runs/tiny", "bee.png", "--stream"], "is no sound"),
            (["runs/tiny", "bee.png", "--hop", "1 s"], "--hop goes with --stream"),
        ],
    )
    def test_bad_input(self, raw: Bench, given: list[str], said: str) -> None:
        refused(raw.lepton("predict", *given), (said,))

    def test_more_threads_than_any_machine_starts_are_refused(self, raw: Bench) -> None:
        done = raw.lepton("predict", "runs/tiny", "bee.png", "--threads", "100000")
        assert done.code == EXIT_USER, done
        assert "less than or equal to 1024" in done.err

    def test_a_model_of_another_maker_answers_to_arrays(self, raw: Bench) -> None:
        np.savez(raw.folder / "one.npz", image=np.zeros((1, 1, 6, 6), np.float32))
        done = raw.lepton("predict", "model.onnx", "one.npz")
        assert done.code == EXIT_OK, done
        assert "scores: " in done.out


def recorded(path: Path, samples: np.ndarray, rate: int = 8000, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2" if width == 2 else "u1").tobytes())
    return path


@pytest.fixture(scope="module")
def ear(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """An artifact that tells loud windows of 100 ms from quiet ones."""
    folder = tmp_path_factory.mktemp("ear")
    nodes = [
        helper.make_node("Cast", ["sound"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["wide", "full"], ["unit"]),
        helper.make_node("Abs", ["unit"], ["size"]),
        helper.make_node("ReduceMax", ["size", "axes"], ["loud"], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "ear",
        [helper.make_tensor_value_info("sound", TensorProto.INT16, ["batch", 800])],
        [helper.make_tensor_value_info("loud", TensorProto.FLOAT, ["batch", 1])],
        [
            numpy_helper.from_array(np.array(32768, np.float32), "full"),
            numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    about = {
        "version": 1,
        "inputs": {"sound": {"kind": "audio", "rate": 8000, "samples": 800}},
        "outputs": {"loud": {"kind": "classes", "labels": ["quiet", "loud"], "threshold": None}},
    }
    model.metadata_props.add(key="lepton_compress", value=json.dumps(about))
    onnx.save(model, folder / "ear.onnx")
    quiet, loud = np.full(800, 10), np.full(800, 30000)
    recorded(folder / "loud.wav", loud)
    recorded(folder / "mixed.wav", np.concatenate([quiet, loud, quiet]))
    recorded(folder / "short.wav", loud[:100])
    recorded(folder / "fast.wav", loud, rate=16000)
    recorded(folder / "narrow.wav", np.full(800, 250), width=1)
    recorded(folder / "empty.wav", loud[:0])
    (folder / "text.wav").write_text("no sound")
    return Bench(folder)


class TestSound:
    def test_a_recording(self, ear: Bench) -> None:
        done = ear.lepton("predict", "ear.onnx", "loud.wav", "short.wav", "--json")
        told = json.loads(done.out)["answers"]
        assert [each["guesses"][0]["label"] for each in told] == ["loud", "loud"]

    def test_windows_of_a_stream_and_the_real_time_factor(self, ear: Bench) -> None:
        done = ear.lepton("predict", "ear.onnx", "mixed.wav", "--stream", "--hop", "100 ms")
        assert done.code == EXIT_OK, done
        words = [line.split()[4] for line in done.out.splitlines()[:3]]
        assert words == ["quiet", "loud", "quiet"]
        assert "real-time factor 0.0" in done.out

    def test_the_end_of_a_stream_is_heard_too(self, ear: Bench) -> None:
        quiet, loud = np.full(1000, 10), np.full(300, 30000)
        recorded(ear.folder / "late.wav", np.concatenate([quiet, loud]))
        done = ear.lepton(
            "predict", "ear.onnx", "late.wav", "--stream", "--hop", "100 ms", "--json"
        )
        told = json.loads(done.out)
        assert [e["answer"]["guesses"][0]["label"] for e in told["heard"]] == ["quiet", "loud"]
        assert told["seconds"] == pytest.approx(1300 / 8000)

    def test_a_pipe_is_heard_as_its_recording(self, ear: Bench) -> None:
        import subprocess
        import sys

        raw = np.concatenate([np.full(800, 10), np.full(800, 30000)]).astype("<i2").tobytes()
        command = [sys.executable, "-m", "lepton_compress.cli", "predict", "ear.onnx", "-"]
        done = subprocess.run(
            [*command, "--stream", "--hop", "100 ms", "--top", "2", "--json"],
            input=raw,
            cwd=ear.folder,
            capture_output=True,
            check=True,
        )
        told = json.loads(done.stdout)
        assert [e["answer"]["guesses"][0]["label"] for e in told["heard"]] == ["quiet", "loud"]
        assert {e["answer"]["given"] for e in told["heard"]} == {"standard input"}
        assert {len(e["answer"]["guesses"]) for e in told["heard"]} == {2}
        assert told["seconds"] == pytest.approx(0.2)
        assert told["factor"] == pytest.approx(told["busy"] / 0.2)

    def test_other_recordings_are_converted_if_asked(self, ear: Bench) -> None:
        for name in ("fast.wav", "narrow.wav"):
            done = ear.lepton("predict", "ear.onnx", name, "--convert", "--json")
            assert done.code == EXIT_OK, done
            (answer,) = json.loads(done.out)["answers"]
            assert answer["guesses"][0]["label"] == "loud"
            assert answer["notes"]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["fast.wav"], "is of 16000 Hz; the artifact takes 8000 Hz.*--convert"),
            (["narrow.wav"], "8 bits.*--convert"),
            (["text.wav"], "not a WAV file"),
            (["empty.wav"], "is silent"),
            (["empty.wav", "--stream"], "holds no sound"),
            (["mixed.wav", "--stream", "--hop", "2 s"], "does not fit windows"),
            (["mixed.wav", "--stream", "--hop", "soon"], "is no time"),
            (["mixed.wav", "loud.wav", "--stream"], "takes one stream"),
        ],
    )
    def test_bad_input(self, ear: Bench, given: list[str], said: str) -> None:
        refused(ear.lepton("predict", "ear.onnx", *given), (said,))

    @pytest.mark.parametrize(
        ("value", "said"), [("{", "manual is damaged"), ('{"version": 2}', "of version 2")]
    )
    def test_a_manual_that_cannot_be_read(
        self, ear: Bench, tmp_path: Path, value: str, said: str
    ) -> None:
        model = onnx.load(ear.folder / "ear.onnx")
        model.metadata_props[0].value = value
        onnx.save(model, tmp_path / "odd.onnx")
        refused(ear.lepton("predict", tmp_path / "odd.onnx", "loud.wav"), (said,))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A run on texts, whose model counts good words against bad ones."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    folder = tmp_path_factory.mktemp("reader")
    words = ["[PAD]", "[UNK]", "good", "fine", "bad", "dull", "film", "plot"]
    tokenizer = Tokenizer(WordLevel({word: each for each, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    (folder / "tokens").mkdir()
    tokenizer.save(str(folder / "tokens" / "words.json"))
    draw = np.random.default_rng(0)
    for name, own in (("praise", words[2:4]), ("blame", words[4:6])):
        lines = {" ".join(draw.choice([*own, "film", "plot"], 6)) + f" {own[0]}" for _ in range(60)}
        (folder / f"{name}.txt").write_text("\n".join(sorted(lines)))
    table = np.zeros((len(words), 2), np.float32)
    table[2:4, 1] = table[4:6, 0] = 1
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["found"]),
            helper.make_node("ReduceSum", ["found", "axes"], ["scores"], keepdims=0),
        ],
        "reader",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axes")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "reader.onnx")
    bench = Bench(folder)
    recipe = bench.recipe(
        GRAPH,
        model={"onnx": "reader.onnx"},
        data={"text": {"classes": {"blame": "blame.txt", "praise": "praise.txt"}, "bytes": 80}},
        preprocess=[{"text": {"tokenizer": "tokens/words.json", "length": 8}}],
        postprocess=[{"classes": {"labels": ["blame", "praise"]}}],
        variants=None,
    )
    done = bench.lepton("run", recipe)
    assert done.code == EXIT_OK, done
    return bench


class TestText:
    def test_the_tokenizer_travels_with_the_artifact(self, reader: Bench) -> None:
        (artifact,) = reader.result()["artifacts"]
        assert [Path(each).name for each in artifact["beside"]] == ["words.json"]
        assert artifact["inputs"][0]["dtype"] == "int64"

    def test_a_sentence(self, reader: Bench) -> None:
        done = reader.lepton("predict", "runs/tiny", "a good film", "dull plot", "--json")
        assert done.code == EXIT_OK, done
        told = json.loads(done.out)["answers"]
        assert [each["guesses"][0]["label"] for each in told] == ["praise", "blame"]
        assert "unknown" in told[0]["notes"][0]  # the word `a`
        assert told[1]["notes"] == []

    @pytest.mark.parametrize(
        ("given", "said"),
        [("", "the text is empty"), ("Gödel Escher", "holds only unknown tokens")],
    )
    def test_bad_input(self, reader: Bench, given: str, said: str) -> None:
        refused(reader.lepton("predict", "runs/tiny", given), (said,))

    def test_an_artifact_without_its_tokenizer(self, reader: Bench, tmp_path: Path) -> None:
        alone = tmp_path / "alone.onnx"
        alone.write_bytes((reader.folder / "runs/tiny/artifacts/baseline/model.onnx").read_bytes())
        refused(reader.lepton("predict", alone, "a good film"), ("words.json.*is missing",))
