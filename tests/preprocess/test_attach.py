"""A graph with something around it takes raw samples, answers, and says how it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Dataset, Model, Split
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.load import forms
from lepton_compress.preprocess.around import Around, bind
from lepton_compress.preprocess.attach import attach
from lepton_compress.preprocess.form import METADATA
from lepton_compress.preprocess.surrounded import ORIGINAL, verify
from lepton_compress.recipe import Source, from_values


def source(**given: Any) -> Source:
    values = {
        "version": 1,
        "name": "test",
        "model": {"onnx": "model.onnx"},
        "data": {"npz": {"path": "data.npz", "inputs": ["x"]}},
        "metrics": ["accuracy"],
    }
    return from_values(values | given, Path())


def pictures(samples: int, seed: int) -> Split:
    draw = np.random.default_rng(seed)
    raw = draw.integers(0, 256, (samples, 6, 6, 3), np.uint8)
    return Split({"x": raw}, draw.integers(0, 4, samples))


DATA = Dataset(pictures(8, 1), pictures(8, 2), pictures(8, 3), "data")


def network(opset: int = 20) -> Model:
    """Takes `picture`, gives `scores`: a pooling and a product, with a branch that names the
    input inside a subgraph."""
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    empty = helper.make_graph(
        [helper.make_node("Identity", ["picture"], ["same"])],
        "branch",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("If", ["always"], ["seen"], then_branch=empty, else_branch=empty),
        helper.make_node("GlobalAveragePool", ["seen"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["batch", 3, 6, 6])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array(True), "always"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return Model("graph", made, *forms.signature(made))


FULL = {
    "preprocess": [{"image": {"mean": [0.4, 0.5, 0.6], "std": [0.2]}}],
    "postprocess": [{"classes": {"labels": ["a", "b", "c", "d"], "decide": True}}],
}


def answer(model: Model, raw: np.ndarray) -> dict[str, np.ndarray]:
    return forms.call(model, {"picture": raw})


def test_it_answers_to_raw_samples_as_the_originals_do() -> None:
    around, model = bind(source(**FULL), DATA), network()
    whole = attach(model, around)
    onnx.checker.check_model(whole.value)
    raw = DATA.evaluation.inputs["x"]
    prepared = around.prepared(DATA).evaluation.inputs["x"]
    wanted = around.finish(answer(model, prepared))
    found = answer(whole, raw)
    assert list(found) == ["scores", "scores_class"] == list(wanted)
    np.testing.assert_allclose(found["scores"], wanted["scores"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["scores"].sum(axis=1), 1, rtol=1e-5)
    assert (found["scores_class"] == wanted["scores_class"]).all()


def test_the_given_graph_stays_as_it_was() -> None:
    model = network()
    before = forms.fingerprint(model)
    attach(model, bind(source(**FULL), DATA))
    assert forms.fingerprint(model) == before


def test_what_does_nothing_to_an_output_leaves_it() -> None:
    given = {"postprocess": [{"classes": {"activation": "none", "decide": True}}]}
    around, model = bind(source(**given), DATA), network()
    raw = np.ones((2, 3, 6, 6), np.float32)
    found = answer(attach(model, around), raw)
    np.testing.assert_array_equal(found["scores"], answer(model, raw)["scores"])
    assert found["scores_class"].tolist() == found["scores"].argmax(1).tolist()


def test_it_says_how_it_is_used() -> None:
    whole = attach(network(), bind(source(**FULL), DATA))
    (held,) = [each.value for each in whole.value.metadata_props if each.key == METADATA]
    about = json.loads(held)
    assert about["inputs"]["picture"]["kind"] == "image"
    assert about["outputs"]["scores"]["labels"] == ["a", "b", "c", "d"]


def test_too_old_an_operator_set_is_refused() -> None:
    with pytest.raises(InputError, match="operator set 13"):
        attach(network(opset=13), bind(source(**FULL), DATA))


class TestVerify:
    def both(self, around: Around, model: Model, file: Path) -> list[tuple[str, bool]]:
        found = verify(
            file,
            model,
            around,
            around.given(DATA).evaluation,
            around.prepared(DATA).evaluation,
            candidate="c",
            format="onnx",
        )
        return [(each.against, each.holds) for each in found]

    def test_a_sound_artifact_holds(self, tmp_path: Path) -> None:
        around, model = bind(source(**FULL), DATA), network()
        onnx.save(attach(model, around).value, tmp_path / "a.onnx")
        found = self.both(around, model, tmp_path / "a.onnx")
        assert found == [(ORIGINAL, True), ("graph", True)] * 2

    @pytest.mark.parametrize(
        ("constant", "against"), [("preprocess/constant_1", ORIGINAL), ("weights", "graph")]
    )
    def test_a_planted_fault_is_found_where_it_is(
        self, tmp_path: Path, constant: str, against: str
    ) -> None:
        around, model = bind(source(**FULL), DATA), network()
        graph = attach(model, around).value
        tensor = next(each for each in graph.graph.initializer if each.name.endswith(constant))
        values = numpy_helper.to_array(tensor) * np.float32(1.01)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(graph, tmp_path / "a.onnx")
        found = self.both(around, model, tmp_path / "a.onnx")
        assert {name for name, holds in found if not holds} == {against}


class TestBind:
    def test_nothing_around_is_nothing(self) -> None:
        around = bind(source(), DATA)
        assert not around
        assert around.prepared(DATA) is DATA
        assert around.mark == ""

    def test_the_mark_changes_with_what_is_computed(self) -> None:
        one = bind(source(**FULL), DATA)
        other = bind(source(**FULL | {"preprocess": [{"image": {"scale": 0.5}}]}), DATA)
        assert one.mark != other.mark
        assert one.prepared(DATA).fingerprint != other.prepared(DATA).fingerprint != "data"

    @pytest.mark.parametrize(
        ("given", "where", "said"),
        [
            ({"preprocess": [{"image": {"input": "y"}}]}, "preprocess", "no input 'y'"),
            ({"preprocess": ["image", "image"]}, r"preprocess\[1\]", "second"),
            ({"preprocess": [{"image": {"crop": 9}}]}, "preprocess", "larger"),
            ({"postprocess": [{"classes": {"labels": "none.txt"}}]}, "postprocess", "no such file"),
        ],
    )
    def test_what_does_not_fit_the_data_names_its_key(
        self, given: dict[str, Any], where: str, said: str
    ) -> None:
        with pytest.raises((RecipeError, InputError), match=said) as caught:
            bind(source(**given), DATA)
        assert where.split("\\")[0] in caught.value.where

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ([{"classes": {"output": "score"}}], "no output 'score'"),
            (["classes", "classes"], "second"),
            ([{"classes": {"labels": ["a"]}}], "1 labels for 4 classes"),
        ],
    )
    def test_what_does_not_fit_the_outputs_names_its_key(self, given: list[Any], said: str) -> None:
        around = bind(source(postprocess=given), DATA)
        with pytest.raises(RecipeError, match=said) as caught:
            around.finish({"scores": np.zeros((2, 4), np.float32)})
        assert "postprocess" in caught.value.where
