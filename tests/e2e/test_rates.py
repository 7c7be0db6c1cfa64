"""Batches, throughput and requests at a rate, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.conftest import Cli, make_tiny


def test_a_run_measures_each_batch_and_the_rate_of_a_gate(tmp_path: Path, cli: Cli) -> None:
    make_tiny(tmp_path)
    recipe = {
        "version": 1,
        "name": "served",
        "model": {"onnx": "model.onnx"},
        "data": {"npz": {"path": "data.npz", "inputs": ["x"], "targets": "y"}},
        "metrics": ["accuracy"],
        "targets": [{"name": "edge", "batch": [1, 4]}],
        "gates": {
            "throughput": "10/s",
            "latency_at": {"limit": "10 s", "rate": "4000/s", "targets": ["edge/b4"]},
        },
        "measure": {"rounds": 5, "cap": "0.1 s"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = cli("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "runs" / "served" / "result.json").read_text())
    loads = {each["target"]: [one["rate"] for one in each["loads"]] for each in result["profiles"]}
    assert loads == {"edge/b1": [], "edge/b4": [4000.0]}
    judged = [(each["gate"], each["target"], each["status"]) for each in result["verdicts"][1:]]
    assert judged == [
        ("throughput", "edge/b1", "PASS"),
        ("throughput", "edge/b4", "PASS"),
        ("latency_at", "edge/b4", "PASS"),
    ]
    report = (tmp_path / "runs" / "served" / "report.md").read_text()
    assert "| baseline | 4000/s |" in report
    (tmp_path / "budget.yaml").write_text("latency_at: {limit: 10 s, rate: 1/s}\n")
    again = cli("gate", "runs/served", "--budget", "budget.yaml", cwd=tmp_path)
    assert again.returncode == 1
    assert "requests at 1/s were not measured" in " ".join(again.stdout.split())
