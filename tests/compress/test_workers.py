"""Several processes train one module: all end with the same weights, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lepton_compress.compress.workers import Workers
from tests.bench import DEADLINE

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, os, sys
from pathlib import Path

import torch

from lepton_compress.compress import checkpoint
from lepton_compress.compress.loop import Setting
from lepton_compress.compress.training import Schedule, deterministic, task_loss, train
from lepton_compress.load import forms
from lepton_compress.report.silent import Silent
from tests.compress.modules import Plain, dataset, model_of

folder, stop = Path(sys.argv[1]), int(sys.argv[2])
rank = os.environ.get("RANK", "0")
written = []
write = checkpoint.Checkpoints.write

def noted(self, state):
    written.append(self.folder is not None)
    write(self, state)

checkpoint.Checkpoints.write = noted
seen = 0

def told(share):
    global seen
    seen += 1
    if seen == stop:
        os._exit(9)

model = model_of(Plain)
with deterministic(0, 1):
    statistics = train(
        model.value,
        dataset(count=97).train.named(["x"]),
        lambda outputs, _, targets: task_loss(outputs, targets),
        Schedule(epochs=3, batch_size=16, learning_rate=5e-3, validation=0.1, checkpoint=1e-9),
        observer=Silent(),
        label="training",
        setting=Setting(told=told, folder=folder / "state"),
    )
weights = {name: each.tolist() for name, each in model.value.state_dict().items()}
about = {"mark": forms.fingerprint(model), "told": statistics, "weights": weights}
(folder / f"{rank}.json").write_text(json.dumps({**about, "wrote": any(written)}))
"""


def run(folder: Path, processes: int, stop: int = 0) -> list[dict[str, Any]]:
    """Train in so many processes; what each of them left. Empty where they were `stop`ped."""
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    # What `accelerate launch` starts itself on GPUs; on CPUs alone it wants mpirun.
    launch = ["-m", "torch.distributed.run", "--standalone"]
    launch += [f"--nproc_per_node={processes}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *(launch if processes > 1 else []), str(script)]
    done = subprocess.run(
        [*command, str(folder), str(stop)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode == 0) is (not stop), done.stderr
    files = [] if stop else sorted(folder.glob("[0-9].json"))
    return [json.loads(each.read_text()) for each in files]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes left."""
    return run(tmp_path_factory.mktemp("both"), 2)


@pytest.mark.slow
class TestTwoProcesses:
    def test_they_end_with_the_same_weights(self, both: list[dict[str, Any]]) -> None:
        assert len(both) == 2
        assert both[0]["mark"] == both[1]["mark"]
        assert both[0]["told"] == both[1]["told"]
        assert both[0]["told"]["processes"] == 2

    def test_the_first_alone_writes(self, both: list[dict[str, Any]]) -> None:
        assert [each["wrote"] for each in both] == [True, False]

    def test_they_compute_what_one_does(self, both: list[dict[str, Any]], tmp_path: Path) -> None:
        (alone,) = run(tmp_path / "alone", 1)
        losses = [each["told"]["curve"]["loss"] for each in (both[0], alone)]
        # Batch normalisation sees half of the batch in each.
        np.testing.assert_allclose(losses[0], losses[1], rtol=0.2)

    def test_cut_off_they_go_on_to_the_same(
        self, both: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        run(tmp_path / "cut", 2, stop=9)
        assert json.loads((tmp_path / "cut/state/training.json").read_text())["done"] > 0
        resumed = run(tmp_path / "cut", 2)
        assert [each["mark"] for each in resumed] == [each["mark"] for each in both]


class TestAlone:
    def test_it_is_its_own_mean(self) -> None:
        workers = Workers("float32")
        given = torch.arange(5.0)
        assert torch.equal(workers.mean(given), given)
        assert torch.equal(workers.part(given), given)
        assert torch.equal(workers.every(given), given[None])
        assert workers.first

    def test_it_gets_on_with_an_accelerator_of_the_script(self) -> None:
        code = (
            "from accelerate import Accelerator; Accelerator(cpu=True, mixed_precision='bf16')\n"
            "from lepton_compress.compress.workers import Workers\n"
            "print(Workers('auto').told())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "'float32'" in done.stdout, done.stderr
