"""Cuts of small graphs: what crosses, and that two halves are the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.load import external
from lepton_compress.place.cuts import winners
from lepton_compress.place.cutting import MOST, Cutting, taken, write

Array = Any
WIDTH = 4


def graph_of(
    nodes: list[onnx.NodeProto],
    outputs: list[str],
    constants: dict[str, Array],
    inputs: tuple[str, ...] = ("x",),
) -> onnx.ModelProto:
    value, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    made = helper.make_graph(
        nodes,
        "drawn",
        [value(name, kind, ["batch", WIDTH]) for name in inputs],
        [value(name, kind, ["batch", WIDTH]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Each node on its own, so that nothing depends on which stand together."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_outputs()]
    wanted = {each.name: feeds[each.name] for each in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Acyclic graphs of dense layers, sums, activations and rounded values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    constants: dict[str, Array] = {"scale": np.float32(0.1), "zero": np.uint8(128)}
    nodes: list[onnx.NodeProto] = []
    values = ["x"]
    if draw(st.booleans()):
        values.append("side")
    inputs = tuple(values)
    for number in range(draw(st.integers(2, 12))):
        kind = draw(st.sampled_from(["MatMul", "Add", "Relu", "Tanh", "Round"]))
        first = draw(st.sampled_from(values[-4:]))
        name = f"v{number}"
        if kind == "MatMul":
            constants[f"w{number}"] = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
            nodes.append(helper.make_node(kind, [first, f"w{number}"], [name], f"n{number}"))
        elif kind == "Add":
            nodes.append(
                helper.make_node(kind, [first, draw(st.sampled_from(values))], [name], f"n{number}")
            )
        elif kind == "Round":
            rounded = ["scale", "zero"]
            nodes += [
                helper.make_node("QuantizeLinear", [first, *rounded], [f"{name}_q"], f"q{number}"),
                helper.make_node("DequantizeLinear", [f"{name}_q", *rounded], [name], f"d{number}"),
            ]
        else:
            nodes.append(helper.make_node(kind, [first], [name], f"n{number}"))
        values.append(name)
    outputs = [values[-1]]
    if draw(st.booleans()) and len(values) > len(inputs) + 1:
        outputs.append(draw(st.sampled_from(values[len(inputs) : -1])))
    return graph_of(nodes, outputs, constants, inputs)


@settings(max_examples=60)
@given(graphs())
def test_the_halves_of_every_cut_are_the_whole(model: onnx.ModelProto) -> None:
    cutting = Cutting(model)
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(3, WIDTH)).astype(np.float32) for name in cutting.inputs}
    wanted = run(model, feeds)
    for cut in cutting.partitions():
        assert 0 < len(cut.crossing) + len(cut.passed) <= MOST
        early, late = cutting.halves(cut)
        for half in (early, late):
            onnx.checker.check_model(half, full_check=True)
        first = run(early, feeds)
        made = {**first, **run(late, {**feeds, **first})}
        for name, array in wanted.items():
            np.testing.assert_array_equal(made[name], array)


@settings(max_examples=60)
@given(graphs())
def test_what_is_rounded_crosses_as_integers(model: onnx.ModelProto) -> None:
    cutting = Cutting(model)
    dequantised = {
        name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.output
    }
    for cut in cutting.partitions():
        assert not set(cut.crossing) & dequantised


def dense(name: str, takes: str, gives: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [takes, "w"], [gives], name)


EYE = {"w": np.eye(WIDTH, dtype=np.float32)}


def crossings(model: onnx.ModelProto) -> list[tuple[str, ...]]:
    return [each.crossing for each in Cutting(model).partitions()]


def test_a_residual_lets_two_tensors_cross_inside_and_one_behind() -> None:
    nodes = [
        dense("first", "x", "a"),
        dense("second", "a", "b"),
        helper.make_node("Add", ["a", "b"], ["c"], "sum"),
        dense("last", "c", "y"),
    ]
    assert crossings(graph_of(nodes, ["y"], EYE)) == [("a",), ("a", "b"), ("c",)]


def test_both_branches_are_cut_at_once() -> None:
    nodes = [
        dense("stem", "x", "s"),
        dense("left", "s", "a"),
        dense("right", "s", "b"),
        dense("deeper", "b", "c"),
        helper.make_node("Add", ["a", "c"], ["y"], "sum"),
    ]
    assert ("a", "c") in crossings(graph_of(nodes, ["y"], EYE))
    assert ("a", "b") in crossings(graph_of(nodes, ["y"], EYE))


def test_an_activation_belongs_to_its_layer() -> None:
    nodes = [
        dense("first", "x", "a"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        dense("last", "r", "y"),
    ]
    model = graph_of(nodes, ["y"], EYE)
    assert crossings(model) == [("r",)]
    assert Cutting(model).layer("r") == "relu"


def test_a_rounded_residual_crosses_once_as_integers() -> None:
    rounded = ["scale", "zero"]
    nodes = [
        dense("first", "x", "a"),
        helper.make_node("QuantizeLinear", ["a", *rounded], ["a_q"], "a_Q"),
        helper.make_node("DequantizeLinear", ["a_q", *rounded], ["a_d"], "a_D"),
        dense("second", "a_d", "b"),
        helper.make_node("Add", ["a_d", "b"], ["y"], "sum"),
    ]
    constants = EYE | {"scale": np.float32(0.1), "zero": np.uint8(0)}
    cutting = Cutting(graph_of(nodes, ["y"], constants))
    [first, *_] = cutting.partitions()
    assert first.crossing == ("a_q",)
    assert cutting.layer("a_q") == "first"
    early, late = cutting.halves(first)
    assert early.graph.node[-1].op_type == "QuantizeLinear"
    assert late.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert late.graph.node[0].op_type == "DequantizeLinear"


def test_attached_preprocessing_stays_on_the_edge() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["m"], "x/preprocess/Mul_0"),
        helper.make_node("Add", ["m", "two"], ["p"], "x/preprocess/Add_1"),
        dense("first", "p", "a"),
        dense("last", "a", "y"),
    ]
    model = graph_of(nodes, ["y"], EYE | {"two": np.float32(2)})
    assert crossings(model) == [("p",), ("a",)]


def test_features_are_told_from_the_input_in_another_form() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["m"], "double"),
        dense("first", "m", "a"),
        helper.make_node("Add", ["m", "a"], ["b"], "sum"),
        dense("last", "b", "y"),
    ]
    cutting = Cutting(graph_of(nodes, ["y"], EYE | {"two": np.float32(2)}))
    weighted = frozenset({1, 3})
    assert not cutting.behind("m", weighted)
    assert cutting.behind("a", weighted)
    assert not cutting.behind("b", weighted)  # a sum with the input still tells the input


def test_what_branches_take_from_outside_counts() -> None:
    value, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    branches = [
        helper.make_graph([helper.make_node(op, ["a"], [op])], op, [], [value(op, kind, None)])
        for op in ("Relu", "Tanh")
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    assert taken(node) == ["c", "a", "a"]


def test_a_half_takes_only_its_own_tensors_out_of_a_file(tmp_path: Path) -> None:
    large = {f"w{n}": np.full((WIDTH, 8192 * 4), n, np.float32) for n in (1, 2)}
    narrow = np.full((8192 * 4, WIDTH), 1e-3, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "n1"], ["b"], "second"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], "third"),
        helper.make_node("MatMul", ["c", "n2"], ["y"], "fourth"),
    ]
    model = graph_of(nodes, ["y"], large | {"n1": narrow, "n2": narrow})
    x = np.ones((1, WIDTH), np.float32)
    [wanted] = run(model, {"x": x}).values()
    path = tmp_path / "whole.onnx"
    onnx.save(model, path, save_as_external_data=True, location="whole.data", size_threshold=1024)
    held = external.read_graph(path)
    cutting = Cutting(held)
    cut = next(each for each in cutting.partitions() if each.crossing == ("b",))
    given = x
    for half, name in zip(cutting.halves(cut), ("edge.onnx", "cloud.onnx"), strict=True):
        size = write(half, tmp_path, tmp_path / name)
        assert size < path.with_name("whole.data").stat().st_size * 0.6
        import onnxruntime

        session = onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        [given] = session.run(None, {session.get_inputs()[0].name: given})
    np.testing.assert_array_equal(given, wanted)


class TestWinners:
    """The convex hull against looking at every bandwidth."""

    @settings(max_examples=100)
    @given(
        st.lists(
            st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=12, unique=True
        )
    )
    def test_they_are_those_that_win_somewhere(self, drawn: list[tuple[int, int]]) -> None:
        points = [(float(e), float(b)) for e, b in drawn]
        found = winners(points)
        for rate in np.geomspace(1e-3, 1e3, 301):
            totals = [e + b / rate for e, b in points]
            best = min(totals)
            assert min(totals[index] for index in found) == pytest.approx(best)

    def test_the_widest_range_comes_first(self) -> None:
        points = [(0.0, 1000.0), (1.0, 900.0), (2.0, 10.0), (100.0, 9.0)]
        assert winners(points)[:2] != [1]
        assert 1 not in winners(points)  # above the line from its neighbours
        assert set(winners(points)) == {0, 2, 3}
