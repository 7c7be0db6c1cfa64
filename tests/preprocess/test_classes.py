"""Probabilities, labels and thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy.special import softmax

from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.preprocess.classes import UNSURE, Classes, classes
from lepton_compress.preprocess.form import Postprocessing
from lepton_compress.preprocess.nodes import Nodes


def made(shape: tuple[Any, ...] = (4,), folder: Path = Path(), **given: Any) -> Postprocessing:
    return classes(Classes(**given), TensorSpec("s", "float32", ("batch", *shape)), folder)


CASES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((4,), {}),
    ((4,), {"decide": True}),
    ((4,), {"decide": True, "threshold": 0.6}),
    ((4,), {"activation": "none", "decide": True, "threshold": 0.6}),
    ((1,), {"activation": "sigmoid", "decide": True}),
    ((1,), {"activation": "sigmoid", "decide": True, "threshold": 0.8}),
    ((), {"activation": "sigmoid", "decide": True}),
    ((4,), {"activation": "sigmoid"}),
]


@pytest.mark.parametrize(("shape", "given"), CASES)
@pytest.mark.parametrize("samples", [1, 5])
def test_the_nodes_compute_what_the_original_does(
    shape: tuple[int, ...], given: dict[str, Any], samples: int
) -> None:
    about = made(shape, **given)
    nodes = Nodes("post")
    names = about.build(nodes, "raw")
    scores = np.random.default_rng(1).normal(0, 2, (samples, *shape)).astype(np.float32)
    wanted = about.apply(scores)
    types = {np.dtype("float32"): onnx.TensorProto.FLOAT, np.dtype("int64"): onnx.TensorProto.INT64}
    graph = onnx.helper.make_graph(
        [*nodes.nodes, onnx.helper.make_node("Identity", ["raw"], ["unused"])],
        "postprocessing",
        [onnx.helper.make_tensor_value_info("raw", onnx.TensorProto.FLOAT, ["batch", *shape])],
        [
            onnx.helper.make_tensor_value_info(names[key], types[array.dtype], None)
            for key, array in wanted.items()
            if names[key] != "raw"
        ],
        nodes.constants,
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = dict(
        zip(
            [key for key in wanted if names[key] != "raw"],
            session.run(None, {"raw": scores}),
            strict=True,
        )
    )
    for key, array in found.items():
        assert array.dtype == wanted[key].dtype
        np.testing.assert_allclose(array, wanted[key], rtol=1e-5, atol=1e-7)


def test_softmax_and_the_likeliest() -> None:
    scores = np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 0.1]], np.float32)
    found = made((3,), decide=True, threshold=0.5).apply(scores)
    assert list(found) == ["s", "s_class"]
    np.testing.assert_allclose(found["s"], softmax(scores, axis=1), rtol=1e-6)
    assert found["s_class"].tolist() == [1, UNSURE]


def test_labels_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n fish \nbird\n\n")
    about = made(folder=tmp_path, labels="labels.txt").about
    assert about["labels"] == ["cat", "dog", "fish", "bird"]
    assert Classes(labels="labels.txt").files() == ("labels.txt",)


@pytest.mark.parametrize(
    ("shape", "given", "said"),
    [
        ((4,), {"labels": ["a", "b"]}, "2 labels for 4 classes"),
        ((1,), {"labels": ["a"], "activation": "none"}, "1 labels for 2 classes"),
        ((4,), {"labels": ["a", "b", "a", "c"]}, "'a' stands twice"),
        ((4,), {"labels": "missing.txt"}, "no such file"),
        ((1,), {}, "softmax is always 1"),
        ((4, 4), {}, "not one score a class"),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[int, ...], given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        made(shape, tmp_path, **given)
