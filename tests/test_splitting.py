"""Cutting artifacts: what is told of the cuts, what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lepton_compress import splitting
from lepton_compress.artifacts import QUANTILES, Split
from lepton_compress.errors import InputError
from lepton_compress.halving import halves
from lepton_compress.predict import manual
from lepton_compress.preprocess.form import METADATA
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.silent import Silent
from lepton_compress.targets import frames
from lepton_compress.targets.onnxruntime_cpu import onnxruntime_cpu
from tests.onnx_models import network

PICTURES = Split({"x": np.random.default_rng(0).normal(size=(9, 8, 8, 8)).astype(np.float32)})
ABOUT = {"version": 1, "inputs": {"x": {"kind": "image"}}, "outputs": {"y": {"labels": ["a"]}}}


def told(path: Path, **metadata: Any) -> Path:
    """The file with entries in its metadata."""
    model = onnx.load(path)
    for key, value in metadata.items():
        model.metadata_props.add(key=key.replace("__", "."), value=json.dumps(value))
    onnx.save(model, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return network(tmp_path / "model.onnx")


def cuts(path: Path, **more: Any) -> Any:
    return splitting.cuts(path, PICTURES, observer=Silent(), **{"cap": 0.1, **more})


def test_cuts_are_told_with_what_crosses_and_both_sides(path: Path) -> None:
    found = cuts(path)
    assert (found.input_bytes, found.output_bytes) == (8 * 8 * 8 * 4, 4 * 4)
    names = [cut.name for cut in found.cuts]
    assert names == ["net.relu", "net.pool"]  # what is behind is no smaller
    pool = found.cuts[1]
    assert pool.bytes == 8 * 4 * 4 * 4
    assert pool.crossing[0].shape == (1, 8, 4, 4)
    assert pool.features
    assert pool.edge_macs == 8 * 8 * 8 * 8 * 9
    assert pool.cloud_macs == 128 * 4
    assert pool.provenance == "measured"
    assert len(pool.edge_quantiles) == len(pool.cloud_quantiles) == len(QUANTILES)
    assert pool.difference is not None
    assert pool.difference < 1e-5


def test_estimates_share_out_the_whole(path: Path) -> None:
    found = cuts(path, measured=0)
    for cut in found.cuts:
        assert cut.provenance == "estimated"
        assert cut.difference is None
        assert cut.edge_seconds + cut.cloud_seconds == pytest.approx(found.edge_whole)
    assert found.cuts[0].edge_seconds <= found.cuts[1].edge_seconds


def test_a_layer_is_cut_behind_by_its_own_name(path: Path, tmp_path: Path) -> None:
    made = halves(path, "net.pool", PICTURES, tmp_path / "halves")
    assert made.crossing == ("p",)
    assert made.samples == 9
    assert sorted(each.name for each in (tmp_path / "halves").iterdir()) == [
        "cloud.onnx",
        "edge.onnx",
        "split.json",
    ]
    assert json.loads((tmp_path / "halves" / "split.json").read_text())["cut"]["name"] == "net.pool"


def test_each_half_knows_its_part_of_the_manual(path: Path, tmp_path: Path) -> None:
    halves(told(path, **{METADATA: ABOUT}), "net.pool", PICTURES, tmp_path)
    edge, cloud = (manual.read(tmp_path / name) for name in ("edge.onnx", "cloud.onnx"))
    assert (edge.inputs, edge.outputs) == (ABOUT["inputs"], {})
    assert (cloud.inputs, cloud.outputs) == ({}, ABOUT["outputs"])


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    path = network(tmp_path / "fixed.onnx", sizes=(1, 8, 8, 8))
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    found = cuts(path, measured=1)
    assert not any(cut.stacks for cut in found.cuts)
    made = halves(path, "net.pool", PICTURES, tmp_path)
    assert onnxruntime_cpu(tmp_path / made.cloud, 1).inputs[0].shape == (1, 8, 4, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": Split({"a": np.zeros(2), "b": np.zeros(2)})}, "data: the data has the inputs"),
        ({"path": "none.onnx"}, "none.onnx: no such file"),
        ({"path": "model.tflite"}, "only ONNX graphs are cut"),
        ({"edge": TargetSpec(name="npu", runtime="litert-cpu")}, "target npu: litert-cpu runs no"),
    ],
)
def test_what_cannot_be_cut_says_why(path: Path, change: dict[str, Any], said: str) -> None:
    given = {"path": path, "samples": PICTURES, **change}
    artifact, samples = Path(given.pop("path")), given.pop("samples")
    with pytest.raises(InputError, match=said):
        splitting.cuts(artifact, samples, observer=Silent(), **given)


def test_a_step_model_is_not_cut(path: Path) -> None:
    told(path, **{frames.METADATA.replace(".", "__"): {"version": 1}})
    with pytest.raises(InputError, match="is a step model"):
        cuts(path)


def test_halves_that_compute_something_else_are_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton_compress.place import cutting

    write = cutting.write

    def spoilt(model: onnx.ModelProto, source: Path | None, target: Path) -> int:
        for tensor in model.graph.initializer:
            if tensor.name == "v":
                array = onnx.numpy_helper.to_array(tensor) * np.float32(1.02)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, "v"))
        return write(model, source, target)

    monkeypatch.setattr(cutting, "write", spoilt)
    with pytest.raises(InputError, match=r"the halves differ from the whole by 0\.0(19|2)"):
        halves(path, "net.pool", PICTURES, tmp_path / "halves")
