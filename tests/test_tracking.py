"""Tracking in a real MLflow store in a folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lepton_compress.errors import EXIT_OK, EXIT_USER

if TYPE_CHECKING:
    from tests.conftest import Cli

NO_MLFLOW = importlib.util.find_spec("mlflow") is None
pytestmark = pytest.mark.skipif(NO_MLFLOW, reason="the extra `mlflow` is not installed")
ALLOW = {"MLFLOW_ALLOW_FILE_STORE": "true"}

# In a process of its own: MLflow warns of itself, and here warnings are errors.
LOG = """
import json, sys
from pathlib import Path
from mlflow import MlflowClient
from lepton_compress import tracking
from lepton_compress.report.folder import read_result

folder, uri = sys.argv[1:]
held = read_result(Path(folder))
tracking.check(uri)
whole = tracking.log(held, uri)
tracking.log(held, uri)
client = MlflowClient(tracking_uri=uri)
(experiment,) = [e for e in client.search_experiments() if e.name == held.recipe]
runs = client.search_runs([experiment.experiment_id])
print(json.dumps({
    "whole": whole,
    "runs": {r.info.run_id: [r.info.status, r.data.tags, r.data.params, r.data.metrics] for r in runs},
    "artifacts": [a.path for a in client.list_artifacts(whole)],
}))
"""  # noqa: E501


@pytest.fixture(scope="module")
def logged(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a store holds after a real run's result was logged twice."""
    uri = (tmp_path_factory.mktemp("store") / "mlflow").as_uri()
    command = [sys.executable, "-c", LOG, str(tiny_run / "runs" / "tiny"), uri]
    done = subprocess.run(
        command, env=os.environ | ALLOW, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = yaml.safe_load(done.stdout.splitlines()[-1])
    return made


def test_one_run_for_the_whole_and_one_for_each_candidate(logged: dict[str, Any]) -> None:
    status, tags, parameters, numbers = logged["runs"][logged["whole"]]
    assert status == "FINISHED"
    assert tags["lepton.passed"] == "true"
    assert tags["lepton.chosen.onnxruntime-cpu"] in ("int8", "coarse", "baseline")
    assert len(parameters["recipe_digest"]) == 64
    assert parameters["version/onnxruntime"]
    assert numbers["seconds"] > 0
    parts = [
        tags["mlflow.runName"]
        for _, tags, _, _ in logged["runs"].values()
        if tags.get("mlflow.parentRunId") == logged["whole"]
    ]
    assert sorted(parts) == ["baseline", "coarse", "int8"]
    assert len(logged["runs"]) == 8, "logged twice is two runs"


def test_what_a_candidate_cost_and_scored(logged: dict[str, Any]) -> None:
    (coarse, *_) = [r for r in logged["runs"].values() if r[1]["mlflow.runName"] == "coarse"]
    _, _, parameters, numbers = coarse
    (number,) = [i for i, s in enumerate(parameters["steps"].split(" > ")) if s == "quantize"]
    assert parameters[f"{number}.quantize/per_channel"] == "False"
    assert 0 < numbers["score/accuracy"] <= 1
    assert numbers["onnxruntime-cpu/latency_p50"] > 0
    assert numbers["bytes"] > 0
    assert {"drop/accuracy", "onnxruntime-cpu/ratio", "onnxruntime-cpu/peak_memory"} <= set(numbers)


def test_the_run_folder_lies_in_the_store(logged: dict[str, Any]) -> None:
    assert {"result.json", "report.html", "report.md", "artifacts"} <= set(logged["artifacts"])


class TestCommandLine:
    def test_a_run_is_logged(self, cli: Cli, tiny_run: Path, tmp_path: Path) -> None:
        here = shutil.copytree(tiny_run, tmp_path / "here")
        uri = (tmp_path / "store").as_uri()
        done = cli("run", "recipe.yaml", "--mlflow", uri, cwd=here, **ALLOW)
        assert done.returncode == EXIT_OK, done.stderr
        assert "mlflow" not in done.stdout.lower()
        assert list((tmp_path / "store").rglob("result.json"))

    def test_a_store_that_refuses_ends_it_before_any_work(self, cli: Cli, tiny: Path) -> None:
        done = cli("run", "recipe.yaml", "--mlflow", "gopher://nowhere", cwd=tiny)
        assert done.returncode == EXIT_USER
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: gopher://nowhere: MLflow refuses it: ")
        assert not (tiny / "runs").exists()


def test_without_mlflow_the_extra_is_named(cli: Cli, tiny: Path) -> None:
    (tiny / "shadow").mkdir()
    (tiny / "shadow" / "mlflow.py").write_text("raise ImportError('no mlflow here')")
    paths = os.pathsep.join([str(tiny / "shadow"), os.environ.get("PYTHONPATH", "")])
    done = cli("run", "recipe.yaml", "--mlflow", "http://x", cwd=tiny, PYTHONPATH=paths)
    assert done.returncode == EXIT_USER
    assert "pip install 'lepton-compress[mlflow]'" in done.stderr
    assert not (tiny / "runs").exists()
