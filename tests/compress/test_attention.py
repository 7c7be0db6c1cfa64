"""ONNX's Attention operator, taken apart before static int8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.attention import take_apart
from tests.compress.nets import apply, cnn, decibels, model_of, normal, outputs, transformer

HEADS, WIDTH, STEPS = 2, 16, 6


def attending(opset: int = 23, *, mask: str = "", **given: Any) -> tuple[Model, Split]:
    """Three projections, Attention on (batch, steps, heads * width), and one behind it."""
    rng = np.random.default_rng(0)
    held = {f"w{name}": normal(rng, WIDTH, WIDTH) for name in "qkvo"}
    nodes = [helper.make_node("MatMul", ["x", f"w{name}"], [name], name) for name in "qkv"]
    inputs = ["q", "k", "v"]
    if mask == "float":
        held["mask"] = rng.normal(size=(STEPS, STEPS)).astype(np.float32)
    if mask == "bool":
        held["mask"] = np.tril(np.ones((STEPS, STEPS), bool))
    heads: dict[str, Any] = {"q_num_heads": HEADS, "kv_num_heads": HEADS}
    nodes += [
        helper.make_node(
            "Attention", inputs + ["mask"] * bool(mask), ["a"], "attend", **heads, **given
        ),
        helper.make_node("MatMul", ["a", "wo"], ["y"], "out"),
    ]
    size = ["batch", STEPS, WIDTH]
    model = model_of(nodes, held, ("x", TensorProto.FLOAT, size), ("y", size), opset=opset)
    model.value.ir_version = 11
    return model, Split({"x": rng.normal(size=(32, STEPS, WIDTH)).astype(np.float32)})


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "float mask": {"mask": "float"},
    "bool mask": {"mask": "bool"},
    "causal": {"is_causal": 1},
    "scaled": {"scale": 0.1},
    "opset 24": {"opset": 24},
}


@pytest.mark.parametrize("kind", KINDS)
def test_its_products_run_in_integers(kind: str) -> None:
    model, split = attending(**KINDS[kind])
    made = apply("quantize", model, split, saturating=False)
    assert "attention taken apart into its products: attend" in made.notes
    weighted = made.statistics["weighted"]
    assert weighted["float"] == {}
    assert sorted(weighted["integer"]) == [
        "attention/MatMul_1",
        "attention/MatMul_2",
        "k",
        "out",
        "q",
        "v",
    ]
    noise = decibels(outputs(model, split), outputs(made.model, split))
    assert noise > 25
    assert made.statistics["output_sqnr_db"] == pytest.approx(noise, abs=0.01)
    assert not any("never varies" in note for note in made.notes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 5])
def test_the_parts_compute_what_the_whole_does(kind: str, batch: int) -> None:
    model, split = attending(**KINDS[kind])
    made, notes = take_apart(model, split, ())
    assert notes
    assert made.inputs == model.inputs
    assert "Attention" not in {node.op_type for node in made.value.graph.node}
    names = [node.name for node in made.value.graph.node]
    assert all(names)
    assert len(names) == len(set(names))
    wanted, found = outputs(model, split, batch), outputs(made, split, batch)
    assert np.abs(wanted - found).max() <= 1e-6 * np.abs(wanted).max()


def test_named_in_keep_it_stays_whole() -> None:
    model, split = attending()
    made = apply("quantize", model, split, keep=["attend"])
    assert made.statistics["weighted"]["float"] == {"attend": "named in `keep`"}
    assert "attention is left whole, for `keep` names attend" in made.notes


@pytest.mark.parametrize("value", [-np.inf, np.finfo(np.float32).min])
def test_a_mask_does_not_spoil_the_ranges(value: float) -> None:
    model, split = transformer(fused=False)
    mask = np.where(np.tril(np.ones((6, 6))), 0, value).astype(np.float32)
    graph = model.value.graph
    graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    softmax = next(index for index, node in enumerate(graph.node) if node.op_type == "Softmax")
    graph.node[softmax].input[0] = "am"
    graph.node.insert(softmax, helper.make_node("Add", ["as", "mask"], ["am"], "masking"))
    made = apply("quantize", model, split, saturating=False)
    assert made.statistics["weighted"]["float"] == {}
    assert {"match", "mix"} <= set(made.statistics["weighted"]["integer"])
    assert made.statistics["output_sqnr_db"] > 25
    why = "it takes or gives a mask, with values beyond 1e+30"
    assert f"left in float: masking, softmax ({why})" in made.notes
    assert not {"am", "mask"} & set(made.statistics["ranges"])


def test_a_graph_without_it_is_left_alone() -> None:
    model, split = cnn()
    made, notes = take_apart(model, split, ())
    assert made is model
    assert notes == ()
