"""Quantised operators as LiteRT's integer ones, beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

from lepton_compress.artifacts import Model
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call
from tests.export.litert import Feeds, graph_of, loaded, metadata, operators, run, written

DRAW = np.random.default_rng(0)
Range = tuple[float, float]
WIDE: Range = (-4.0, 4.0)


class Graph:
    """Nodes between QuantizeLinear and DequantizeLinear."""

    def __init__(self, dtype: str = "uint8") -> None:
        self.dtype = np.dtype(dtype)
        self.nodes: list[NodeProto] = []
        self.held: Feeds = {}

    def constant(self, name: str, array: Any) -> str:
        self.held[name] = np.asarray(array)
        return name

    def scale(self, name: str, bounds: Range) -> tuple[str, str]:
        ends = np.iinfo(self.dtype)
        step = np.float32((bounds[1] - bounds[0]) / (ends.max - ends.min))
        zero = round(ends.min - bounds[0] / float(step))
        if ends.bits == 16:
            zero = 0 if ends.min else 2**15
        self.constant(f"{name}_scale", step)
        return f"{name}_scale", self.constant(f"{name}_zero", self.dtype.type(zero))

    def rounded(self, name: str, bounds: Range) -> str:
        """The value through integers."""
        scale = self.scale(name, bounds)
        kind = {"domain": "com.microsoft"} if self.dtype.itemsize == 2 else {}
        for operator, given, made in (
            ("QuantizeLinear", name, f"{name}_q"),
            ("DequantizeLinear", f"{name}_q", f"{name}_r"),
        ):
            self.nodes.append(
                helper.make_node(operator, [given, *scale], [made], f"{name}_{operator}", **kind)
            )
        return f"{name}_r"

    def weight(self, name: str, array: np.ndarray, axis: int) -> str:
        """int8 with a scale for each channel."""
        others = tuple(each for each in range(array.ndim) if each != axis)
        step = (np.abs(array).max(axis=others, keepdims=True) / 127).astype(np.float32)
        self.constant(f"{name}_i", np.round(array / step).astype(np.int8))
        self.constant(f"{name}_s", step.ravel())
        self.constant(f"{name}_z", np.zeros(step.size, np.int8))
        given = [f"{name}_i", f"{name}_s", f"{name}_z"]
        self.nodes.append(helper.make_node("DequantizeLinear", given, [name], name, axis=axis))
        return name

    def add(self, kind: str, given: Sequence[str], made: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, given, [made], made, **attributes))
        return made

    def model(self, feeds: Feeds, output: str) -> Model:
        return graph_of(self.nodes, feeds, self.held, (output,))


def floats(*shape: int) -> np.ndarray:
    return DRAW.normal(size=shape).astype(np.float32)


def integer_dtypes(path: Path) -> set[int]:
    """Element types of what operators make, but for conversions at the border."""
    model = loaded(path)
    graph = model.subgraphs[0]
    names = operators(path)
    assert names
    found = set()
    for each in graph.operators:
        if model.operatorCodes[each.opcodeIndex].builtinCode != 6:  # DEQUANTIZE
            found |= {graph.tensors[place].type for place in each.outputs}
    return found


def compare(graph: Graph, feeds: Feeds, folder: Path, steps: float = 1, **given: Any) -> Path:
    """Whether outputs are at most some steps of their scale apart."""
    output = graph.rounded("o", given.pop("bounds", WIDE))
    model = graph.model(feeds, output)
    step = float(graph.held["o_scale"])
    wanted = call(model, feeds)[output]
    path = written(model, folder, **given)
    assert integer_dtypes(path) == {9 if graph.dtype.itemsize == 1 else 7}, "nothing in float"
    for delegates in (True, False):
        made = run(path, feeds, delegates=delegates)[output]
        assert np.abs(made - wanted).max() <= (steps + 1e-2) * step, delegates
        assert (made != made.flat[0]).any()
    return path


IMAGE = (3, 6, 9, 8)
each_dtype = pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16"])


@each_dtype
@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 2, 0]])
def test_convolution(pads: list[int], groups: int, dtype: str, tmp_path: Path) -> None:
    graph, feeds = Graph(dtype), {"x": floats(*IMAGE)}
    bias = graph.constant("b", floats(6))
    weight = graph.weight("w", floats(6, 6 // groups, 3, 3) / 5, 0)
    given = [graph.rounded("x", WIDE), weight, bias]
    graph.add("Conv", given, "o", pads=pads, group=groups, strides=[2, 2])
    compare(graph, feeds, tmp_path)


@pytest.mark.parametrize("kind", ["Relu", "Clip", "clip within the range"])
def test_activations_are_part_of_the_convolution(kind: str, tmp_path: Path) -> None:
    graph, feeds = Graph(), {"x": floats(*IMAGE)}
    graph.add("Conv", [graph.rounded("x", WIDE), graph.weight("w", floats(6, 6, 1, 1), 0)], "a")
    if kind == "Relu":
        graph.add("Relu", ["a"], "o")
    else:
        bounds = (0, 6) if kind == "Clip" else (-1.5, 1.5)
        limits = [graph.constant(f"l{each}", np.float32(each)) for each in bounds]
        graph.add("Clip", ["a", *limits], "o")
    path = compare(graph, feeds, tmp_path, bounds=(-1.5, 1.5) if "within" in kind else (0, 6))
    assert operators(path) == {"QUANTIZE": 1, "CONV_2D": 1, "DEQUANTIZE": 1}


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_relu_that_is_rounded_before_and_behind_alike(dtype: str, tmp_path: Path) -> None:
    graph, feeds = Graph(dtype), {"x": floats(*IMAGE)}
    graph.add("Conv", [graph.rounded("x", WIDE), graph.weight("w", floats(6, 6, 1, 1), 0)], "a")
    graph.add("Relu", [graph.rounded("a", WIDE)], "o")
    path = compare(graph, feeds, tmp_path)
    assert operators(path) == {"QUANTIZE": 1, "CONV_2D": 1, "DEQUANTIZE": 1}


@each_dtype
@pytest.mark.parametrize("rank", [2, 3])
def test_product_with_a_constant(rank: int, dtype: str, tmp_path: Path) -> None:
    graph, feeds = Graph(dtype), {"x": floats(*(3, 5, 8)[3 - rank :])}
    weight = graph.weight("w", floats(8, 5) / 2, 1)
    graph.add("MatMul", [graph.rounded("x", WIDE), weight], "o")
    compare(graph, feeds, tmp_path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_transposed_convolution(dtype: str, tmp_path: Path) -> None:
    graph, feeds = Graph(dtype), {"x": floats(*IMAGE)}
    weight = graph.weight("w", floats(6, 4, 3, 3) / 5, 1)
    given = [graph.rounded("x", WIDE), weight]
    graph.add("ConvTranspose", given, "o", strides=[2, 2], pads=[1, 1, 1, 1])
    compare(graph, feeds, tmp_path)


@each_dtype
@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "MatMul", "Max", "Concat"])
def test_two_values(kind: str, dtype: str, tmp_path: Path) -> None:
    graph, feeds = Graph(dtype), {"x": floats(3, 4, 4), "z": floats(3, 4, 4)}
    given = [graph.rounded("x", WIDE), graph.rounded("z", (-3, 3))]
    graph.add(kind, given, "o", **({"axis": 1} if kind == "Concat" else {}))
    # What must have one scale is rounded once more.
    compare(graph, feeds, tmp_path, steps=2 if kind in ("Max", "Concat") else 1)


def test_a_constant_beside_an_image(tmp_path: Path) -> None:
    graph, feeds = Graph(), {"x": floats(*IMAGE)}
    graph.add("Conv", [graph.rounded("x", WIDE), graph.weight("w", floats(6, 6, 1, 1), 0)], "a")
    bounds = graph.scale("k", (-2, 2))
    graph.constant("ki", DRAW.integers(256, size=(6, 1, 1)).astype(np.uint8))
    graph.add("DequantizeLinear", ["ki", *bounds], "k")
    graph.add("Mul", [graph.rounded("a", WIDE), "k"], "o")
    path = compare(graph, feeds, tmp_path)
    assert operators(path)["TRANSPOSE"] == 0


ONE: list[tuple[str, dict[str, Any], float]] = [
    ("Abs", {}, 1),
    ("Elu", {}, 1),
    ("Gelu", {}, 1),
    ("HardSwish", {}, 1),
    ("LeakyRelu", {"alpha": 0.3}, 1),
    ("Relu", {}, 1),
    ("Sigmoid", {}, 2),
    ("Softmax", {"axis": 1}, 2),
    ("Softmax", {"axis": -1}, 2),
    ("Tanh", {}, 2),
    ("MaxPool", {"kernel_shape": [3, 3], "pads": [1, 0, 1, 0]}, 1),
    ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}, 2),
    ("GlobalAveragePool", {}, 1),
    ("Flatten", {}, 1),
    ("Transpose", {"perm": [0, 3, 1, 2]}, 1),
]
BOUNDS = {"Sigmoid": (0, 1), "Softmax": (0, 1), "Tanh": (-1, 1)}


@pytest.mark.parametrize(("kind", "options", "steps"), ONE)
def test_one_value(kind: str, options: dict[str, Any], steps: float, tmp_path: Path) -> None:
    graph, feeds = Graph(), {"x": floats(3, 4, 6, 5)}
    graph.add(kind, [graph.rounded("x", WIDE)], "o", **options)
    compare(graph, feeds, tmp_path, steps=steps, bounds=BOUNDS.get(kind, WIDE))


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh", "Softmax", "LeakyRelu", "GlobalAveragePool"])
def test_one_value_of_16_bits(kind: str, tmp_path: Path) -> None:
    graph, feeds = Graph("uint16"), {"x": floats(3, 4, 6, 5)}
    graph.add(kind, [graph.rounded("x", WIDE)], "o")
    # Tables of 16-bit functions are interpolated.
    compare(graph, feeds, tmp_path, steps=1 if kind in ("LeakyRelu", "GlobalAveragePool") else 24)


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceMax"])
def test_reduction(kind: str, tmp_path: Path) -> None:
    graph, feeds = Graph(), {"x": floats(3, 4, 6)}
    axes = graph.constant("axes", np.array([2]))
    graph.add(kind, [graph.rounded("x", WIDE), axes], "o", keepdims=0)
    compare(graph, feeds, tmp_path)


@pytest.mark.parametrize("kind", ["Sqrt", "Div", "Exp"])
def test_what_has_no_integer_kernel_is_computed_in_float(kind: str, tmp_path: Path) -> None:
    graph, feeds = Graph(), {"x": np.abs(floats(3, 8)) + 0.5}
    given = [graph.rounded("x", (0, 4))]
    graph.add(kind, [*given, graph.constant("k", np.float32(2))] if kind == "Div" else given, "o")
    output = graph.rounded("o", (0, 8))
    model = graph.model(feeds, output)
    path = written(model, tmp_path)
    assert operators(path)["DEQUANTIZE"] == operators(path)["QUANTIZE"] == 2
    step = float(graph.held["o_scale"])
    assert np.abs(run(path, feeds)[output] - call(model, feeds)[output]).max() <= 1.001 * step


def test_integers_at_the_border(tmp_path: Path) -> None:
    graph, feeds = Graph(), {"x": floats(3, 8)}
    graph.add("Relu", [graph.rounded("x", WIDE)], "a")
    graph.add("MatMul", [graph.rounded("a", (0, 4)), graph.weight("w", floats(8, 5), 1)], "o")
    output = graph.rounded("o", WIDE)
    model = graph.model(feeds, output)
    path = written(model, tmp_path, borders="int8")
    assert operators(path).keys() == {"RELU", "FULLY_CONNECTED"}
    about = metadata(path)
    assert about["inputs"]["x"] == {
        "shape": [1, 8],
        "dtype": "float32",
        "held_as": "int8",
        "scale": pytest.approx(8 / 255),
        "zero_point": int(graph.held["x_zero"]) - 128,
    }
    held = about["outputs"][output]
    made = (run(path, feeds)[output].astype(np.float32) - held["zero_point"]) * held["scale"]
    assert np.abs(made - call(model, feeds)[output]).max() <= 1.001 * held["scale"]


def test_channels_that_were_filled_up_are_left_out(tmp_path: Path) -> None:
    graph, feeds = Graph(), {"x": floats(3, 1, 6, 6)}
    graph.rounded("x", WIDE)
    pads = graph.constant("pads", np.array([0, 0, 0, 0, 0, 3, 0, 0]))
    graph.add("Pad", ["x_q", pads, "x_zero"], "p")
    graph.add("DequantizeLinear", ["p", "x_scale", "x_zero"], "pr")
    graph.add("Conv", ["pr", graph.weight("w", floats(4, 4, 3, 3), 0)], "o")
    path = compare(graph, feeds, tmp_path)
    assert operators(path) == {"QUANTIZE": 1, "CONV_2D": 1, "DEQUANTIZE": 1}
    weights = [each for each in loaded(path).subgraphs[0].tensors if len(each.shape) == 4]
    assert [4, 3, 3, 1] in [each.shape.tolist() for each in weights]


class TestRefused:
    def test_16_bits_off_the_middle(self, tmp_path: Path) -> None:
        graph, feeds = Graph("uint16"), {"x": floats(3, 8)}
        given = graph.rounded("x", WIDE)
        graph.held["x_zero"] = np.uint16(5)  # type: ignore[assignment]
        graph.add("Relu", [given], "o")
        model = graph.model(feeds, graph.rounded("o", WIDE))
        with pytest.raises(InputError, match=r"the middle as zero point, not 5.*symmetric: true"):
            written(model, tmp_path)

    def test_weights_off_zero(self, tmp_path: Path) -> None:
        graph, feeds = Graph(), {"x": floats(3, 8)}
        weight = graph.weight("w", floats(8, 5), 1)
        graph.held["w_z"] = np.full(5, 3, np.int8)
        graph.add("MatMul", [graph.rounded("x", WIDE), weight], "o")
        model = graph.model(feeds, graph.rounded("o", WIDE))
        with pytest.raises(InputError, match=r"node o: .*weights are not int8 around zero"):
            written(model, tmp_path)
