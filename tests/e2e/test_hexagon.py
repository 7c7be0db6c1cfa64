"""A run for Hexagons alone: int8 is chosen by accuracy, and judged by what is on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import make_tiny

if TYPE_CHECKING:
    from tests.conftest import Cli

pytest.importorskip("onnxruntime_qnn", reason="the extra `hexagon` is not installed")

pytestmark = pytest.mark.slow

RECIPE = """\
version: 1
name: tiny
model: {onnx: model.onnx}
data: {npz: {path: data.npz, inputs: [x], targets: y, calibration: 20 %, evaluation: 40 %}}
metrics: [accuracy]
variants:
  auto: [{quantize_auto: {drop: 50 %}}]
exports: [onnx: {layout: keep}]
targets:
  - hexagon-v73
  - {device: hexagon-v68, name: small, limits: {flash: 1 KB}}
gates:
  drop: 100 %
  operator_coverage: 100 %
  flash: {limit: 1 MB, targets: [hexagon-v73]}
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Any:
    folder = tmp_path_factory.mktemp("hexagon")
    make_tiny(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    done = cli("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr  # the small one has no room
    return json.loads(Path(folder / "runs" / "tiny" / "result.json").read_text())


def test_int8_is_chosen_without_a_race(result: Any) -> None:
    record = result["candidates"][1]["history"][-1]
    assert record["changed"]
    assert "by accuracy alone, as hexagon-v73, small cannot be timed" in record["notes"][0]
    assert not any("ratio" in each for each in record["statistics"]["tried"])


def test_what_is_on_it_is_told_and_no_time(result: Any) -> None:
    profiles = {(each["candidate"], each["target"]): each for each in result["profiles"]}
    held = profiles["auto", "hexagon-v73"]
    assert (held["status"], held["provenance"], held["latency"]) == ("measured", "simulated", {})
    assert held["fit"]["configuration"]["architecture"] == "v73"
    assert held["fit"]["fallbacks"] == []
    assert held["fit"]["flash"] > 0
    (chosen,) = [each for each in result["chosen"] if each["target"] == "hexagon-v73"]
    assert chosen["candidate"] is not None


def test_a_limit_that_is_exceeded_fails_there(result: Any) -> None:
    failed = [each for each in result["profiles"] if each["target"] == "small"]
    assert {each["status"] for each in failed} == {"failed"}
    assert all("of flash, the device has 1,000" in each["reason"] for each in failed)
