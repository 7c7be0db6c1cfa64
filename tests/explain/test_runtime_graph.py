"""The graph that the runtime writes, and its nodes found again in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lepton_compress.explain import runtime_graph
from lepton_compress.explain.wiring import Wiring
from tests.explain import planting
from tests.explain.planting import Array, Weights

Digits = dict[str, tuple[Array, Array]]


@pytest.fixture
def graph(trained: Weights) -> onnx.ModelProto:
    return planting.cnn_graph(trained)


def placed(model: onnx.ModelProto, folder: Path, level: str) -> dict[str, str]:
    """Node of the file to operator of the runtime."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    nodes = runtime_graph.optimised(path, level)
    found = runtime_graph.place(Wiring(model), nodes)
    return {name: "" if at is None else nodes[at].operator for name, at in found.items()}


@pytest.mark.parametrize("level", ["extended", "all"])
def test_integer_nodes_are_found_again(
    graph: onnx.ModelProto, digits: Digits, tmp_path: Path, level: str
) -> None:
    artifact = planting.quantised(graph, {"image": digits["calibration"][0]})
    found = placed(artifact, tmp_path, level)
    convolutions = [found[f"{each}/Conv"] for each in ("first", "deep", "point")]
    assert convolutions == ["QLinearConv"] * 3
    assert found["dense/Gemm"] == "QGemm"
    assert found["pooled/MaxPool"] in ("MaxPool", "NhwcMaxPool")


@pytest.mark.parametrize("level", ["basic", "extended", "all"])
def test_float_nodes_are_found_again(graph: onnx.ModelProto, tmp_path: Path, level: str) -> None:
    found = placed(graph, tmp_path, level)
    assert found["first/Conv"] in ("Conv", "FusedConv")
    assert found["dense/Gemm"] == "Gemm"
    # Where the Relu was fused, the node that does its work is the convolution's.
    assert found["first_active/Relu"] in ("Relu", "Conv", "FusedConv")
    assert "" not in found.values()


def test_a_node_folded_away_has_no_place(tmp_path: Path) -> None:
    nodes = [
        planting.node("Relu", ["one"], "active", "constant/Relu"),
        planting.node("Add", ["x", "active"], "y", "sum/Add"),
    ]
    held = {"one": np.ones(4, np.float32)}
    model = planting.model_of(nodes, held, inputs={"x": ["n", 4]}, output=("y", ["n", 4]))
    found = placed(model, tmp_path, "all")
    assert found["sum/Add"] == "Add"


def test_counted_by_operator(graph: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(graph, tmp_path / "model.onnx")
    counts = runtime_graph.counted(runtime_graph.optimised(tmp_path / "model.onnx", "basic"))
    assert counts["Conv"] == 3
    assert counts["Gemm"] == 1
