"""Pictures in a folder, as a user gives them: a run, what it says was dropped, and mistakes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lepton_compress.errors import EXIT_OK, EXIT_USER
from tests.conftest import Cli
from tests.contract.needed import write_idx, write_pictures

RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "pictures",
    "model": {"onnx": "model.onnx"},
    "data": {"images": {"path": "pictures"}},
    "preprocess": ["image"],
    "metrics": ["accuracy"],
    "measure": {"rounds": 5, "cap": "100 ms"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of two scores for pictures of 5x4, forty of them, and a recipe."""
    from onnx import TensorProto, helper, numpy_helper, save

    draw = np.random.default_rng(0)
    weights = draw.normal(size=(60, 2)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], "flatten"),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"], "scores"),
        ],
        "pictures",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 4, 5])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 20)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "model.onnx")
    write_pictures(tmp_path / "pictures")
    recipe(tmp_path)
    return tmp_path


def recipe(folder: Path, **changes: Any) -> None:
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **changes}, sort_keys=False))


def test_a_folder_of_pictures_is_run(folder: Path, cli: Cli) -> None:
    shutil.copy(folder / "pictures/label0/0.png", folder / "pictures/label0/copy.png")
    done = cli("run", "recipe.yaml", cwd=folder)
    assert done.returncode == EXIT_OK, done.stderr
    assert "1 sample that stands twice dropped (first: label0/copy.png" in done.stderr + done.stdout
    result = json.loads((folder / "runs/pictures/result.json").read_text())
    (score,) = result["scores"]
    assert len(score["outcomes"]) == 8
    (artifact,) = result["artifacts"]
    assert artifact["inputs"][0]["dtype"] == "uint8"


def test_data_may_lie_where_the_environment_says(
    folder: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("data")
    shutil.move(folder / "pictures", place / "pictures")
    done = cli("plan", "recipe.yaml", cwd=folder)
    assert done.returncode == EXIT_USER
    assert f"no such file or folder: {folder}/pictures; put it there, or set LEPTON_DATA" in (
        done.stderr
    )
    done = cli("plan", "recipe.yaml", cwd=folder, LEPTON_DATA=str(place))
    assert done.returncode == EXIT_OK, done.stderr


def damage(folder: Path) -> None:
    (folder / "pictures/label1/7.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")


def numbered(folder: Path) -> None:
    recipe(folder, data={"images": {"path": "pictures", "label": r"(?P<label>\d+)\.png"}})


def limited(folder: Path) -> None:
    given = {"path": "pictures", "label": r"(?P<label>\d+)\.png", "classes": 2}
    recipe(folder, data={"images": given})


def idx(folder: Path) -> None:
    write_idx(folder / "i.idx", np.zeros((40, 4, 5), np.uint8))
    write_idx(folder / "l.idx", np.zeros(39, np.uint8))
    recipe(folder, data={"idx": {"images": "i.idx", "labels": "l.idx", "shape": [4, 5, 1]}})


def other(folder: Path) -> None:
    np.savez(folder / "d.npz", x=np.zeros((4, 2)), y=np.zeros(4))
    given = {"path": "d.npz", "inputs": ["x"], "targets": "y", "sha256": "0" * 64}
    recipe(folder, data={"npz": given})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (damage, "label1/7.png: is no picture that can be read"),
        (numbered, "the model scores 2 classes (0 to 1); renumber the labels"),
        (
            limited,
            "pictures: only 2 of 40 samples are left: 38 samples out of range dropped (first: ",
        ),
        (idx, "i.idx: has 40 samples of 2 dimensions, and 39 labels; give the labels of these"),
        (other, "d.npz: has the SHA-256"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, cli: Cli, change: Callable[[Path], None], says: str
) -> None:
    change(folder)
    done = cli("run", "recipe.yaml", cwd=folder)
    assert done.returncode == EXIT_USER, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "runs").exists()
