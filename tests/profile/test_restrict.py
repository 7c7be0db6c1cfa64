"""What a target's file takes away: operators, and element types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lepton_compress.artifacts import Fallback, Fit
from lepton_compress.profile.restrict import restricted
from lepton_compress.targets.flatbuffer import Operator

HELD = [
    Operator("QUANTIZE", "q", edge=True, dtype="int8"),
    Operator("CONV_2D", "c", layer="net.conv", dtype="int8"),
    Operator("ARG_MAX", "a", dtype="int32"),
    Operator("SOFTMAX", "s", dtype="float32"),
]
FIT = Fit("tool 1", seconds=1e-3, ram=10, flash=20, operators=4)


def made(fit: Fit = FIT, **given: Any) -> Fit:
    return restricted(fit, HELD, **{"operators": (), "dtypes": (), "alone": False, **given})


def test_without_a_word_nothing_changes() -> None:
    assert made() is FIT
    assert made(operators=["QUANTIZE", "CONV_2D", "ARG_MAX", "SOFTMAX"]) is FIT


def test_an_operator_that_is_not_listed_falls_back_and_leaves_no_time() -> None:
    fit = made(operators=["QUANTIZE", "CONV_2D", "SOFTMAX"])
    (found,) = fit.fallbacks
    assert (found.operator, found.name) == ("ARG_MAX", "a")
    assert found.reason == "it is not among the operators of the target's file"
    assert (fit.seconds, fit.ram, fit.problem) == (None, 10, "")


def test_a_type_that_is_not_listed_too_but_for_indices() -> None:
    fit = made(dtypes=["int8"])
    (found,) = fit.fallbacks
    assert (found.operator, found.name) == ("SOFTMAX", "s")
    assert found.reason == "it gives float32, and the target computes in int8"
    assert found.remedy.startswith("quantise it as the rest is")


def test_what_the_runtime_told_is_not_told_twice() -> None:
    known = Fallback("SOFTMAX", "s", "in its own words")
    fit = Fit("tool 1", operators=4, fallbacks=(known,))
    assert made(fit, dtypes=["int8"]) is fit


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"dtypes": ["int8"], "alone": True}, "SOFTMAX at 's' does not run there (it gives float"),
        ({"operators": ["ADD"]}, "QUANTIZE at 'q' does not run there (it is not among the operat"),
        ({"operators": ["ADD"], "alone": True}, "), and 3 more like that"),
    ],
)
def test_where_nothing_takes_it_the_artifact_does_not_fit(given: Any, says: str) -> None:
    fit = made(**given)
    assert says in fit.problem
    assert fit.seconds is None


def test_what_does_not_fit_keeps_its_own_reason() -> None:
    fit = Fit("tool 1", operators=4, problem="too large")
    assert made(fit, dtypes=["int8"], alone=True) is fit


class TestListing:
    def test_of_a_litert_file(self, tmp_path: Path) -> None:
        pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")
        from lepton_compress.targets.listing import operators
        from tests import litert_models

        held = operators(litert_models.network(tmp_path / "net.tflite"))
        assert {each.dtype for each in held} == {"int8"}
        assert "CONV_2D" in {each.type for each in held}

    def test_of_a_graph_whose_outputs_are_rounded(self, tmp_path: Path) -> None:
        import onnx
        from onnx import helper

        from lepton_compress.targets.listing import operators

        nodes = [
            helper.make_node("DequantizeLinear", ["x", "scale"], ["real"], "before"),
            helper.make_node("Neg", ["real"], ["down"], "turn"),
            helper.make_node("Relu", ["down"], ["half"], "cut"),
            helper.make_node("QuantizeLinear", ["half", "scale", "zero"], ["y"], "after"),
            helper.make_node("Exp", ["real"], ["z"], "grow"),
        ]
        value = helper.make_tensor_value_info
        held = [helper.make_tensor("scale", 1, [], [0.5]), helper.make_tensor("zero", 3, [], [0])]
        outputs = [value("y", 3, [2]), value("z", 1, [2])]
        graph = helper.make_graph(nodes, "net", [value("x", 3, [2])], outputs, held)
        onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
        assert [
            (each.type, each.place, each.dtype) for each in operators(tmp_path / "net.onnx")
        ] == [
            ("Neg", "turn", "int8"),
            ("Relu", "cut", "int8"),
            ("Exp", "grow", "float32"),
        ]
