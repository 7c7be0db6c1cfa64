"""Every operator that passes or takes factors up: any factors on the free labels leave the function
as it is, and what cannot pass holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress import facts
from lepton_compress.compress.moving import _VISIT
from lepton_compress.compress.regions import HELD, Region, region_of
from lepton_compress.load.forms import duplicate
from tests.compress.nets import model_of, normal, outputs

Nodes = list[onnx.NodeProto]
Held = dict[str, np.ndarray]
RNG = np.random.default_rng(0)


def node(operator: str, given: str, made: str = "b", **more: Any) -> onnx.NodeProto:
    return helper.make_node(operator, given.split(), made.split(), operator.lower(), **more)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


IMAGES: dict[str, tuple[Nodes, Held]] = {
    # Between a convolution that gives a (batch, 6, 4, 4) and one that takes b (batch, 6, ?, ?).
    "Relu": ([node("Relu", "a")], {}),
    "LeakyRelu": ([node("LeakyRelu", "a", alpha=0.1)], {}),
    "PRelu": ([node("PRelu", "a p")], {"p": RNG.uniform(size=(6, 1, 1))}),
    "Abs": ([node("Abs", "a")], {}),
    "Neg": ([node("Neg", "a")], {}),
    "Identity": ([node("Identity", "a")], {}),
    "Dropout": ([node("Dropout", "a")], {}),
    "Clip": ([node("Clip", "a low")], {"low": np.array(0.0)}),
    "MaxPool": ([node("MaxPool", "a", kernel_shape=[2, 2])], {}),
    "AveragePool": ([node("AveragePool", "a", kernel_shape=[2, 2], pads=[1, 1, 1, 1])], {}),
    "GlobalAveragePool": ([node("GlobalAveragePool", "a")], {}),
    "GlobalMaxPool": ([node("GlobalMaxPool", "a")], {}),
    "ReduceMean": ([node("ReduceMean", "a axes")], {"axes": ints(2, 3)}),
    "ReduceMax": ([node("ReduceMax", "a axes")], {"axes": ints(-1)}),
    "ReduceMin": ([node("ReduceMin", "a axes")], {"axes": ints(2)}),
    "ReduceSum": ([node("ReduceSum", "a axes")], {"axes": ints(2)}),
    "Pad": ([node("Pad", "a pads")], {"pads": ints(0, 0, 1, 0, 0, 0, 0, 2)}),
    "Resize": (
        [node("Resize", "a roi scales")],
        {"roi": np.zeros(0), "scales": np.array([1.0, 1.0, 2.0, 2.0])},
    ),
    "Add": ([node("Add", "a c")], {"c": RNG.normal(size=(6, 1, 1))}),
    "Add a scalar": ([node("Add", "c a")], {"c": np.array(0.7)}),
    "Sub": ([node("Sub", "c a")], {"c": RNG.normal(size=(1, 6, 1, 1))}),
    "Mul": ([node("Mul", "a c")], {"c": RNG.normal(size=(6, 1, 1))}),
    "Mul by a scalar": ([node("Mul", "c a")], {"c": np.array(0.7)}),
    "Div": ([node("Div", "a c")], {"c": RNG.uniform(1, 2, size=(6, 1, 1))}),
    "BatchNormalization": (
        [node("BatchNormalization", "a g s m v")],
        {name: RNG.uniform(1, 2, size=6) for name in "gsmv"},
    ),
    "InstanceNormalization": (
        [node("InstanceNormalization", "a g s")],
        {name: RNG.uniform(1, 2, size=6) for name in "gs"},
    ),
    "Split and Concat": (
        [node("Split", "a", "s t", axis=1, num_outputs=2), node("Concat", "t s", axis=1)],
        {},
    ),
    "Slice": (
        [
            node("Slice", "a one end axes", "s"),
            node("Concat", "s a a", "t", axis=1),
            helper.make_node("Slice", ["t", "one", "seven", "axes"], ["b"], "second"),
        ],
        {"one": ints(1), "end": ints(2**62), "axes": ints(1), "seven": ints(7)},
    ),
    "Gather": ([node("Gather", "a order", axis=1)], {"order": ints(5, 4, 3, 2, 1, 0)}),
    "Transpose": (
        [
            node("Transpose", "a", "t", perm=[0, 2, 3, 1]),
            helper.make_node("Transpose", ["t"], ["b"], "back", perm=[0, 3, 1, 2]),
        ],
        {},
    ),
    "Reshape": (
        [node("Reshape", "a flat", "t"), helper.make_node("Reshape", ["t", "back"], ["b"], "r")],
        {"flat": ints(0, 6, 16), "back": ints(0, 6, 4, 4)},
    ),
    "Squeeze and Unsqueeze": (
        [node("Unsqueeze", "a axes", "t"), node("Squeeze", "t axes")],
        {"axes": ints(2)},
    ),
    "Conv, depthwise": (
        [node("Conv", "a d", group=6)],
        {"d": normal(RNG, 6, 1, 2, 2)},
    ),
    "Conv, grouped": (
        [node("Conv", "a d e", group=2)],
        {"d": normal(RNG, 6, 3, 1, 1), "e": RNG.normal(size=6)},
    ),
    "ConvTranspose": (
        [node("ConvTranspose", "a d", group=3, strides=[2, 2])],
        {"d": normal(RNG, 6, 2, 2, 2)},
    ),
    "a residual": ([node("Relu", "a", "r"), node("Add", "a r")], {}),
}


def images(name: str) -> tuple[Model, Split]:
    between, held = IMAGES[name]
    held = {n: a if a.dtype == np.int64 else a.astype(np.float32) for n, a in held.items()}
    held |= {"w1": normal(RNG, 6, 3, 1, 1), "b1": RNG.normal(size=6).astype("f4")}
    held["w2"] = normal(RNG, 4, 6, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "first"),
        *between,
        helper.make_node("Conv", ["b", "w2"], ["y"], "last"),
    ]
    size = ["batch", 3, 4, 4]
    given = ("x", TensorProto.FLOAT, size)
    model = model_of(nodes, held, given, ("y", ["batch", 4, None, None]))
    return model, Split({"x": RNG.normal(size=(5, 3, 4, 4)).astype(np.float32)})


def move(model: Model, split: Split, value: str, axis: int, seed: int) -> tuple[Model, Region]:
    """The graph with random factors on the free labels around a value."""
    made = duplicate(model)
    copies = facts.apart(made.value.graph)
    known = facts.facts_of(made, split)
    region = region_of(known, value, axis)
    factors = np.exp(np.random.default_rng(seed).normal(size=region.size + 1))
    factors[HELD] = 1
    arrays = dict(known.constants)
    region.scale(arrays, factors)
    facts.store(made.value.graph, known, arrays, copies)
    onnx.checker.check_model(made.value)
    return made, region


class TestOperators:
    @pytest.mark.parametrize("name", IMAGES)
    @given(seed=st.integers(0, 99))
    @settings(max_examples=4, deadline=None)
    def test_factors_move_and_the_function_stays(self, name: str, seed: int) -> None:
        model, split = images(name)
        for value in "ab":
            made, region = move(model, split, value, 1, seed)
            assert region.size or (value == "a" and "Norm" in name), region.obstacles
            for batch in (1, 5):
                wanted, found = (outputs(each, split, batch) for each in (model, made))
                assert np.abs(wanted - found).max() <= 1e-5 * np.abs(wanted).max()

    def test_each_operator_of_the_table_is_tried(self) -> None:
        tried = {n.op_type for between, _ in IMAGES.values() for n in between}
        elsewhere = {"Flatten", "Gemm", "LayerNormalization", "MatMul", "RMSNormalization"}
        assert set(_VISIT) - tried == elsewhere

    @pytest.mark.parametrize(
        ("between", "held"),
        [
            ([node("Sigmoid", "a")], {}),
            ([node("Clip", "a low high")], {"low": np.float32(0), "high": np.float32(6)}),
            ([node("Sigmoid", "a", "s"), node("Mul", "a s")], {}),
            (
                [node("Pad", "a pads one")],
                {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1), "one": np.float32(1)},
            ),
        ],
    )
    def test_what_does_not_pass_holds(self, between: Nodes, held: Any) -> None:
        IMAGES["held"] = (between, {name: np.asarray(array) for name, array in held.items()})
        try:
            model, split = images("held")
        finally:
            del IMAGES["held"]
        made, region = move(model, split, "b", 1, 0)
        assert region.size == 0
        assert between[-1].name in region.obstacles[0]
        np.testing.assert_array_equal(outputs(model, split), outputs(made, split))


def attention(heads: int = 2, width: int = 8) -> tuple[Model, Split]:
    """Packed projection, split into heads, mixed and projected again."""
    held: Held = {
        "qkv": normal(RNG, width, 3 * width),
        "bias": RNG.normal(size=3 * width).astype("f4"),
        "out": normal(RNG, width, width),
        "apart": ints(0, 0, heads, width // heads),
        "joined": ints(0, 0, width),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "qkv"], ["p"], "project"),
        helper.make_node("Add", ["p", "bias"], ["pb"], "bias"),
        helper.make_node("Split", ["pb"], ["q", "k", "v"], "parts", axis=2, num_outputs=3),
    ]
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes.append(helper.make_node("Reshape", [name, "apart"], [f"{name}s"], f"{name}s"))
        nodes.append(
            helper.make_node("Transpose", [f"{name}s"], [f"{name}h"], f"{name}h", perm=order)
        )
    nodes += [
        helper.make_node("MatMul", ["qh", "kh"], ["m"], "match"),
        helper.make_node("Softmax", ["m"], ["s"], "softmax"),
        helper.make_node("MatMul", ["s", "vh"], ["o"], "mix"),
        helper.make_node("Transpose", ["o"], ["ot"], "back", perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["ot", "joined"], ["j"], "join"),
        helper.make_node("MatMul", ["j", "out"], ["y"], "out"),
    ]
    size = ["batch", 5, width]
    model = model_of(nodes, held, ("x", TensorProto.FLOAT, size), ("y", size))
    return model, Split({"x": RNG.normal(size=(6, 5, width)).astype(np.float32)})


def normed(operator: str) -> Callable[[], tuple[Model, Split]]:
    def make() -> tuple[Model, Split]:
        held = {"g": RNG.normal(size=8).astype("f4"), "s": RNG.normal(size=8).astype("f4")}
        held |= {"w": normal(RNG, 3, 8)}
        given = ["x", "g", "s"] if operator == "LayerNormalization" else ["x", "g"]
        nodes = [
            helper.make_node(operator, given, ["n"], "norm"),
            helper.make_node("Flatten", ["n"], ["f"], "flatten"),
            helper.make_node("Gemm", ["f", "w"], ["y"], "out", transB=1, alpha=0.5),
        ]
        opset = 20 if operator == "LayerNormalization" else 23
        given_x = ("x", TensorProto.FLOAT, ["batch", 8])
        model = model_of(
            nodes,
            {name: held[name] for name in [*given[1:], "w"]},
            given_x,
            ("y", ["batch", 3]),
            opset=opset,
        )
        return model, Split({"x": RNG.normal(size=(6, 8)).astype(np.float32)})

    return make


def looked_up() -> tuple[Model, Split]:
    held = {"table": normal(RNG, 9, 8), "w": normal(RNG, 8, 3)}
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"], "embed"),
        helper.make_node("Relu", ["e"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "out"),
    ]
    given_x = ("x", TensorProto.INT64, ["batch", 5])
    model = model_of(nodes, held, given_x, ("y", ["batch", 5, 3]))
    return model, Split({"x": RNG.integers(9, size=(6, 5))})


SEQUENCES: dict[str, tuple[Callable[[], tuple[Model, Split]], str, int, int, list[str]]] = {
    "values of attention": (attention, "j", 2, 8, ["project"]),
    "LayerNormalization": (normed("LayerNormalization"), "f", 1, 8, ["norm"]),
    "RMSNormalization": (normed("RMSNormalization"), "f", 1, 8, ["norm"]),
    "an embedding": (looked_up, "r", 2, 8, ["embed"]),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_in_sequences(name: str) -> None:
    make, value, axis, size, makers = SEQUENCES[name]
    model, split = make()
    made, region = move(model, split, value, axis, 3)
    assert region.size == size
    assert region.nodes("makes") == makers
    for batch in (1, 6):
        wanted, found = (outputs(each, split, batch) for each in (model, made))
        assert np.abs(wanted - found).max() <= 1e-5 * np.abs(wanted).max()
    changed = outputs(made, Split({"x": split.inputs["x"][::-1]}))
    assert changed.shape == outputs(model, split).shape


def test_queries_and_keys_hold() -> None:
    model, split = attention()
    _, region = move(model, split, "qh", 3, 0)
    assert not region.values["qh"].any()
    assert "match (MatMul)" in region.obstacles
