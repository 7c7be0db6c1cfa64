"""A model that no ModelProto can hold, through the command line."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from tests import large
from tests.conftest import Cli

WIDTH, LAYERS, LAYERS_OF_ROAD = 8192, 10, 6
TENSOR = 4 * WIDTH * WIDTH
BASE = 10**9
ROOM = 15 * BASE

STEP = """
import sys
from pathlib import Path

import numpy as np

from lepton_compress import registry
from lepton_compress.artifacts import Dataset, Model, Split, StepContext
from lepton_compress.load import forms
from lepton_compress.load.model import read_onnx_file
from lepton_compress.report.silent import Silent

file, out, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
graph = read_onnx_file(file)
model = Model("graph", graph, *forms.signature(graph), file.parent)
split = Split({"x": np.zeros((2, 16), np.float32)})
data = Dataset(split, split, split, "")
context = StepContext(data, lambda: model, 0, 2, Silent(), scratch=out)
plugin = registry.get("step", name)
given = {"algorithm": "rtn"} if name == "quantize_weights" else {}
made = plugin.function(model, plugin.params(**given), context)
forms.save(made.model, model, out)
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
"""


@contextlib.contextmanager
def written(made: Path, layers: int, least: float) -> Iterator[Path]:
    """A folder with a model of at least so many bytes and its recipe."""
    if shutil.disk_usage(made).free < ROOM:
        pytest.skip(f"less than {ROOM // BASE} GB are free on the disk of {made}")
    size = large.write(made, width=WIDTH, layers=layers, variants="  int8: [quantize_dynamic]")
    assert size > least
    yield made
    shutil.rmtree(made)  # gigabytes, which pytest would keep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with written(tmp_path_factory.mktemp("large"), LAYERS, 2.5e9) as made:
        yield made


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("step", ["quantize_dynamic", "quantize_weights", "bfloat16"])
def test_a_step_holds_one_tensor_at_a_time(step: str, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STEP, str(folder / "model.onnx"), str(tmp_path), step]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.5 * TENSOR + BASE
    for made in tmp_path.iterdir():
        made.unlink()


@pytest.mark.slow
def test_the_whole_road(tmp_path: Path, cli: Cli) -> None:
    """Of a model whose tensors stay in files, in four copies: own, lowered, exported, run."""
    with written(tmp_path, LAYERS_OF_ROAD, 1.5e9) as folder:
        check_road(folder, cli)


def check_road(folder: Path, cli: Cli) -> None:
    done = cli("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "runs/large/result.json").read_text())
    by_name = {each["candidate"]: each for each in result["artifacts"]}
    assert by_name["int8"]["bytes"] < 0.27 * by_name["baseline"]["bytes"]
    assert {each["candidate"] for each in result["parities"]} == set(by_name)
    for artifact in by_name.values():
        path = folder / "runs/large" / artifact["path"]
        assert all((folder / "runs/large" / each).is_file() for each in artifact["beside"])
        onnx.checker.check_model(str(path))
