"""What the exporter `litert` keeps to, whatever is in a file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

from ai_edge_litert import schema_py_generated as schema

from lepton_compress.artifacts import Model, Split
from lepton_compress.errors import InputError, MissingExtraError
from lepton_compress.load.forms import call
from tests.compress.nets import apply
from tests.export.litert import Feeds, error, graph_of, loaded, metadata, operators, run, written


def network(seed: int = 0) -> tuple[Model, Feeds]:
    """A convolution, a depthwise one, a dense layer; large enough to be worth quantising."""
    draw = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        made: np.ndarray = draw.normal(size=shape) / np.prod(shape[1:]) ** 0.5
        return made.astype(np.float32)

    held = {
        "w": weights(128, 3, 3, 3),
        "b": weights(128),
        "d": weights(128, 1, 3, 3),
        "o": weights(10, 128 * 16),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "d"], ["e"], "deep", group=128, strides=[2, 2]),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "o"], ["scores"], "dense", transB=1),
    ]
    feeds = {"image": draw.normal(size=(4, 3, 10, 10)).astype(np.float32)}
    return graph_of(nodes, feeds, held, ("scores",)), feeds


def test_constants_lie_where_processors_can_read_them(tmp_path: Path) -> None:
    data = written(network()[0], tmp_path).read_bytes()
    assert data[4:8] == b"TFL3"
    model = schema.Model.GetRootAs(data, 0)
    places = []
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        if not buffer.DataIsNone():
            field = buffer._tab.Offset(4)
            places.append(buffer._tab.Vector(field))
    assert len(places) > 5
    assert all(place % 16 == 0 for place in places)


def test_equal_constants_are_held_once(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "one"], ["a"]),
        helper.make_node("Gemm", ["a", "two"], ["y"]),
    ]
    feeds = {"x": np.zeros((1, 64), np.float32)}
    path = written(graph_of(nodes, feeds, {"one": weight, "two": weight.copy()}), tmp_path)
    assert path.stat().st_size < 1.3 * weight.nbytes


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    paths = [written(network()[0], tmp_path / name) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert written(network(1)[0], tmp_path / "c").read_bytes() != paths[0].read_bytes()


def test_every_tensor_and_buffer_is_used(tmp_path: Path) -> None:
    model = loaded(written(network()[0], tmp_path))
    (graph,) = model.subgraphs
    used = {place for each in graph.operators for place in (*each.inputs, *each.outputs)}
    assert used - {-1} == set(range(len(graph.tensors)))
    buffers = {tensor.buffer for tensor in graph.tensors} | {model.metadata[0].buffer, 0}
    assert buffers == set(range(len(model.buffers)))


def test_only_inputs_and_outputs_have_long_names(tmp_path: Path) -> None:
    (graph,) = loaded(written(network()[0], tmp_path)).subgraphs
    names = sorted((tensor.name.decode() for tensor in graph.tensors), key=len)
    assert names[-2:] == ["image", "scores"]
    assert len(names[-3]) <= 2


def test_the_signature_has_the_names_of_the_graph(tmp_path: Path) -> None:
    (signature,) = loaded(written(network()[0], tmp_path)).signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [each.name for each in signature.inputs] == [b"image"]
    assert [each.name for each in signature.outputs] == [b"scores"]


def test_metadata_travels_along(tmp_path: Path) -> None:
    model, _ = network()
    model.value.metadata_props.add(key="lepton_compress", value='{"version": 1}')
    model.value.metadata_props.add(key="author", value="somebody")
    path = written(model, tmp_path)
    assert metadata(path) == {
        "lepton_compress": {"version": 1},
        "metadata": {"author": "somebody"},
        "inputs": {
            "image": {"shape": [1, 3, 10, 10], "dtype": "float32", "permutation": [0, 2, 3, 1]}
        },
        "outputs": {"scores": {"shape": [1, 10], "dtype": "float32"}},
    }
    # Readers without a schema look for how it begins.
    assert path.read_bytes().count(b'{"lepton_compress":') == 1


def test_channels_first_if_asked_for(tmp_path: Path) -> None:
    model, feeds = network()
    path = written(model, tmp_path, layout="nchw")
    assert "permutation" not in metadata(path)["inputs"]["image"]
    assert operators(path)["TRANSPOSE"] == 1
    assert error(call(model, feeds)["scores"], run(path, feeds)["scores"]) < 1e-5


def test_an_image_that_comes_out_has_its_channels_last(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    model = graph_of([helper.make_node("Conv", ["x", "w"], ["y"])], feeds, {"w": weight})
    path = written(model, tmp_path)
    assert metadata(path)["outputs"]["y"]["permutation"] == [0, 2, 3, 1]
    assert operators(path) == {"CONV_2D": 1}
    assert error(call(model, feeds)["y"], run(path, feeds)["y"]) < 1e-5


def test_whole_numbers_are_narrowed_and_said_to_be(tmp_path: Path) -> None:
    feeds = {"ids": np.array([[3, 1], [0, 2]])}
    table = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    model = graph_of([helper.make_node("Gather", ["t", "ids"], ["y"])], feeds, {"t": table})
    path = written(model, tmp_path)
    assert metadata(path)["inputs"]["ids"] == {
        "shape": [1, 2],
        "dtype": "int64",
        "held_as": "int32",
    }
    assert (run(path, feeds)["y"] == table[feeds["ids"]]).all()


def test_a_constant_too_large_for_it_is_refused(tmp_path: Path) -> None:
    feeds = {"ids": np.array([[3, 1]])}
    node = helper.make_node("Add", ["ids", "large"], ["y"])
    with pytest.raises(InputError, match="more than 32 bits"):
        written(graph_of([node], feeds, {"large": np.array(2**40)}), tmp_path)


def test_outputs_that_are_inputs_or_each_other(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Identity", ["y"], ["again"]),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)}
    model = graph_of(nodes, feeds, outputs=("y", "again", "same"))
    made = run(written(model, tmp_path), feeds)
    for name, array in call(model, feeds).items():
        assert (made[name] == array).all()


def test_several_samples_a_call(tmp_path: Path) -> None:
    model, feeds = network()
    path = written(model, tmp_path, batch=4)
    assert metadata(path)["inputs"]["image"]["shape"][0] == 4
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    made = runner(image=feeds["image"].transpose(0, 2, 3, 1))["scores"]
    assert error(call(model, feeds)["scores"], made) < 1e-5


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def missing(name: str, *given: Any) -> Any:
        return None if name == "ai_edge_litert" else find(name, *given)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with pytest.raises(MissingExtraError, match=r"lepton-compress\[litert\]"):
        written(network()[0], tmp_path)


class TestWeights:
    @pytest.mark.parametrize(
        ("weights", "size", "limit"),
        [("float16", 0.55, 2e-3), ("dynamic", 0.35, 0.03), ("int8", 0.35, 0.02)],
    )
    def test_of_float_layers(self, weights: str, size: float, limit: float, tmp_path: Path) -> None:
        model, feeds = network()
        wide = written(model, tmp_path / "wide")
        narrow = written(model, tmp_path / weights, weights=weights)
        assert narrow.stat().st_size < size * wide.stat().st_size
        assert bool(operators(narrow)["DEQUANTIZE"]) == (weights != "dynamic")
        for delegates in (True, False):
            made = run(narrow, feeds, delegates=delegates)["scores"]
            assert 0 < error(call(model, feeds)["scores"], made) < limit

    def test_of_the_dynamic_step_are_the_very_integers(self, tmp_path: Path) -> None:
        model, feeds = network()
        quantized = apply("quantize_dynamic", model, Split(feeds), weight_bits=8).model
        path = written(quantized, tmp_path)
        assert operators(path)["FULLY_CONNECTED"] == 1
        assert not operators(path)["DEQUANTIZE"]
        held = {each.name: each for each in quantized.value.graph.initializer}
        integers = held["o_turned_int8"].raw_data
        assert len(integers) == 10 * 128 * 16
        stored = [bytes(each.data) for each in loaded(path).buffers if each.data is not None]
        # (outputs, inputs), and inputs in the order in which channels last lie.
        wanted = np.frombuffer(integers, np.int8).reshape(128, 4, 4, 10).transpose(3, 1, 2, 0)
        assert wanted.tobytes() in stored
        assert error(call(quantized, feeds)["scores"], run(path, feeds)["scores"]) < 0.02

    def test_of_16_bits_stay_16_bits(self, tmp_path: Path) -> None:
        model, feeds = network()
        half = apply("float16", model, Split(feeds)).model
        path = written(half, tmp_path / "half")
        wide = written(model, tmp_path / "wide")
        assert path.stat().st_size < 0.55 * wide.stat().st_size
        assert error(call(half, feeds)["scores"], run(path, feeds)["scores"]) < 2e-3


def int8(tmp_path: Path) -> tuple[Path, Model, Feeds]:
    model, feeds = network()
    parameters = {"rounding": "nearest", "calibration": "minmax", "activations": "uint8"}
    quantized = apply("quantize", model, Split(feeds), weight_bits=8, **parameters).model
    return written(quantized, tmp_path, borders="int8"), quantized, feeds


def test_microcontrollers_compute_what_the_interpreter_computes(tmp_path: Path) -> None:
    runtime = pytest.importorskip(
        "tflite_micro.python.tflite_micro.runtime", reason="tflite-micro is not installed"
    )
    path, _, feeds = int8(tmp_path)
    wanted = run(path, feeds, delegates=False)["scores"]
    micro = runtime.Interpreter.from_file(str(path))
    held = metadata(path)["inputs"]["image"]
    for row, image in enumerate(feeds["image"].transpose(0, 2, 3, 1)):
        given = np.round(image / held["scale"]) + held["zero_point"]
        micro.set_input(np.clip(given, -128, 127).astype(np.int8)[None], 0)
        micro.invoke()
        assert np.abs(micro.get_output(0).astype(int) - wanted[row]).max() <= 1


def test_an_ethos_u_computes_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vela = pytest.importorskip("ethosu.vela.vela", reason="ethos-u-vela is not installed")
    path, _, _ = int8(tmp_path)
    vela.main([str(path), "--accelerator-config", "ethos-u55-128", "--output-dir", str(tmp_path)])
    told = capsys.readouterr().out
    assert "CPU operators = 0" in told
    (compiled,) = tmp_path.glob("*_vela.tflite")
    assert json.dumps("ethos-u")[1:-1].encode() in compiled.read_bytes()
