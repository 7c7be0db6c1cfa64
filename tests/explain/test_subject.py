"""What an ARTIFACT on the command line means, and its float counterpart in a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lepton_compress.accounts import Explanation
from lepton_compress.artifacts import RunResult
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.explain import subject
from lepton_compress.report import folder
from lepton_compress.report.silent import Silent


def explain(artifact: str, **given: Path | None) -> Explanation:
    options: dict[str, Path | None] = {"against": None, "recipe_path": None, "data": None}
    options |= {"calibration": None, **given}
    return subject.explain(artifact, samples=8, extensions=None, observer=Silent(), **options)


@pytest.fixture
def run(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_run)
    return Path("runs/tiny")


@pytest.mark.parametrize("form", ["runs/tiny:int8", "runs/tiny/artifacts/int8.onnx"])
def test_a_candidate_of_a_run_brings_reference_and_data(run: Path, form: str) -> None:
    found = explain(form).account
    assert found.reference == "runs/tiny/artifacts/baseline.onnx"
    assert found.exact
    assert found.samples == 8
    assert found.calibration_samples == 20
    assert found.notes == ()


def test_the_copy_of_the_recipe_serves_when_the_file_has_changed(run: Path) -> None:
    recipe = Path("recipe.yaml")
    text = recipe.read_text()
    try:
        recipe.write_text(text.replace("name: tiny", "name: other"))
        kept = folder.kept_recipe(folder.read_result(run))
        assert kept is not None
        assert kept.recipe.name == "tiny"
        assert kept.folder == Path.cwd()
        recipe.unlink()
        assert explain("runs/tiny:int8").account.samples == 8
    finally:
        recipe.write_text(text)


@pytest.mark.parametrize(
    ("artifact", "said"),
    [
        ("runs/tiny", "name a candidate: runs/tiny:baseline"),
        ("runs/tiny:in8", "did you mean 'int8'"),
        ("absent.onnx", "no such file"),
        ("model.onnx", "give --recipe recipe.yaml or --data data.npz"),
        ("data.npz", "not a valid ONNX model"),
    ],
)
def test_bad_subjects(run: Path, artifact: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        explain(artifact)


def test_a_model_too_large_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_LARGEST", 100)
    with pytest.raises(InputError, match="too large to be measured"):
        explain("runs/tiny:int8")


def test_data_of_their_own(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(20, 8)))
    found = explain("runs/tiny:int8", data=path).account
    assert found.samples == 8
    np.savez(path, other=np.ones((2, 8), np.float32))
    with pytest.raises(InputError, match="has no array 'x'"):
        explain("runs/tiny:int8", data=path)
    path.write_text("no archive")
    with pytest.raises(InputError, match=r"not an \.npz"):
        explain("runs/tiny:int8", data=path)
    np.savez(path, x=np.empty((0, 8), np.float32))
    with pytest.raises(InputError, match="holds no samples"):
        explain("runs/tiny:int8", data=path)
    with pytest.raises(RecipeError, match="not with both"):
        explain("runs/tiny:int8", data=path, recipe_path=Path("recipe.yaml"))


def test_a_file_of_its_own_is_compared_with_itself(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "moved.onnx"
    copy.write_bytes((run / "artifacts" / "int8.onnx").read_bytes())
    found = explain(str(copy), recipe_path=Path("recipe.yaml")).account
    assert not found.exact
    assert "no float graph at hand" in found.notes[0]


def test_the_counterpart_of_a_pruned_variant_is_the_pruned_one(tmp_path: Path, run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    lower = {**result["candidates"][0]["history"][0]}
    prune, quantize = ({**lower, "step": each} for each in ("prune", "quantize"))
    steps = {
        "baseline": [lower],
        "int8": [lower, quantize],
        "coarse": [prune, lower, quantize],
    }
    for each in result["candidates"]:
        each["history"] = steps[each["id"]]
    held = folder.restore(RunResult, {k: v for k, v in result.items() if k in _FIELDS})
    found = subject.Subject(run / "x.onnx", "coarse", replace(held, folder=run))
    path, notes = subject.counterpart(found)
    assert path is None
    assert "no candidate of the run is its float counterpart" in notes[0]
    found = subject.Subject(run / "x.onnx", "int8", replace(held, folder=run))
    assert subject.counterpart(found)[0] == run / "artifacts" / "baseline.onnx"


_FIELDS = {each for each in RunResult.__dataclass_fields__ if each != "folder"}
