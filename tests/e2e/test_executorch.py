"""ExecuTorch artifacts through the command line: written, verified, evaluated, measured, asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.errors import EXIT_OK
from tests.bench import GRAPH, Bench, Done, copy_of

pytest.importorskip("executorch", reason="the extra `executorch` is not installed")

BOTH: dict[str, Any] = {
    "exports": ["onnx", "executorch"],
    "targets": [{"name": "graphs", "runtime": "onnxruntime-cpu"}, "executorch-cpu"],
    "variants": {"int8": ["quantize"]},
    "postprocess": [{"classes": {"labels": ["north", "east", "south", "west"]}}],
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, furnished: Path) -> tuple[Bench, Done]:
    bench = copy_of(furnished, tmp_path_factory.mktemp("executorch") / "bench")
    done = bench.lepton("run", bench.recipe(GRAPH, **BOTH))
    assert done.code == EXIT_OK, done
    return bench, done


@pytest.mark.slow
def test_it_is_verified_evaluated_and_measured(ran: tuple[Bench, Done]) -> None:
    result = ran[0].result()
    found = {(each["candidate"], each["format"], each["status"]) for each in result["profiles"]}
    assert found == {
        (name, kind, "measured") for name in ("baseline", "int8") for kind in ("onnx", "executorch")
    }
    scores = {(each["candidate"], each["format"]): each["value"] for each in result["scores"]}
    for name in ("baseline", "int8"):
        assert scores[name, "executorch"] == scores[name, "onnx"]
        held = [each for each in result["parities"] if each["candidate"] == name]
        assert {each["format"] for each in held} == {"onnx", "executorch"}
        assert all(each["value"] <= each["limit"] for each in held)
    kinds = {
        each["candidate"]: each["operators"]
        for each in result["artifacts"]
        if each["format"] == "executorch"
    }
    assert kinds["int8"]["XNNFullyConnected"] == {"int8": 1}
    assert kinds["baseline"]["XNNFullyConnected"] == {"float32": 1}
    assert "chosen on executorch-cpu: " in ran[1].out


@pytest.mark.slow
def test_it_can_be_asked(ran: tuple[Bench, Done], tmp_path: Path) -> None:
    import numpy as np

    bench, _ = ran
    np.save(tmp_path / "one.npy", np.zeros((1, 1, 6, 6), np.float32))
    answers = [
        bench.lepton(
            "predict", "runs/tiny:int8", str(tmp_path / "one.npy"), "--format", kind, "--json"
        )
        for kind in ("onnx", "executorch")
    ]
    assert all(each.code == EXIT_OK for each in answers), answers
    one, other = (json.loads(each.out)["answers"] for each in answers)
    assert one == other
