"""`lepton-compress split` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lepton_compress.targets.onnxruntime_cpu import onnxruntime_cpu
from tests.conftest import Cli


# In integers the clamp is a part of the rounding, so that the layer is what is left of both.
@pytest.mark.parametrize(("candidate", "layer"), [("baseline", "relu"), ("int8", "first")])
def test_a_cut_is_made_that_answers_as_the_whole(
    tiny_run: Path, tmp_path: Path, cli: Cli, candidate: str, layer: str
) -> None:
    out = tmp_path / "halves"
    named = f"runs/tiny:{candidate}"
    done = cli("split", named, "--at", layer, "--output", out, "--json", cwd=tiny_run)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    [cut] = found["cuts"]
    assert found["input_bytes"] == 32
    assert cut["provenance"] == "measured"
    assert 0 < cut["edge_seconds"] < 1
    assert 0 < cut["cloud_seconds"] < 1
    assert cut["features"]
    assert cut["stacks"]
    # Sixteen values: as bytes of the quantised one, as floats of the other.
    assert cut["bytes"] == (16 if candidate == "int8" else 64)
    assert json.loads((out / "split.json").read_text())["crossing"] == found["halves"]["crossing"]

    x = np.load(tiny_run / "data.npz")["x"][:9].astype(np.float32)
    whole = tiny_run / "runs/tiny/artifacts" / f"{candidate}.onnx"
    [wanted] = onnxruntime_cpu(whole, 1).run({"x": x})
    [halfway] = onnxruntime_cpu(out / "edge.onnx", 1).run({"x": x})
    cloud = onnxruntime_cpu(out / "cloud.onnx", 1)
    [made] = cloud.run({cloud.inputs[0].name: halfway})
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)


def test_cuts_are_listed_for_people_and_nothing_is_written(tiny_run: Path, cli: Cli) -> None:
    before = sorted(tiny_run.rglob("*"))
    done = cli("split", "runs/tiny:int8", "--measured", "0", cwd=tiny_run)
    assert done.returncode == 0, done.stderr
    assert "estimated" in done.stdout
    assert sorted(tiny_run.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["runs/tiny:int8", "--at", "frist"], "did you mean 'first'?"),
        (["runs/tiny:int8", "--output", "there"], "--output: goes with --at"),
        (["runs/tiny:int9"], "has no candidate 'int9'"),
        (["runs/tiny:int8", "--edge", "moon"], "unknown target 'moon'"),
        (["none.onnx"], "no such file"),
        (["model.onnx", "--data", "recipe.yaml"], "recipe.yaml: not an .npz"),
        (["model.onnx"], "real samples are needed"),
    ],
)
def test_what_cannot_be_cut_is_one_line(
    tiny_run: Path, cli: Cli, given: list[str], said: str
) -> None:
    done = cli("split", *given, cwd=tiny_run)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tiny_run / "halves").exists()
