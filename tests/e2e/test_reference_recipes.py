"""The recipes of the reference models for pictures, as they ship, where their data is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lepton_compress.errors import EXIT_OK
from tests.conftest import Cli

ROOT = Path(__file__).resolve().parents[2]
DATA = os.environ.get("LEPTON_DATA", "")


@pytest.mark.slow
@pytest.mark.skipif(
    not DATA or not Path(DATA, "mnist10k.npz").is_file(),
    reason="LEPTON_DATA names no folder with mnist10k.npz",
)
def test_mnist_on_an_edge_processor(tmp_path: Path, cli: Cli) -> None:
    recipe = ROOT / "recipes" / "mnist-cnn-edge.yaml"
    done = cli("run", recipe, "--out", "run", "--workspace", "kept", cwd=tmp_path, LEPTON_DATA=DATA)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    scores = {each["candidate"]: each["value"] for each in result["scores"]}
    assert len(scores) == 4
    assert min(scores.values()) > 0.9662
    assert {each["inputs"][0]["dtype"] for each in result["artifacts"]} == {"uint8"}
    assert done.returncode == EXIT_OK, done.stdout
