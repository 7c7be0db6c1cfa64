"""How much of an artifact runs in integers, on files with and without quantise nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lepton_compress import graph
from lepton_compress.explain.coverage import counts
from tests.conftest import make_tiny


def test_a_float_file_runs_in_floats(tmp_path: Path) -> None:
    import onnx

    make_tiny(tmp_path)
    made = counts(tmp_path / "model.onnx", {"x": np.zeros((1, 8), np.float32)})
    assert made == {"nodes": 3, "integer_nodes": 0, "macs": 8 * 16 + 16 * 3, "integer_macs": 0}
    assert graph.macs_by_node(onnx.load(tmp_path / "model.onnx")) == [128, 0, 48]


def test_a_quantised_file_runs_in_integers(tiny_run: Path) -> None:
    from lepton_compress.report.folder import read_result

    found = {each.candidate: each for each in read_result(tiny_run / "runs" / "tiny").coverages}
    assert found["baseline"].integer_nodes == 0
    assert found["int8"].integer_macs == found["int8"].macs == 8 * 16 + 16 * 3
    assert found["int8"].nodes >= found["int8"].integer_nodes > 0
