"""What every preprocessing keeps to: its nodes compute what its Python original does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from lepton_compress import registry
from lepton_compress.artifacts import TensorSpec
from lepton_compress.preprocess.form import Preprocessing
from lepton_compress.preprocess.nodes import Nodes
from tests.preprocess.tokenizers import write_tokenizer

RAW: Mapping[str, tuple[tuple[int, ...], str]] = {
    "image": ((9, 12, 3), "uint8"),
    "audio": ((4000,), "int16"),
    "text": ((30,), "uint8"),
}
"""By plug-in: shape of one raw sample, and dtype."""
SETTINGS: Mapping[str, list[dict[str, Any]]] = {
    "image": [
        {},
        {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.1], "channels": "bgr"},
        {"size": [5, 7], "crop": 4},
        {"size": 20, "layout": "channels_last", "channels": "bgr", "std": [1.0, 2.0, 3.0]},
        {"crop": [4, 6], "layout": "channels_last", "mean": [0.5]},
    ],
    "text": [{"tokenizer": "tokenizer.json", "length": 8}],
    "audio": [
        {"rate": 8000},
        {"rate": 8000, "frame": "25 ms", "hop": "10 ms", "features": "mfcc", "layout": "image"},
        {"rate": 16000, "frame": "16 ms", "hop": "16 ms", "mels": 4, "low": 300, "high": 3000}
        | {"mean": [-3, -2, -1, 0], "std": [1, 2, 3, 4], "layout": "flat"},
    ],
}
"""By plug-in: parameters to try."""


def draw(name: str, samples: int) -> np.ndarray:
    """Raw samples over the whole range of their dtype."""
    shape, dtype = RAW[name]
    limits = np.iinfo(dtype)
    made: np.ndarray = np.random.default_rng(0).integers(
        limits.min, limits.max, (samples, *shape), dtype, endpoint=True
    )
    return made


def make(name: str, parameters: dict[str, Any], folder: Path) -> Preprocessing:
    write_tokenizer(folder / "tokenizer.json")
    plugin = registry.get("preprocessing", name)
    shape, dtype = RAW[name]
    spec = TensorSpec("raw", dtype, ("batch", *shape))
    made: Preprocessing = plugin.call(plugin.params.model_validate(parameters), spec, folder)
    return made


CASES = [(name, each) for name in registry.names("preprocessing") for each in SETTINGS[name]]


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_the_nodes_compute_what_the_original_does(
    name: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    made = make(name, parameters, tmp_path)
    if made.build is None:
        pytest.skip("is done on the host")
    given = {samples: draw(name, samples) for samples in (1, 3)}
    nodes = Nodes("raw")
    last = made.build(nodes, "raw")
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(made.raw.dtype))
    rank = [None] * made.apply(given[1]).ndim
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "preprocessing",
        [onnx.helper.make_tensor_value_info("raw", dtype, list(made.raw.shape))],
        [onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, rank)],
        nodes.constants,
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for raw in given.values():
        wanted = made.apply(raw)
        (found,) = session.run(None, {"raw": raw})
        assert found.shape == wanted.shape
        assert found.dtype == wanted.dtype == np.float32
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_it_tells_the_shape_of_its_input(
    name: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    made = make(name, parameters, tmp_path)
    assert made.raw.shape[0] == "batch"
    assert made.about["kind"] == name
