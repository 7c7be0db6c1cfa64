"""What a run measures beside the median, through the command line: load, operators, settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lepton_compress.errors import EXIT_OK, EXIT_USER
from tests.conftest import TINY_RECIPE

if TYPE_CHECKING:
    from tests.conftest import Cli

MEASURE = "measure: {rounds: 5, cap: 1 s}"


def with_measure(folder: Path, more: str) -> None:
    text = TINY_RECIPE.replace(MEASURE, f"measure: {{rounds: 5, cap: 1 s, {more}}}")
    text = text.replace("  coarse: [quantize: {per_channel: false}]\n", "")
    (folder / "recipe.yaml").write_text(text)


@pytest.mark.slow
def test_a_run_tells_what_more_it_measured(cli: Cli, tiny: Path) -> None:
    with_measure(tiny, "callers: [1, 2], tune: true")
    done = cli("run", "recipe.yaml", cwd=tiny)
    assert done.returncode == EXIT_OK, done.stdout + done.stderr
    folder = tiny / "runs" / "tiny"
    result = json.loads((folder / "result.json").read_text())
    for profile in result["profiles"]:
        assert [each["callers"] for each in profile["callers"]] == [1, 2]
        assert sum(each["share"] for each in profile["operators"]) == pytest.approx(1)
        assert len(profile["tuning"]["trials"]) >= 3
    _agrees(result, json.loads((folder / "manifest.json").read_text()))
    report = (folder / "report.md").read_text()
    for said in ("Callers at the same time", "Time by operator", "Settings of the session"):
        assert said in report
    assert "time by operator of" in done.stdout


def _agrees(result: dict[str, Any], manifest: dict[str, Any]) -> None:
    """The manifest says what the result does, and nothing is tuned without a measured gain."""
    assert [each["sha256"] for each in manifest["artifacts"]] == [
        each["sha256"] for each in result["artifacts"]
    ]
    for artifact, profile in zip(manifest["artifacts"], result["profiles"], strict=True):
        (target,) = artifact["targets"]
        tuning = profile["tuning"]
        assert target["session"] == {**profile["session"], **tuning["settings"]}
        if tuning["settings"]:
            assert tuning["ratio_interval"][1] < 1
        else:
            assert target["tuned"] is None


def test_operators_are_measured_in_any_run(tiny_run: Path) -> None:
    folder = tiny_run / "runs" / "tiny"
    profiles = json.loads((folder / "result.json").read_text())["profiles"]
    kinds = {p["candidate"]: {each["operator"] for each in p["operators"]} for p in profiles}
    assert kinds["baseline"] == {"MatMul", "FusedMatMul", "Relu"} & kinds["baseline"] != set()
    assert kinds["int8"] != kinds["baseline"]
    assert all(profile["tuning"] is None for profile in profiles)
    assert (folder / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("callers: [0]", "measure.callers"),
        ("callers: [2, 2]", "2 stands twice"),
        ("tune: maybe", "measure.tune"),
    ],
)
def test_a_wrong_key_is_one_line(cli: Cli, tiny: Path, more: str, said: str) -> None:
    with_measure(tiny, more)
    done = cli("validate", "recipe.yaml", cwd=tiny)
    assert done.returncode == EXIT_USER
    (line,) = done.stderr.strip().splitlines()
    assert said in line
