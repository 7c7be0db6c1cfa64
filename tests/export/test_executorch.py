"""ONNX graphs as ExecuTorch programs: what they compute, in which arithmetic, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from lepton_compress import registry
from lepton_compress.artifacts import Model
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call
from lepton_compress.verify import LIMIT, difference
from tests.compress.nets import apply
from tests.contract.needed import feeds, graph, image_data

pytest.importorskip("executorch", reason="the extra `executorch` is not installed")
pytest.importorskip("ai_edge_litert", reason="helpers of the tests of LiteRT are used")

from lepton_compress.export.executorch import Executorch, export_executorch
from tests.export.litert import graph_of

Feeds = dict[str, Any]


def written(model: Model, folder: Path, **parameters: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return export_executorch(model, Executorch(**parameters), folder)


def run(path: Path, given: Feeds) -> list[np.ndarray]:
    found: list[np.ndarray] = registry.get("runtime", "executorch-cpu").function(path, 1).run(given)
    return found


def contents(path: Path) -> dict[str, dict[str, int]]:
    from lepton_compress.targets.executorch_contents import contents

    return contents(path)


def agree(model: Model, given: Feeds, folder: Path) -> Path:
    path = written(model, folder)
    made = dict(zip(model.outputs, run(path, given), strict=True))
    assert difference(call(model, given), made) <= LIMIT
    return path


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def node(kind: str, *inputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), ["y"], kind.lower(), **attributes)


IMAGE = {"x": draw(2, 4, 6, 6)}
ROWS = {"x": draw(2, 6)}
CASES: dict[str, Callable[[], tuple[Any, Feeds, Feeds]]] = {
    "grouped, strided": lambda: (
        node("Conv", "x", "w", "b", group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
        IMAGE,
        {"w": draw(4, 2, 3, 3), "b": draw(4)},
    ),
    "padded unevenly": lambda: (
        node("Conv", "x", "w", strides=[2, 2], auto_pad="SAME_UPPER"),
        IMAGE,
        {"w": draw(5, 4, 3, 3)},
    ),
    "convolution in time": lambda: (
        node("Conv", "x", "w", dilations=[2], pads=[2, 2]),
        {"x": draw(2, 4, 9)},
        {"w": draw(3, 4, 3)},
    ),
    "transposed": lambda: (
        node("ConvTranspose", "x", "w", strides=[2, 2], pads=[1, 1, 1, 1]),
        IMAGE,
        {"w": draw(4, 3, 4, 4)},
    ),
    "batch normalisation": lambda: (
        node("BatchNormalization", "x", "s", "b", "m", "v"),
        IMAGE,
        {"s": draw(4), "b": draw(4), "m": draw(4) + 1, "v": np.abs(draw(4)) + 1},
    ),
    "scaled product": lambda: (
        node("Gemm", "x", "w", "b", alpha=0.5, beta=2.0),
        ROWS,
        {"w": draw(6, 3), "b": draw(3)},
    ),
    "average, uncounted": lambda: (
        node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        IMAGE,
        {},
    ),
    "mean without its axes": lambda: (
        node("ReduceMean", "x", "axes", keepdims=0),
        IMAGE,
        {"axes": np.array([-1, 2])},
    ),
    "places backwards": lambda: (
        node("Gather", "x", "places", axis=1),
        ROWS,
        {"places": np.array([[-1, 0], [2, -3]])},
    ),
    "slice": lambda: (
        node("Slice", "x", "start", "end", "axes", "step"),
        IMAGE,
        {
            "start": np.array([1, -5]),
            "end": np.array([2**31, -1]),
            "axes": np.array([3, 2]),
            "step": np.array([2, 1]),
        },
    ),
    "depth to space": lambda: (node("DepthToSpace", "x", blocksize=2, mode="CRD"), IMAGE, {}),
    "hard sigmoid": lambda: (node("HardSigmoid", "x", alpha=0.3), ROWS, {}),
    "norm": lambda: (node("ReduceL2", "x", "axes"), ROWS, {"axes": np.array([1])}),
    "layer normalisation": lambda: (
        node("LayerNormalization", "x", "s", "b", epsilon=1e-3),
        ROWS,
        {"s": draw(6), "b": draw(6)},
    ),
    "leaky": lambda: (node("LeakyRelu", "x", alpha=0.2), ROWS, {}),
    "padding": lambda: (
        node("Pad", "x", "amounts", "value"),
        ROWS,
        {"amounts": np.array([0, 1, 0, 2]), "value": np.float32(3.0)},
    ),
}


@pytest.mark.parametrize("sizes", [(2, 4, 6, 6), (2, 4, 9), (2, 6)])
def test_it_computes_what_onnx_runtime_computes(sizes: tuple[int, ...], tmp_path: Path) -> None:
    # All cases of an input in one file: writing one takes seconds.
    nodes, constants, names = [], dict[str, Any](), []
    for name, case in CASES.items():
        made, given, held = case()
        if given["x"].shape != sizes:
            continue
        made.input[:] = [each if each == "x" else f"{name}, {each}" for each in made.input]
        made.name = made.output[0] = name
        nodes.append(made)
        names.append(name)
        constants |= {f"{name}, {key}": value for key, value in held.items()}
    model, feed = graph_of(nodes, {"x": draw(*sizes)}, constants, tuple(names)), draw(*sizes)
    found = dict(zip(names, run(written(model, tmp_path), {"x": feed}), strict=True))
    for name, wanted in call(model, {"x": feed}).items():
        assert difference({name: wanted}, {name: found[name]}) <= LIMIT, name


class TestIntegers:
    def test_they_are_those_of_onnx_runtime(self, tmp_path: Path) -> None:
        model = apply("quantize", graph(), image_data().calibration).model
        path = written(model, tmp_path)
        given = {"image": image_data().evaluation.named(["image"]).inputs["image"]}
        (made,) = run(path, given)
        wanted = call(model, given)["scores"]
        step = np.abs(np.diff(np.unique(wanted))).min()
        assert np.abs(made - wanted).max() <= 1.01 * step
        assert (made != wanted).mean() < 0.01
        counts = contents(path)
        assert counts["XNNFullyConnected"] == {"int8": 1}
        convolutions = {**counts["XNNConv2d"], **counts.get("XNNDepthwiseConv2d", {})}
        assert set(convolutions) == {"int8"}
        assert path.stat().st_size < written(graph(), tmp_path / "float").stat().st_size

    def test_a_value_that_is_also_taken_as_float(self, tmp_path: Path) -> None:
        # The dense layer is computed in integers, the difference in float.
        def pair(name: str, source: str, scale: str) -> list[Any]:
            zero = "zero"
            return [
                helper.make_node("QuantizeLinear", [source, scale, zero], [f"{name}_q"]),
                helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [name]),
            ]

        nodes = [
            *pair("xd", "x", "fine"),
            helper.make_node("DequantizeLinear", ["w", "fine", "none"], ["wd"]),
            helper.make_node("Gemm", ["xd", "wd"], ["g"], "dense"),
            *pair("gd", "g", "coarse"),
            helper.make_node("Sub", ["xd", "gd"], ["y"], "difference"),
        ]
        constants: Feeds = {
            "w": np.random.default_rng(0).integers(-127, 128, (6, 6)).astype(np.int8),
            "fine": np.float32(0.03125),
            "coarse": np.float32(0.125),
            "zero": np.uint8(120),
            "none": np.int8(0),
        }
        path = agree(graph_of(nodes, ROWS, constants), ROWS, tmp_path)
        counts = contents(path)
        assert counts["XNNFullyConnected"] == {"int8": 1}
        assert counts["XNNSubtract"] == {"float32": 1}

    def test_roundings_without_a_kernel_are_arithmetic(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("Reshape", ["q", "shape"], ["r"]),
            helper.make_node("DequantizeLinear", ["r", "scale", "zero"], ["d"]),
            helper.make_node("Sign", ["d"], ["y"]),
        ]
        constants: Feeds = {
            "scale": np.float32(0.5),
            "zero": np.uint8(128),
            "shape": np.array([-1, 3, 2]),
        }
        agree(graph_of(nodes, ROWS, constants), ROWS, tmp_path)


class TestRefusals:
    def refused(self, nodes: list[Any], folder: Path, constants: Feeds, opset: int = 20) -> str:
        with pytest.raises(InputError) as caught:
            written(graph_of(nodes, ROWS, constants, opset=opset), folder)
        return str(caught.value)

    def test_an_operator_without_counterpart_is_named(self, tmp_path: Path) -> None:
        said = self.refused([node("Hardmax", "x")], tmp_path, {})
        assert said.startswith("node hardmax: Hardmax cannot be converted to ExecuTorch: ")

    def test_16_bit_activations(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "round"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ]
        constants = {"scale": np.float32(0.5), "zero": np.uint16(7)}
        said = self.refused(nodes, tmp_path, constants, opset=21)
        assert "node round: QuantizeLinear" in said
        assert "uint16 activations; quantise activations to 8 bits" in said

    def test_integers_that_are_rounded_at_run_time(self, tmp_path: Path) -> None:
        model = apply("quantize_dynamic", graph(), image_data().calibration).model
        with pytest.raises(InputError, match="cannot be converted to ExecuTorch"):
            written(model, tmp_path)

    def test_a_recurrent_layer_over_several_steps(self, tmp_path: Path) -> None:
        from tests.targets.test_litert_cpu import gru

        said = "node gru: GRU cannot be converted to ExecuTorch: it runs over .* `recurrent: step`"
        with pytest.raises(InputError, match=said):
            written(gru(), tmp_path)

    def test_a_size_that_stays_open(self, tmp_path: Path) -> None:
        model = graph_of([node("Relu", "x")], ROWS)
        model.value.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
        with pytest.raises(InputError, match="which ExecuTorch's shapes need"):
            written(model, tmp_path)


def one_step(kind: str, directions: int, **attributes: Any) -> tuple[Any, Feeds, Feeds]:
    gates, width = {"GRU": 3, "LSTM": 4}[kind], 5
    states = ["h", "c"][: gates - 2]
    names = ["x", "w", "r", "b", "", *states]
    if directions == 2:
        attributes["direction"] = "bidirectional"
    made = helper.make_node(kind, names, ["", "y"], "cell", hidden_size=width, **attributes)
    begins = {name: draw(directions, 2, width) for name in states}
    # The first axis of an input may be open, and directions are no batch.
    given = {"x": draw(1, 2, 3), **(begins if directions == 1 else {})}
    held = {
        **({} if directions == 1 else begins),
        "w": draw(directions, gates * width, 3),
        "r": draw(directions, gates * width, width),
        "b": draw(directions, 2 * gates * width),
    }
    return made, given, held


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("GRU", {"linear_before_reset": 1}), ("GRU", {"linear_before_reset": 0}), ("LSTM", {})],
)
def test_one_step_of_a_recurrent_layer(
    kind: str, attributes: dict[str, int], directions: int, tmp_path: Path
) -> None:
    made, given, held = one_step(kind, directions, **attributes)
    agree(graph_of([made], given, held), given, tmp_path)


def test_what_the_model_says_of_itself_stays(tmp_path: Path) -> None:
    from lepton_compress.targets import executorch_session

    model = graph()
    model.value.metadata_props.add(key="kept", value='"é" and\nmore')
    session = executorch_session.opened(written(model, tmp_path, batch=3), 1)
    assert session.metadata == {"kept": '"é" and\nmore'}
    assert [(each.name, each.shape) for each in session.inputs] == [("image", (3, 1, 6, 6))]
    (found,) = run(tmp_path / "model.pte", feeds(model, 5))
    assert found.shape == (5, 4)
