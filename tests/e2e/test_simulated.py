"""A run on devices that are simulated: Vela and TensorFlow Lite Micro on what the run wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import make_tiny

if TYPE_CHECKING:
    from tests.conftest import Cli

pytest.importorskip("ethosu.vela", reason="the extra `ethos-u` is not installed")
pytest.importorskip("tflite_micro", reason="the extra `microcontroller` is not installed")
pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

RECIPE = """\
version: 1
name: tiny
model: {onnx: model.onnx}
data: {npz: {path: data.npz, inputs: [x], targets: y, calibration: 20 %, evaluation: 40 %}}
metrics: [accuracy]
variants:
  int8: [quantize]
exports: [litert: {borders: int8}]
targets:
  - ethos-u55-128
  - {device: cortex-m4-256k, name: sensor}
  - door
gates:
  drop: 100 %
  ram: {limit: 64 KB, targets: [ethos-u55-128, sensor]}
  flash: {limit: 64 KB, targets: [ethos-u55-128, sensor]}
  operator_coverage: {limit: 100 %, targets: [ethos-u55-128]}
  latency: {limit: 1 ms, targets: [ethos-u55-128]}
"""
DOOR = """\
name: door
about: A door sensor with hardly any flash
runtime: tflite-micro
dtypes: [int8]
limits: {flash: 1 KB}
source: made up for a test
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> tuple[Path, str]:
    """The folder of a run, and what it printed."""
    folder = tmp_path_factory.mktemp("simulated")
    make_tiny(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "targets").mkdir()
    (folder / "targets" / "door.yaml").write_text(DOOR)
    done = cli("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr  # the door has no room
    return folder, done.stdout


@pytest.fixture(scope="module")
def result(ran: tuple[Path, str]) -> Any:
    return json.loads((ran[0] / "runs" / "tiny" / "result.json").read_text())


def profile(result: Any, target: str, candidate: str) -> Any:
    (found,) = [
        each
        for each in result["profiles"]
        if (each["target"], each["candidate"]) == (target, candidate)
    ]
    return found


def test_the_npu_takes_all_of_the_integer_model(result: Any) -> None:
    made = profile(result, "ethos-u55-128", "int8")
    assert (made["status"], made["provenance"]) == ("measured", "simulated")
    assert made["fit"]["fallbacks"] == []
    assert made["latency"]["p50"] == made["fit"]["seconds"] > 0
    (choice,) = [each for each in result["chosen"] if each["target"] == "ethos-u55-128"]
    assert (choice["candidate"], choice["met"]) == ("int8", True)


def test_the_float_model_has_no_time_on_it(result: Any) -> None:
    made = profile(result, "ethos-u55-128", "baseline")
    assert made["status"] == "failed"
    assert made["reason"].startswith("nothing of it runs on the NPU")
    assert made["latency"] == {}
    held = {
        each["gate"]: each["status"]
        for each in result["verdicts"]
        if (each["candidate"], each["target"]) == ("baseline", "ethos-u55-128")
    }
    assert held == {
        "runs": "FAIL",
        "operator_coverage": "FAIL",
        **dict.fromkeys(("ram", "flash", "latency"), "NOT_MEASURED"),
    }


def test_the_microcontroller_has_an_arena(result: Any) -> None:
    for name in ("baseline", "int8"):
        made = profile(result, "sensor", name)
        assert made["status"] == "measured"
        assert made["fit"]["ram"] > 0
        assert made["latency"] == {}
    sizes = {each["candidate"]: each["bytes"] for each in result["artifacts"]}
    assert profile(result, "sensor", "int8")["fit"]["flash"] == sizes["int8"]


def test_what_is_over_a_limit_fails_with_the_bytes(result: Any) -> None:
    made = profile(result, "door", "int8")
    size = made["fit"]["flash"]
    assert made["status"] == "failed"
    assert made["reason"].startswith(f"takes {size:,} bytes of flash, the device has 1,000")
    (choice,) = [each for each in result["chosen"] if each["target"] == "door"]
    assert choice["candidate"] is None


def test_the_reports_say_that_it_was_simulated(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    report = (folder / "runs" / "tiny" / "report.md").read_text()
    page = (folder / "runs" / "tiny" / "report.html").read_text()
    for text in (printed, report, page):
        assert "Simulated by ethos-u-vela 5.2" in text
        assert "Simulated by tflite-micro 0.dev" in text
        assert "operators on the device" in text
    assert "(simulated)" in printed
    assert "FULLY_CONNECTED" in report
    assert "quantise it to int8" in report
    assert "Simulated devices" in page


def test_the_plan_says_so_too(ran: tuple[Path, str], cli: Cli) -> None:
    done = cli("plan", "recipe.yaml", cwd=ran[0])
    assert done.returncode == 0, done.stderr
    assert "simulated by ethos-u, accelerator ethos-u55-128" in done.stdout
