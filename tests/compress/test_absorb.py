"""Dividing a value in the constants of what makes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.absorb import Site, Wiring
from tests.compress.nets import apply, decibels, model_of, normal, outputs

WIDTH = 32


def fed_by(*makers: onnx.NodeProto, extra: tuple[onnx.NodeProto, ...] = ()) -> Model:
    """x, what makes `v`, and a product of `v`."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {
        "gain": rng.uniform(0.5, 2, WIDTH).astype(np.float32),
        "shift": rng.normal(size=WIDTH).astype(np.float32),
        "inner": normal(rng, WIDTH, WIDTH),
        "w": normal(rng, WIDTH, WIDTH),
    }
    node = helper.make_node("MatMul", ["v", "w"], ["y" if not extra else "p"], "layer")
    used = {name for each in (*makers, node, *extra) for name in each.input}
    held = {name: array for name, array in weights.items() if name in used}
    size = ["batch", WIDTH]
    return model_of([*makers, node, *extra], held, ("x", TensorProto.FLOAT, size), ("y", size))


def make(operator: str, given: list[str], made: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, given, [made], f"{operator}_{made}", **attributes)


MAKERS = {
    "norm": [make("LayerNormalization", ["x", "gain", "shift"], "v")],
    "norm without shift": [make("LayerNormalization", ["x", "gain"], "v")],
    "product": [make("MatMul", ["x", "inner"], "v")],
    "gemm": [make("Gemm", ["x", "inner", "shift"], "v", transB=1)],
    "bias": [make("MatMul", ["x", "inner"], "m"), make("Add", ["m", "shift"], "v")],
    "bias first": [make("MatMul", ["x", "inner"], "m"), make("Add", ["shift", "m"], "v")],
    "relu": [make("Gemm", ["x", "inner", "shift"], "m", transB=1), make("Relu", ["m"], "v")],
    "scaled": [make("Tanh", ["x"], "m"), make("Mul", ["m", "gain"], "v")],
}
NOWHERE = {
    "gelu": [make("MatMul", ["x", "inner"], "m"), make("Sigmoid", ["m"], "v")],
    "bias of a bend": [make("Tanh", ["x"], "m"), make("Add", ["m", "shift"], "v")],
}


def data() -> Split:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, WIDTH)) * np.geomspace(0.05, 20, WIDTH)
    return Split({"x": x.astype(np.float32)})


@pytest.mark.parametrize("makers", MAKERS.values(), ids=MAKERS)
def test_awq_costs_no_node_where_its_scales_are_absorbed(makers: list[onnx.NodeProto]) -> None:
    model = fed_by(*makers)
    given = {"algorithm": "awq", "compute": "float32", "bits": 8, "keep": []}
    made = apply("quantize_weights", model, data(), **given)
    assert "v" in made.statistics["absorbed_scales"]
    assert made.statistics["multiplied_scales"] in ([], ["x"])
    types = [node.op_type for node in made.model.value.graph.node]
    assert types.count("Mul") == sum(node.op_type == "Mul" for node in makers) + len(
        made.statistics["multiplied_scales"]
    )
    # An error in one place of many would leave a few decibels.
    assert decibels(outputs(model, data()), outputs(made.model, data())) > 35


@pytest.mark.parametrize("makers", NOWHERE.values(), ids=NOWHERE)
def test_else_a_mul_does_it_and_is_told(makers: list[onnx.NodeProto]) -> None:
    model = fed_by(*makers)
    given = {"algorithm": "awq", "compute": "float32", "bits": 8}
    made = apply("quantize_weights", model, data(), **given)
    assert "v" in made.statistics["multiplied_scales"]
    assert any("multiplications for each row" in note for note in made.notes)
    assert decibels(outputs(model, data()), outputs(made.model, data())) > 35


def test_another_taker_forbids_it() -> None:
    model = fed_by(*MAKERS["norm"], extra=(make("Add", ["p", "v"], "y"),))
    assert Wiring(model.value.graph).sites("v", {"layer"}) is None


def test_where_the_constants_stand() -> None:
    wiring = Wiring(fed_by(*MAKERS["relu"]).value.graph)
    assert wiring.sites("v", {"layer"}) == (Site("Gemm_m", 1, 0), Site("Gemm_m", 2, 0))
    assert wiring.sites("x", {"Gemm_m"}) is None
