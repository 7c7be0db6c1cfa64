"""LiteRT as a runtime: what the host sees of a file whose borders are laid out otherwise."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from lepton_compress import registry
from lepton_compress.artifacts import Model
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call
from tests.compress.nets import apply
from tests.compress.test_layout import data, net

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

from lepton_compress.targets import litert_session
from tests.export.litert import graph_of, written


def runner(path: Path, threads: int = 1, **changes: Any) -> Any:
    return registry.get("runtime", "litert-cpu").function(path, threads, changes or None)


def gru() -> Model:
    """A GRU over five steps."""
    draw = np.random.default_rng(1)
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["turned", "W", "R"], ["", "last"], "gru", hidden_size=4),
        helper.make_node("Squeeze", ["last", "first"], ["y"]),
    ]
    held = {"W": draw.normal(size=(1, 12, 3)), "R": draw.normal(size=(1, 12, 4))}
    held = {name: each.astype(np.float32) for name, each in held.items()}
    given = {"x": np.zeros((1, 5, 3), np.float32)}
    return graph_of(nodes, given, held | {"first": np.array([0])})


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(net(3), tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="module")
def quantized() -> Model:
    return apply("quantize", net(3), data(3)).model


class TestBorders:
    def test_the_host_keeps_its_channels_first(self, float_file: Path) -> None:
        made = runner(float_file)
        assert [(each.name, each.dtype, each.shape) for each in made.inputs] == [
            ("x", "float32", ("batch", 3, 6, 5))
        ]
        images = data(3).inputs["x"]
        (given,) = made.run({"x": images})
        np.testing.assert_allclose(given, call(net(3), {"x": images})["y"], atol=1e-5)

    @pytest.mark.parametrize("borders", ["float32", "int8"])
    def test_integers_at_the_border_are_the_runners_affair(
        self, quantized: Model, borders: str, tmp_path: Path
    ) -> None:
        made = runner(written(quantized, tmp_path, borders=borders))
        assert {each.dtype for each in (*made.inputs, *made.outputs)} == {"float32"}
        images = data(3).inputs["x"]
        wanted = call(quantized, {"x": images})["y"]
        (given,) = made.run({"x": images})
        step = np.abs(np.diff(np.unique(wanted))).min()
        assert np.abs(given - wanted).max() <= 1.01 * step

    def test_samples_go_one_after_the_other(self, float_file: Path) -> None:
        images = data(3).inputs["x"][:5]
        made = runner(float_file)
        alone = [made.run({"x": images[[row]]})[0] for row in range(5)]
        np.testing.assert_array_equal(np.concatenate(alone), made.run({"x": images})[0])

    def test_a_file_for_more_samples_takes_them_together(self, tmp_path: Path) -> None:
        made = runner(written(net(3), tmp_path, batch=4))
        images = data(3).inputs["x"]
        assert made.inputs[0].shape == ("batch", 3, 6, 5)
        for count in (8, 3, 6, 1):  # the last call is filled up, and what fills it is dropped
            (given,) = made.run({"x": images[:count]})
            wanted = call(net(3), {"x": images[:count]})["y"]
            np.testing.assert_allclose(given, wanted, atol=1e-5)
        with pytest.raises(InputError, match="no samples"):
            made.run({"x": images[:0]})

    def test_calls_are_filled_up_beside_signatures(self, tmp_path: Path) -> None:
        made = runner(written(net(3), tmp_path, batch=4, signatures=[3]))
        images = data(3).inputs["x"]
        for count in (2, 3, 4, 7):
            (given,) = made.run({"x": images[:count]})
            wanted = call(net(3), {"x": images[:count]})["y"]
            np.testing.assert_allclose(given, wanted, atol=1e-5)

    def test_a_step_model_for_more_streams_is_filled_up(self, tmp_path: Path) -> None:
        model, feeds = gru(), {"x": np.random.default_rng(0).normal(size=(5, 5, 3)).astype("f")}
        made = runner(written(model, tmp_path, batch=4, recurrent="step"))
        (given,) = made.run(feeds)
        np.testing.assert_allclose(given, call(model, feeds)["y"], atol=1e-5)

    @pytest.mark.parametrize("borders", ["float32", "int8"])
    def test_signatures_take_batches_of_their_own(
        self, quantized: Model, borders: str, tmp_path: Path
    ) -> None:
        alone = written(quantized, tmp_path / "alone", borders=borders)
        both = written(quantized, tmp_path / "both", borders=borders, signatures=[4, 7])
        assert both.stat().st_size < 2.5 * alone.stat().st_size  # the weights stand once
        made, images = runner(both), data(3).inputs["x"]
        names = made.session._interpreter.get_signature_list()
        assert set(names) == {"batch_4", "batch_7", "serving_default"}
        for batch in (1, 3, 4, 7, 8):
            (given,) = made.run({"x": images[:batch]})
            np.testing.assert_array_equal(given, runner(alone).run({"x": images[:batch]})[0])

    def test_a_loop_in_a_second_signature_finds_its_body(self, tmp_path: Path) -> None:
        model, feeds = gru(), {"x": np.random.default_rng(0).normal(size=(2, 5, 3)).astype("f")}
        (given,) = runner(written(model, tmp_path, signatures=[2])).run(feeds)
        np.testing.assert_allclose(given, call(model, feeds)["y"], atol=1e-5)

    def test_wide_integers_are_narrowed_as_far_as_they_fit(self, tmp_path: Path) -> None:
        feeds = {"ids": np.array([[1, 2, 3], [4, 5, 6]])}
        nodes = [helper.make_node("Cast", ["ids"], ["y"], to=1)]
        made = runner(written(graph_of(nodes, feeds), tmp_path))
        assert made.inputs[0].dtype == "int64"
        np.testing.assert_array_equal(made.run(feeds)[0], feeds["ids"].astype(np.float32))
        with pytest.raises(InputError, match="ids holds numbers that are no int32"):
            made.run({"ids": feeds["ids"] + 2**40})


class TestRefusals:
    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "none.tflite").write_bytes(b"")
        with pytest.raises(InputError, match=r"none\.tflite: is empty"):
            runner(tmp_path / "none.tflite")

    def test_inputs_must_be_those_of_the_file(self, float_file: Path) -> None:
        images = data(3).inputs["x"]
        for feeds, said in (
            ({}, "it takes x, and is given nothing"),
            ({"z": images}, "it takes x, and is given z"),
            ({"x": images.astype(np.float64)}, "x is float32, and is given float64"),
            ({"x": images[:, :2]}, "has the shape"),
        ):
            with pytest.raises(InputError, match=said):
                runner(float_file).run(feeds)

    def test_inputs_of_different_numbers_of_samples_do_not_go_together(
        self, tmp_path: Path
    ) -> None:
        feeds = {name: np.ones((2, 3), np.float32) for name in "ab"}
        path = written(graph_of([helper.make_node("Add", ["a", "b"], ["y"])], feeds), tmp_path)
        with pytest.raises(InputError, match="different numbers of samples"):
            runner(path).run({"a": feeds["a"], "b": feeds["b"][:1]})


def test_callers_at_the_same_time_wait_for_each_other(float_file: Path) -> None:
    made, images = runner(float_file), data(3).inputs["x"]
    wanted = made.run({"x": images})[0]
    wrong: list[int] = []

    def ask(row: int) -> None:
        given = [made.run({"x": images[[row]]})[0] for _ in range(50)]
        wrong.extend(row for each in given if not np.array_equal(each, wanted[[row]]))

    callers = [threading.Thread(target=ask, args=(row,)) for row in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert not wrong


@pytest.mark.parametrize("changes", litert_session.alternatives(4))
def test_every_alternative_computes_the_same(float_file: Path, changes: dict[str, Any]) -> None:
    images = data(3).inputs["x"]
    (given,) = runner(float_file, 4, **changes).run({"x": images})
    np.testing.assert_allclose(given, call(net(3), {"x": images})["y"], atol=1e-5)


def test_the_file_tells_its_operators(float_file: Path, quantized: Model, tmp_path: Path) -> None:
    from lepton_compress.targets.litert_cpu import contents

    assert contents(float_file)["CONV_2D"] == {"float32": 1}
    found = contents(written(quantized, tmp_path))
    assert found["CONV_2D"] == found["FULLY_CONNECTED"] == {"int8": 1}
    assert set(found) >= {"QUANTIZE", "DEQUANTIZE"}


@pytest.mark.parametrize(
    ("data_", "about"),
    [
        (b"no such thing", {}),
        (b'xx{"lepton_compress": {"a": 1}, "inputs": {}}\0\0tail', {"lepton_compress": {"a": 1}}),
        (b'{"lepton_compress": {"a"', {}),
        (b'{"lepton_compress":\xff\xfe', {}),
    ],
)
def test_what_a_file_says_is_found_or_left(
    data_: bytes, about: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(data_)
    found = litert_session.manual(path)
    assert {key: value for key, value in found.items() if key != "inputs"} == about
