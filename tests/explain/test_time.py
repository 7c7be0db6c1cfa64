"""Time by kernel, from the runtime's own profiler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lepton_compress.explain import time
from lepton_compress.targets.onnxruntime_session import faster_half
from tests.explain import planting
from tests.explain.planting import Array, Weights


def test_kernels_are_those_of_the_graph_that_runs(
    trained: Weights, digits: dict[str, tuple[Array, Array]], tmp_path: Path
) -> None:
    graph = planting.cnn_graph(trained)
    artifact = planting.quantised(graph, {"image": digits["calibration"][0]})
    onnx.save(artifact, tmp_path / "a.onnx")
    profiled = time.profile(tmp_path / "a.onnx", {"image": digits["evaluation"][0][:1]})
    names = {node.name for node in profiled.nodes}
    assert {kernel.name for kernel in profiled.kernels} <= names
    kinds = {kernel.operator: (kernel.takes, kernel.gives) for kernel in profiled.kernels}
    assert kinds["QLinearConv"] == ("uint8", "uint8")
    assert kinds["QuantizeLinear"] == ("float32", "uint8")
    assert all(0 < kernel.seconds < 1 for kernel in profiled.kernels)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.onnx"]


def test_floor_is_short() -> None:
    assert 0 < time.floor() < 1e-3


def test_the_larger_of_two_files_takes_longer(tmp_path: Path) -> None:
    feeds = {"x": np.ones((1, 512), np.float32)}
    paths = []
    for width in (8, 8192):
        weight = np.ones((512, width), np.float32)
        nodes = [planting.node("MatMul", ["x", "w"], "y")]
        shape = ("y", ["n", width])
        model = planting.model_of(nodes, {"w": weight}, inputs={"x": ["n", 512]}, output=shape)
        paths.append(tmp_path / f"{width}.onnx")
        onnx.save(model, paths[-1])
    small, large = time.latencies(paths, [feeds, feeds])
    assert small < large


def test_the_slower_half_does_not_count() -> None:
    assert faster_half([1.0, 9.0, 2.0, 50.0]) == pytest.approx([1.0, 2.0])
