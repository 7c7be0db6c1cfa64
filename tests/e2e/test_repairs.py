"""Repairs before static int8, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.conftest import Cli

RECIPE = """\
version: 1
name: repairs
model: {onnx: model.onnx}
data: {npz: {path: data.npz, inputs: [x], targets: y, calibration: 20 %, evaluation: 40 %}}
metrics: [accuracy]
variants:
  even: [equalize]
  even-int8: [equalize, quantize: {per_channel: false, resamples: 2}]
  inserted-int8: [smooth: {alpha: 0.5, insert: true}, quantize]
gates: {drop: 100 %}
measure: {rounds: 5, cap: 1 s}
"""


@pytest.mark.slow
def test_a_run_with_them(tiny: Path, cli: Cli) -> None:
    (tiny / "recipe.yaml").write_text(RECIPE)
    done = cli("run", "recipe.yaml", cwd=tiny)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tiny / "runs/repairs/result.json").read_text())
    scores = {each["candidate"]: each for each in result["scores"]}
    assert scores["even"]["outcomes"] == scores["baseline"]["outcomes"]
    assert all(each["value"] <= each["limit"] for each in result["parities"])
    steps = {name: steps_of(result, name) for name in ("even-int8", "inserted-int8")}
    equalize, quantize = steps["even-int8"]
    assert equalize["statistics"]["pairs"][0]["from"] == ["first"]
    assert equalize["statistics"]["difference"] < 1e-5
    assert any("the worst of the weights keeps" in note for note in equalize["notes"])
    assert len(quantize["statistics"]["resampled"]) == 2
    smoothed = steps["inserted-int8"][0]["statistics"]["smoothed"]
    assert smoothed["x"]["into"] == ["a new Mul"]
    assert smoothed["active"]["into"] == ["first"]
    assert sorted(each.stem for each in (tiny / "runs/repairs/ranges").iterdir()) == [
        "even-int8",
        "inserted-int8",
    ]


@pytest.mark.slow
def test_calibration_data_unlike_the_evaluation_data_are_told_of(tiny: Path, cli: Cli) -> None:
    held = np.load(tiny / "data.npz")
    loader = (
        "import numpy as np\n\n\ndef load():\n"
        "    held = np.load('data.npz')\n"
        "    x, y = held['x'], held['y']\n"
        "    return {'train': (x[:20], y[:20]), 'calibration': (x[20:60] / 9, y[20:60]),\n"
        "            'evaluation': (x[60:], y[60:])}\n"
    )
    assert held["x"].shape == (100, 8)
    (tiny / "data.py").write_text(loader)
    recipe = RECIPE.replace(
        "{npz: {path: data.npz, inputs: [x], targets: y, calibration: 20 %, evaluation: 40 %}}",
        '{python: {function: "data.py:load"}}',
    )
    start, rest = recipe.split("  even: ")
    recipe = f"{start}  int8: [quantize]\n{rest[rest.index('gates') :]}"
    (tiny / "recipe.yaml").write_text(recipe)
    done = cli("run", "recipe.yaml", cwd=tiny)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tiny / "runs/repairs/result.json").read_text())
    notes = steps_of(result, "int8")[0]["notes"]
    assert any(note.startswith("evaluation data leave what calibration data") for note in notes)
    shown = cli("explain", "runs/repairs:int8", "--json", cwd=tiny)
    assert shown.returncode == 0, shown.stderr
    findings = [each["cause"] for each in json.loads(shown.stdout)["findings"]]
    assert set(findings) & {"calibration_normalised_differently", "few_calibration_samples"}


def test_a_node_that_is_not_there(tiny: Path, cli: Cli) -> None:
    (tiny / "recipe.yaml").write_text(RECIPE.replace("[equalize]", "[equalize: {keep: [frist]}]"))
    done = cli("run", "recipe.yaml", cwd=tiny)
    assert done.returncode == 2
    assert "there is no node 'frist'; did you mean 'first'?" in done.stderr
    assert "Traceback" not in done.stderr


def steps_of(result: dict[str, Any], candidate: str) -> list[dict[str, Any]]:
    history = next(each["history"] for each in result["candidates"] if each["id"] == candidate)
    return [each for each in history if each["step"] != "lower"]
