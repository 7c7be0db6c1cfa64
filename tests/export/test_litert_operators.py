"""Each operator in a small graph of its own, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

from lepton_compress.artifacts import Model
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call
from tests.export.litert import Feeds, error, graph_of, operators, run, written

EXACT = 1e-5
DRAW = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return DRAW.normal(size=shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


Case = tuple[Model, Feeds]


def case(
    kind: str,
    *given: np.ndarray,
    constants: tuple[np.ndarray | None, ...] = (),
    outputs: int = 1,
    **attributes: Any,
) -> Case:
    """One node: its inputs, then its constants."""
    feeds = {f"x{place}": array for place, array in enumerate(given)}
    names = [f"c{place}" if held is not None else "" for place, held in enumerate(constants)]
    made = ("y", "z", "w")[:outputs]
    node = helper.make_node(kind, [*feeds, *names], made, kind, **attributes)
    held = {name: array for name, array in zip(names, constants, strict=True) if array is not None}
    return graph_of([node], feeds, held, made), feeds


def compare(model: Model, feeds: Feeds, folder: Path, limit: float = EXACT) -> Path:
    wanted = call(model, feeds)
    for layout in ("nhwc", "nchw"):
        path = written(model, folder / layout, layout=layout)
        for delegates in (True, False):
            made = run(path, feeds, delegates=delegates)
            assert made.keys() == wanted.keys()
            for name, array in wanted.items():
                assert error(array, made[name]) < limit, (layout, delegates, name)
    return path


IMAGE = (2, 6, 9, 7)
WEIGHT = (8, 6, 3, 3)
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "same": {"pads": [1, 1, 1, 1]},
    "uneven": {"pads": [0, 2, 1, 0]},
    "strided": {"strides": [2, 3], "pads": [1, 1, 1, 1]},
    "dilated": {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
    "upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "lower": {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    "valid": {"auto_pad": "VALID"},
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str, bias: bool, tmp_path: Path) -> None:
    constants = (floats(*WEIGHT), floats(8)) if bias else (floats(*WEIGHT),)
    compare(*case("Conv", floats(*IMAGE), constants=constants, **CONVOLUTIONS[name]), tmp_path)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_depthwise_convolution(name: str, multiplier: int, tmp_path: Path) -> None:
    weight = (floats(6 * multiplier, 1, 3, 3), floats(6 * multiplier))
    options = CONVOLUTIONS[name]
    if name == "dilated" and multiplier == 2:
        pytest.skip("one property at a time")
    given = case("Conv", floats(*IMAGE), constants=weight, group=6, **options)
    path = compare(*given, tmp_path)
    assert operators(path)["DEPTHWISE_CONV_2D"] == 1


def test_grouped_convolution(tmp_path: Path) -> None:
    weight = (floats(8, 3, 3, 3), floats(8))
    compare(*case("Conv", floats(*IMAGE), constants=weight, group=2), tmp_path)


@pytest.mark.parametrize("pads", [[0, 0], [2, 2], [1, 0]])
@pytest.mark.parametrize("groups", [1, 6])
def test_convolution_of_one_dimension(groups: int, pads: list[int], tmp_path: Path) -> None:
    weight = (floats(12, 6 // groups, 4), floats(12))
    given = case("Conv", floats(2, 6, 15), constants=weight, pads=pads, group=groups, strides=[2])
    compare(*given, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": [2, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [3, 2], "pads": [0, 1, 1, 0]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ],
)
def test_transposed_convolution(options: dict[str, Any], tmp_path: Path) -> None:
    weight = (floats(6, 4, 3, 3), floats(4))
    compare(*case("ConvTranspose", floats(*IMAGE), constants=weight, **options), tmp_path)


POOLS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "padded": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "uneven": {"kernel_shape": [3, 2], "pads": [0, 1, 1, 0]},
    "ceil": {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1},
    "padded ceil": {
        "kernel_shape": [3, 3],
        "strides": [2, 2],
        "pads": [1, 1, 1, 1],
        "ceil_mode": 1,
    },
    "same": {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("kind", ["max", "average", "counted"])
def test_pool(kind: str, name: str, tmp_path: Path) -> None:
    options = dict(POOLS[name])
    if kind == "counted":
        options["count_include_pad"] = 1
    # Below zero, so that what is padded would show.
    given = floats(*IMAGE) - 5
    compare(*case("MaxPool" if kind == "max" else "AveragePool", given, **options), tmp_path)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_pool_of_one_dimension(kind: str, tmp_path: Path) -> None:
    compare(*case(kind, floats(2, 6, 14), kernel_shape=[2], strides=[2]), tmp_path)


def test_chain_of_image_operators_is_never_transposed(tmp_path: Path) -> None:
    held = {"w": floats(8, 6, 3, 3), "b": floats(8), "s": floats(8, 1, 1), "d": floats(10, 8 * 9)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], "conv"),
        helper.make_node("Mul", ["a", "s"], ["m"], "mul"),
        helper.make_node("Sigmoid", ["m"], ["g"], "gate"),
        helper.make_node("Mul", ["a", "g"], ["h"], "gated"),
        helper.make_node("AveragePool", ["h"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["p", "p"], ["c"], "concat", axis=1),
        helper.make_node("Slice", ["c", "from", "to", "axes"], ["k"], "slice"),
        helper.make_node("Flatten", ["k"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "d"], ["y"], "dense", transB=1),
    ]
    held |= {"from": whole(0), "to": whole(8), "axes": whole(1)}
    feeds = {"x": floats(2, 6, 8, 8)}
    path = written(graph_of(nodes, feeds, held), tmp_path)
    assert operators(path)["TRANSPOSE"] == 0
    compare(graph_of(nodes, feeds, held), feeds, tmp_path)


POSITIVE = np.abs(floats(2, 3, 4)) + 0.1
UNARY = [
    ("Abs", {}),
    ("Ceil", {}),
    ("Cos", {}),
    ("Elu", {}),
    ("Exp", {}),
    ("Floor", {}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("HardSigmoid", {"alpha": 0.3}),
    ("HardSwish", {}),
    ("LeakyRelu", {"alpha": 0.2}),
    ("Log", {}),
    ("LogSoftmax", {"axis": 1}),
    ("Neg", {}),
    ("Reciprocal", {}),
    ("Relu", {}),
    ("Round", {}),
    ("Sigmoid", {}),
    ("Sign", {}),
    ("Sin", {}),
    ("Softmax", {"axis": -1}),
    ("Softmax", {"axis": 1}),
    ("Sqrt", {}),
    ("Tanh", {}),
]


@pytest.mark.parametrize(("kind", "options"), UNARY)
def test_operator_on_one_value(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    given = POSITIVE if kind in ("Log", "Sqrt", "Reciprocal") else 3 * floats(2, 3, 4)
    compare(*case(kind, given, **options), tmp_path, limit=1e-4 if kind == "Gelu" else EXACT)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 6), (-1, 1), (0, None), (None, 0.5), (-0.25, 0.75), (0.1, None)]
)
def test_clip(low: float | None, high: float | None, tmp_path: Path) -> None:
    held = tuple(None if each is None else np.array(each, np.float32) for each in (low, high))
    compare(*case("Clip", 4 * floats(2, 3, 4), constants=held), tmp_path)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])
@pytest.mark.parametrize("other", [(2, 6, 5, 4), (2, 1, 5, 1), (6, 1, 1), (), (4,)])
@pytest.mark.parametrize("constant", [True, False])
def test_operator_on_two_values(
    kind: str, other: tuple[int, ...], constant: bool, tmp_path: Path
) -> None:
    """Behind a convolution, whose channels are last in memory."""
    second = np.abs(floats(*other)) + 0.1
    if constant and len(other) == 4:
        second = second[:1]
    elif not constant and (len(other) < 4):
        pytest.skip("inputs have a batch")
    weight = floats(6, 6, 1, 1)
    feeds = {"x": floats(2, 6, 5, 4)} | ({} if constant else {"s": second})
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Abs", ["a"], ["b"]),
        helper.make_node(kind, ["b", "s"], ["y"]),
    ]
    held = {"w": weight} | ({"s": second} if constant else {})
    compare(graph_of(nodes, feeds, held), feeds, tmp_path)


def test_slopes_by_channel(tmp_path: Path) -> None:
    held = {"w": floats(6, 6, 1, 1), "s": floats(6, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("PRelu", ["a", "s"], ["y"]),
    ]
    feeds = {"x": floats(2, 6, 5, 4)}
    path = compare(graph_of(nodes, feeds, held), feeds, tmp_path)
    assert operators(path)["PRELU"] == 1


@pytest.mark.parametrize("kind", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparison(kind: str, tmp_path: Path) -> None:
    first = DRAW.integers(3, size=(2, 5)).astype(np.float32)
    other = DRAW.integers(3, size=(1, 5)).astype(np.float32)
    compare(*case(kind, first, constants=(other,)), tmp_path)


def test_where_and_logic(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["up"]),
        helper.make_node("Less", ["x", "one"], ["down"]),
        helper.make_node("And", ["up", "down"], ["both"]),
        helper.make_node("Not", ["both"], ["none"]),
        helper.make_node("Or", ["none", "up"], ["any"]),
        helper.make_node("Where", ["any", "x", "minus"], ["y"]),
    ]
    held = {"zero": np.float32(0), "one": np.float32(1), "minus": np.float32(-7)}
    feeds = {"x": floats(3, 4)}
    arrays = {name: np.asarray(value) for name, value in held.items()}
    compare(graph_of(nodes, feeds, arrays), feeds, tmp_path)


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"])
@pytest.mark.parametrize("axes", [(2, 3), (1,), (-1,), (1, 2, 3)])
@pytest.mark.parametrize("keep", [0, 1])
def test_reduction(kind: str, axes: tuple[int, ...], keep: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node(kind, ["a", "axes"], ["y"], keepdims=keep),
    ]
    feeds, held = {"x": floats(2, 3, 5, 4)}, {"w": floats(6, 3, 1, 1), "axes": whole(*axes)}
    compare(graph_of(nodes, feeds, held), feeds, tmp_path)


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pool(kind: str, tmp_path: Path) -> None:
    compare(*case(kind, floats(2, 6, 5, 4)), tmp_path)


@pytest.mark.parametrize(
    ("kind", "given", "constants", "options"),
    [
        ("Slice", (2, 6, 8), (whole(1), whole(5), whole(1)), {}),
        ("Slice", (2, 6, 8), (whole(-1), whole(-9), whole(2), whole(-1)), {}),
        ("Slice", (2, 6, 8), (whole(0, 7), whole(9, -(2**62)), whole(1, 2), whole(2, -3)), {}),
        ("Gather", (2, 6, 8), (whole(3, -1, 0),), {"axis": 1}),
        ("Gather", (2, 6, 8), (np.array(2),), {"axis": 2}),
        ("Pad", (2, 6, 8), (whole(0, 1, 2, 0, 0, 3), np.float32(1.5)), {}),
        ("Pad", (2, 6, 8), (whole(0, 1, 2, 0, 0, 3),), {"mode": "reflect"}),
        ("Expand", (2, 1, 8), (whole(1, 5, 1),), {}),
        ("Tile", (2, 3, 4), (whole(1, 2, 3),), {}),
        ("Transpose", (2, 3, 4), (), {"perm": [0, 2, 1]}),
        ("DepthToSpace", (2, 8, 3, 4), (), {"blocksize": 2}),
        ("DepthToSpace", (2, 8, 3, 4), (), {"blocksize": 2, "mode": "CRD"}),
        ("SpaceToDepth", (2, 3, 4, 6), (), {"blocksize": 2}),
        ("Squeeze", (2, 1, 4), (whole(1),), {}),
        ("Unsqueeze", (2, 4), (whole(1, 3),), {}),
        ("Reshape", (2, 6, 4), (whole(0, -1, 3),), {}),
    ],
)
def test_movement(
    kind: str, given: tuple[int, ...], constants: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    arrays = tuple(np.asarray(each) for each in constants)
    compare(*case(kind, floats(*given), constants=arrays, **options), tmp_path)


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 3, 2)])
def test_split(sizes: tuple[int, ...], tmp_path: Path) -> None:
    given = case("Split", floats(2, 6, 4), constants=(whole(*sizes),), outputs=3, axis=1)
    compare(*given, tmp_path)


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("keep", [0, 1])
def test_places_of_extremes(kind: str, keep: int, tmp_path: Path) -> None:
    compare(*case(kind, floats(2, 6, 4), axis=1, keepdims=keep), tmp_path)


def test_largest(tmp_path: Path) -> None:
    compare(*case("TopK", floats(2, 9, 4), constants=(whole(3),), outputs=2, axis=1), tmp_path)


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.5, 2.0)])
def test_dense(turned: int, factors: tuple[float, float], tmp_path: Path) -> None:
    weight = floats(5, 8) if turned else floats(8, 5)
    options: dict[str, Any] = {"transB": turned, "alpha": factors[0], "beta": factors[1]}
    compare(*case("Gemm", floats(2, 8), constants=(weight, floats(5)), **options), tmp_path)


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 8), (8, 3)), ((2, 4, 8), (8, 3)), ((2, 3, 4, 8), (3, 8, 5)), ((2, 3, 4, 8), (8, 5))],
)
def test_product_with_a_constant(
    left: tuple[int, ...], right: tuple[int, ...], tmp_path: Path
) -> None:
    compare(*case("MatMul", floats(*left), constants=(floats(*right),)), tmp_path)


def test_product_of_two_values(tmp_path: Path) -> None:
    feeds = {"q": floats(2, 3, 5, 8), "k": floats(2, 3, 6, 8)}
    nodes = [
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "t"], ["y"]),
    ]
    model = graph_of(nodes, feeds)
    assert operators(compare(model, feeds, tmp_path)) == {"BATCH_MATMUL": 1}


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization(axis: int, tmp_path: Path) -> None:
    shape = (6, 8) if axis == 1 else (8,)
    given = case(
        "LayerNormalization", floats(2, 6, 8), constants=(floats(*shape), floats(*shape)), axis=axis
    )
    compare(*given, tmp_path)


def test_instance_normalization(tmp_path: Path) -> None:
    constants = (floats(6), floats(6))
    compare(*case("InstanceNormalization", floats(2, 6, 5, 4), constants=constants), tmp_path)


@pytest.mark.parametrize("folded", [True, False])
def test_batch_normalization(folded: bool, tmp_path: Path) -> None:
    statistics = {"s": floats(6), "b": floats(6), "m": floats(6), "v": np.abs(floats(6)) + 0.1}
    feeds = {"x": floats(2, 6, 5, 4)}
    nodes = [
        helper.make_node("Conv" if folded else "Abs", ["x", "w"][: 1 + folded], ["a"]),
        helper.make_node("BatchNormalization", ["a", *statistics], ["y"]),
    ]
    held = statistics | ({"w": floats(6, 6, 1, 1)} if folded else {})
    path = compare(graph_of(nodes, feeds, held), feeds, tmp_path)
    assert (operators(path)["MUL"] == 0) == folded


@pytest.mark.parametrize("order", range(3))
def test_gelu_of_several_nodes(order: int, tmp_path: Path) -> None:
    ends = [
        [("Mul", ["x", "p"], ["m"]), ("Mul", ["m", "half"], ["y"])],
        [("Mul", ["p", "half"], ["m"]), ("Mul", ["x", "m"], ["y"])],
        [("Mul", ["x", "half"], ["m"]), ("Mul", ["m", "p"], ["y"])],
    ]
    nodes = [
        helper.make_node("Div", ["x", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["p"]),
        *(helper.make_node(*each) for each in ends[order]),
    ]
    held = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    feeds = {"x": 2 * floats(3, 8)}
    model = graph_of(nodes, feeds, {name: np.asarray(each) for name, each in held.items()})
    assert operators(compare(model, feeds, tmp_path, 1e-4)) == {"GELU": 1}


def test_embedding_of_whole_numbers(tmp_path: Path) -> None:
    feeds = {"ids": DRAW.integers(9, size=(3, 5))}
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    path = compare(graph_of([node], feeds, {"table": floats(9, 4)}), feeds, tmp_path)
    assert operators(path) == {"GATHER": 1}


RESIZES: list[tuple[dict[str, Any], str]] = [
    ({"mode": "nearest"}, "RESIZE_NEAREST_NEIGHBOR"),
    (
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        "RESIZE_NEAREST_NEIGHBOR",
    ),
    ({"mode": "nearest", "nearest_mode": "ceil"}, "GATHER"),
    ({"mode": "linear"}, "RESIZE_BILINEAR"),
    ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, "RESIZE_BILINEAR"),
    ({"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, "RESIZE_BILINEAR"),
    ({"mode": "linear", "antialias": 1, "exclude_outside": 1}, ""),
    ({"mode": "cubic"}, "FULLY_CONNECTED"),
]


@pytest.mark.parametrize(("options", "by"), RESIZES)
@pytest.mark.parametrize("sizes", [(12, 10), (3, 9), (6, 10)])
def test_resize(sizes: tuple[int, int], options: dict[str, Any], by: str, tmp_path: Path) -> None:
    given = case(
        "Resize", floats(2, 3, 6, 5), constants=(None, None, whole(*sizes)), **options, axes=[2, 3]
    )
    path = compare(*given, tmp_path)
    if sizes == (12, 10) and by:
        assert operators(path)[by]


def test_resize_of_channels_last_by_scales(tmp_path: Path) -> None:
    scales = np.array([1, 2, 3, 1], np.float32)
    given = case("Resize", floats(2, 6, 5, 3), constants=(None, scales), mode="linear")
    assert operators(compare(*given, tmp_path)) == {"RESIZE_BILINEAR": 1}


def test_shapes_are_worked_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "one"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    held = {"zero": whole(0), "one": whole(1), "rest": whole(-1, 3)}
    feeds = {"x": floats(2, 6, 4)}
    assert operators(compare(graph_of(nodes, feeds, held), feeds, tmp_path)) == {"RESHAPE": 1}


class TestRefused:
    def test_an_operator_without_a_counterpart(self, tmp_path: Path) -> None:
        model, _ = case("Det", floats(2, 3, 3))
        with pytest.raises(InputError, match=r"node Det: Det cannot be converted.*export `onnx`"):
            written(model, tmp_path)

    def test_an_open_size_besides_the_batch(self, tmp_path: Path) -> None:
        model, _ = case("Relu", floats(2, 3))
        dim = model.value.graph.input[0].type.tensor_type.shape.dim[1]
        dim.dim_param = "length"
        with pytest.raises(
            InputError, match=r"axis 1 of input x0 has no fixed size \(length\).*fixed"
        ):
            written(model, tmp_path)

    def test_weights_in_blocks(self, tmp_path: Path) -> None:
        node = helper.make_node(
            "MatMulNBits",
            ["x", "packed", "scales"],
            ["y"],
            "dense",
            domain="com.microsoft",
            K=32,
            N=4,
            bits=4,
            block_size=32,
        )
        held: Feeds = {
            "packed": np.zeros((4, 1, 16), np.uint8),
            "scales": np.ones(4, np.float32),
        }
        with pytest.raises(InputError, match=r"node dense: MatMulNBits.*quantize_dynamic"):
            written(graph_of([node], {"x": floats(2, 32)}, held), tmp_path)

    def test_a_batch_that_the_graph_cannot_have(self, tmp_path: Path) -> None:
        given = case("Reshape", floats(2, 6), constants=(whole(2, 6),))
        with pytest.raises(InputError, match="ONNX Runtime cannot run it at this batch"):
            written(given[0], tmp_path)
