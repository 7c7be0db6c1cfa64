"""GRU and LSTM as LiteRT files, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

from lepton_compress.artifacts import Model, Split
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call
from tests.compress.nets import apply
from tests.export.litert import Feeds, error, graph_of, loaded, operators, run, written

EXACT = 1e-5
INPUTS, WIDTH = 6, 5
GATES = {"GRU": 3, "LSTM": 4}


def layer(
    kind: str,
    steps: int,
    outputs: tuple[str, ...],
    *,
    initial: str = "none",
    bias: bool = True,
    width: int = WIDTH,
    **attributes: Any,
) -> tuple[Model, Feeds]:
    """A layer over (batch, steps, inputs), turned as ONNX has it; `outputs` may have gaps."""
    draw = np.random.default_rng(steps)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[kind] * width

    def weights(*shape: int) -> np.ndarray:
        made: np.ndarray = draw.normal(size=shape) / shape[-1] ** 0.5
        return made.astype(np.float32)

    held = {"w": weights(directions, rows, INPUTS), "r": weights(directions, rows, width)}
    names = ["t", "w", "r", ""]
    if bias:
        held["b"], names[3] = weights(directions, 2 * rows), "b"
    feeds = {"x": draw.normal(size=(3, steps, INPUTS)).astype(np.float32)}
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2])]
    if initial != "none":
        states = ["h", "c"][: 1 + (kind == "LSTM")]
        for name in states:
            if initial == "input":
                feeds[name] = weights(3, directions, width)
                nodes.append(helper.make_node("Transpose", [name], [f"{name}t"], perm=[1, 0, 2]))
            else:
                held[f"{name}t"] = weights(directions, 1, width)
        names += ["", *(f"{name}t" for name in states)]
    made = [f"{name}t" if name else "" for name in outputs]
    nodes.append(helper.make_node(kind, names, made, "layer", hidden_size=width, **attributes))
    for name in filter(None, outputs):
        # The batch in front again.
        order = [2, 0, 1, 3] if name == "y" else [1, 0, 2]
        nodes.append(helper.make_node("Transpose", [f"{name}t"], [name], perm=order))
    return graph_of(nodes, feeds, held, tuple(filter(None, outputs))), feeds


def compare(model: Model, feeds: Feeds, folder: Path) -> Path:
    # One sample at a time: where the state of a call were left over, the second would differ.
    rows = [{name: array[row : row + 1] for name, array in feeds.items()} for row in range(3)]
    wanted = [call(model, row) for row in rows]
    path = written(model, folder)
    for delegates in (True, False):
        made = run(path, feeds, delegates=delegates)
        for name in model.outputs:
            assert error(np.concatenate([row[name] for row in wanted]), made[name]) < EXACT
    return path


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("steps", [1, 7])
def test_gru(steps: int, before: int, direction: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"linear_before_reset": before, "direction": direction}
    path = compare(*layer("GRU", steps, ("y", "h_n"), **options), tmp_path)
    loops = operators(path)["WHILE"]
    assert loops == (0 if steps == 1 else 2 if direction == "bidirectional" else 1)


@pytest.mark.parametrize("initial", ["none", "constant", "input"])
@pytest.mark.parametrize("outputs", [("y",), ("", "h_n"), ("y", "h_n")])
def test_gru_from_a_state(outputs: tuple[str, ...], initial: str, tmp_path: Path) -> None:
    compare(*layer("GRU", 4, outputs, initial=initial, linear_before_reset=1), tmp_path)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("outputs", [("y",), ("", "h_n"), ("y", "h_n", "c_n")])
def test_lstm(outputs: tuple[str, ...], steps: int, direction: str, tmp_path: Path) -> None:
    path = compare(*layer("LSTM", steps, outputs, direction=direction), tmp_path)
    fused = operators(path)["UNIDIRECTIONAL_SEQUENCE_LSTM"]
    directions = 2 if direction == "bidirectional" else 1
    assert fused == (0 if steps == 1 or "c_n" in outputs else directions)


@pytest.mark.parametrize("initial", ["constant", "input"])
@pytest.mark.parametrize("outputs", [("y",), ("y", "h_n", "c_n")])
def test_lstm_from_a_state(outputs: tuple[str, ...], initial: str, tmp_path: Path) -> None:
    compare(*layer("LSTM", 4, outputs, initial=initial, bias=False), tmp_path)


def test_a_step_with_the_state_outside_has_no_loop(tmp_path: Path) -> None:
    given = layer("GRU", 1, ("y", "h_n"), initial="input", linear_before_reset=1)
    path = compare(*given, tmp_path)
    assert len(loaded(path).subgraphs) == 1
    assert operators(path).keys() <= {
        *("ADD", "FULLY_CONNECTED", "LOGISTIC", "MUL", "RESHAPE", "SPLIT", "SUB", "TANH")
    }


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("weights", ["float16", "dynamic", "int8"])
def test_narrow_weights(weights: str, kind: str, tmp_path: Path) -> None:
    model, feeds = layer(kind, 5, ("y",), width=64)
    wanted = call(model, {"x": feeds["x"]})["y"]
    wide, narrow = (written(model, tmp_path / each, weights=each) for each in ("float32", weights))
    assert narrow.stat().st_size < (0.6 if weights == "float16" else 0.45) * wide.stat().st_size
    made = run(narrow, feeds)["y"]
    assert 0 < error(wanted, made) < 0.03


def test_the_dynamic_step_keeps_its_integers(tmp_path: Path) -> None:
    model, feeds = layer("LSTM", 5, ("y",), width=64)
    quantized = apply("quantize_dynamic", model, Split(feeds), weight_bits=8).model
    path = written(quantized, tmp_path)
    assert path.stat().st_size < 0.4 * written(model, tmp_path / "float").stat().st_size
    assert error(call(quantized, feeds)["y"], run(path, feeds)["y"]) < 0.02


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"activations": ["Sigmoid", "Relu"]}, "activations are not sigmoid and tanh"),
        ({"clip": 1.0}, "neither clips"),
    ],
)
def test_what_is_refused(options: dict[str, Any], problem: str, tmp_path: Path) -> None:
    model, _ = layer("GRU", 4, ("y",), **options)
    with pytest.raises(InputError, match=f"node layer: GRU cannot be converted.*{problem}"):
        written(model, tmp_path)
