"""`lepton-compress explain` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Cli


def test_a_table_and_findings_for_people(cli: Cli, tiny_run: Path) -> None:
    done = cli("explain", "runs/tiny:int8", cwd=tiny_run)
    assert done.returncode == 0, done.stderr
    assert "runs/tiny/artifacts/baseline.onnx" in done.stdout
    assert "second" in done.stdout
    assert "QGemm" in done.stdout or "QLinearMatMul" in done.stdout
    # True of it: normal values leave the range of twenty samples.
    assert "too few calibration samples" in done.stdout
    assert "taken from 20 samples" in done.stdout
    assert "mend: calibrate on at least 100 samples" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 140


def test_json_for_machines(cli: Cli, tiny_run: Path) -> None:
    artifact = "runs/tiny/artifacts/coarse.onnx"
    done = cli("explain", artifact, "--json", "--samples", "16", cwd=tiny_run)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["account"]["samples"] == 16
    assert {"name", "precision", "why_not", "weight", "activation", "sqnr_db", "share"} <= set(
        told["account"]["nodes"][0]
    )
    assert set(told["account"]["levels"]) == {"basic", "extended", "all"}
    assert {"cause", "evidence", "mend", "confidence"} <= set(told["findings"][0])


def test_another_processor(cli: Cli, tiny_run: Path) -> None:
    done = cli("explain", "runs/tiny:int8", "--cpu", "avx2", "--json", cwd=tiny_run)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["account"]["extensions"] == ["avx2"]


def test_a_fault_in_the_data(cli: Cli, tiny_run: Path, tmp_path: Path) -> None:
    with np.load(tiny_run / "data.npz") as file:
        np.savez(tmp_path / "wrong.npz", x=file["x"] * 50 + 20)
    data = tmp_path / "wrong.npz"
    done = cli("explain", "runs/tiny:int8", "--data", data, "--json", cwd=tiny_run)
    assert done.returncode == 0, done.stderr
    (first, *_) = json.loads(done.stdout)["findings"]
    assert first["cause"] == "calibration_normalised_differently"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.onnx"], "no such file"),
        (["runs/tiny"], "name a candidate"),
        (["runs/tiny:int9"], "did you mean 'int8'?"),
        (["model.onnx"], "give --recipe recipe.yaml or --data data.npz"),
        (["data.npz", "--recipe", "recipe.yaml"], "not a valid ONNX model"),
        (["runs/tiny:int8", "--against", "absent.onnx"], "absent.onnx: no such file"),
        (["runs/tiny:int8", "--recipe", "absent.yaml"], "absent.yaml"),
        (["runs/tiny:int8", "--data", "absent.npz"], "no such file"),
        (["runs/tiny:int8", "--samples", "0"], "--samples"),
    ],
)
def test_bad_input(cli: Cli, tiny_run: Path, arguments: list[str], said: str) -> None:
    done = cli("explain", *arguments, cwd=tiny_run)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
