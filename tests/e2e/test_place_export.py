"""`lepton-compress place --export`: from results to a deployment that runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_compress import deploying, placing, splitting
from lepton_compress.artifacts import Split
from lepton_compress.report.folder import read_result
from lepton_compress.report.silent import Silent
from tests.conftest import Cli
from tests.place import served

FLEET = """\
version: 1
name: here
sites:
  - {{name: device, kind: edge, target: local}}
  - {{name: region, kind: cloud, target: local, price: 1/h, replicas: 1}}
links:
  - {{edge: device, cloud: region, round_trip: 1 ms, up: 100 Mbit/s, down: 100 Mbit/s}}
workloads:
  - name: tiny
    rate: 5/s
    payload: {{up: 32 B, down: 12 B}}
    demands: {{only: [{kind}]}}
"""


@pytest.fixture
def ran(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the folder after a run."""
    folder = tmp_path / "ran"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns(".lepton"))
    return folder


def fleet(folder: Path, kind: str) -> Path:
    target = read_result(folder / "runs" / "tiny").profiles[0].target
    path = folder / "fleet.yaml"
    path.write_text(FLEET.format(kind=kind).replace("target: local", f"target: {target}"))
    return path


def measured(folder: Path, url: str) -> dict[str, object]:
    command = [sys.executable, "-E", str(folder / "edge" / "measure.py")]
    command += [str(folder / "samples.npz"), "--rate", "100", "--requests", "60", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("kind", ["edge", "cloud"])
def test_what_is_planned_is_written_and_runs(ran: Path, cli: Cli, kind: str) -> None:
    path = fleet(ran, kind)
    asked = ("place", "runs/tiny", "--fleet", path.name, "--quick", "--export", "out")
    done = cli(*asked, cwd=ran)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = ran / "out" / "tiny-device"
    assert json.loads((folder / "deployment.json").read_text())["kind"] == kind
    if kind == "edge":
        told = measured(folder, "")
    else:
        with served.cloud(folder) as running:
            told = measured(folder, running.url)
    assert told["answered"] == 60
    assert told["sent_up"] == (60 if kind == "cloud" else 0)
    assert told["accuracy"] == pytest.approx(1, abs=0.2)
    again = cli(*asked, cwd=ran)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_a_split_plan_is_cut_where_it_was_measured(ran: Path) -> None:
    import numpy as np

    run = read_result(ran / "runs" / "tiny")
    target = run.profiles[0].target
    x = np.load(ran / "data.npz")["x"].astype(np.float32)
    artifact = ran / "runs" / "tiny" / run.artifact("baseline").path
    found = splitting.cuts(
        artifact, Split({"x": x}), observer=Silent(), measured=1, only="relu", cap=0.2
    )
    from dataclasses import replace

    found = replace(found, edge=target, cloud=target)
    [cut] = splitting.planned(found, "baseline", result=run.recipe)
    assert cut.bytes == 64
    assert cut.provenance == "measured"
    placed = placing.place(run, fleet(ran, "split"), cuts=[cut], sensitivity=False)
    assert placed.feasible, placed
    [folder] = deploying.export(placed, [run], ran / "out")
    with served.cloud(folder) as running:
        told = measured(folder, running.url)
    assert told["answered"] == told["sent_up"] == 60
    assert told["accuracy"] == pytest.approx(1, abs=0.2)
