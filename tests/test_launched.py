"""One run by several processes: the first leads, the others train with it and write nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_compress import launched
from lepton_compress.errors import EXIT_OK
from tests.bench import DEADLINE, MODULE, Bench


def test_a_process_alone_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")
    assert (launched.count(), launched.rank()) == (1, 0)


def torchrun(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, *launch, "-m", "lepton_compress.cli", *arguments],
        cwd=bench.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_run_one_recipe(bench: Bench) -> None:
    steps = [{"prune": {"ratio": "50 %"}}, {"distil": {"epochs": 1}}, {"finetune": {"epochs": 1}}]
    bench.recipe(MODULE, threads=1, variants={"a": steps, "b": ["quantize"]})
    done = torchrun(bench, "run", "recipe.yaml")
    assert done.returncode == EXIT_OK, done.stderr
    assert done.stdout.count("written to runs/tiny") == 1
    held = {each["id"]: each["history"] for each in bench.result()["candidates"]}
    told = {each["step"]: each["statistics"] for each in held["a"]}
    assert [told[step]["processes"] for step in ("distil", "finetune")] == [2, 2]
    # The unpruned model with the same training is of their making too.
    assert [each["steps"] for each in bench.result()["controls"]] == [["distil", "finetune"]]
    # What two have trained is not what one would have.
    alone = bench.lepton("plan", "recipe.yaml", "--json")
    assert '"name": "finetune"' in alone.out
    before = bench.digests()
    again = torchrun(bench, "run", "recipe.yaml")
    assert again.returncode == EXIT_OK, again.stderr
    assert bench.digests() == before


@pytest.mark.slow
def test_a_mistake_ends_all_of_them(bench: Bench) -> None:
    bench.recipe(MODULE, variants={"a": [{"finetune": {"batch_size": 2, "epochs": 1}}]})
    done = torchrun(bench, "run", "recipe.yaml")
    assert done.returncode != EXIT_OK
    says = "2 samples a batch are too few for 2 processes; each needs two; raise batch_size"
    assert says in " ".join(done.stderr.split())
