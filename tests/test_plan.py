"""What a run would do is told without doing it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from lepton_compress import read_result
from lepton_compress.overviews import Plan, PlannedStage
from lepton_compress.plan import plan
from lepton_compress.report.plan import show

if TYPE_CHECKING:
    from tests.conftest import Cli


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with its size and when it was changed."""
    return {
        str(each.relative_to(folder)): (each.stat().st_size, each.stat().st_mtime_ns)
        for each in folder.rglob("*")
    }


def stages(made: Plan, variant: str) -> dict[str, PlannedStage]:
    found = next(each for each in made.variants if each.name == variant)
    return {f"{stage.kind} {stage.name}": stage for stage in found.stages}


def test_before_a_run_everything_is_to_do_and_nothing_is_written(tiny: Path) -> None:
    before = snapshot(tiny)
    made = plan(tiny / "recipe.yaml", workspace=tiny / ".lepton")
    assert snapshot(tiny) == before
    assert [variant.name for variant in made.variants] == ["baseline", "int8", "coarse"]
    assert not any(stage.cached for variant in made.variants for stage in variant.stages)
    assert list(stages(made, "int8")) == [
        "lower lower",
        "step quantize",
        "export onnx",
        "verify onnx",
        "evaluate accuracy",
    ]


def test_after_a_run_everything_is_kept_and_known(tiny_run: Path) -> None:
    before = snapshot(tiny_run)
    made = plan(tiny_run / "recipe.yaml", workspace=tiny_run / ".lepton")
    assert snapshot(tiny_run) == before, "looking counts as no use"
    result = read_result(tiny_run / "runs" / "tiny")
    for candidate in result.candidates:
        found = stages(made, candidate.id)
        assert all(stage.cached for stage in found.values())
        last = [stage for stage in found.values() if stage.kind in ("lower", "step")][-1]
        assert (last.parameter_count, last.macs) == (candidate.parameters, candidate.macs)
        assert found["export onnx"].bytes == result.artifact(candidate.id).bytes


def test_a_changed_parameter_is_to_do_and_what_lies_before_it_is_not(tiny_run: Path) -> None:
    text = (tiny_run / "recipe.yaml").read_text()
    changed = tiny_run.parent / "changed.yaml"
    for name in ("model.onnx", "data.npz"):
        text = text.replace(name, str(tiny_run / name))
    changed.write_text(text.replace("[quantize]", "[quantize: {samples: 9}]"))
    made = plan(changed, workspace=tiny_run / ".lepton")
    assert all(stage.cached for stage in stages(made, "coarse").values())
    found = stages(made, "int8")
    assert found["lower lower"].cached
    assert not any(found[name].cached for name in list(found)[1:])
    assert found["step quantize"].given == {"samples": 9}
    assert found["step quantize"].parameters["per_channel"] is True
    assert found["step quantize"].parameter_count is None


def test_a_damaged_artifact_is_not_called_kept(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "copy")
    for file in (tmp_path / "copy" / ".lepton").rglob("model.onnx"):
        file.unlink()
    made = plan(tmp_path / "copy" / "recipe.yaml", workspace=tmp_path / "copy" / ".lepton")
    found = stages(made, "int8")
    assert not found["export onnx"].cached
    assert not found["evaluate accuracy"].cached


def test_shared_beginnings_are_one_stage(tiny: Path) -> None:
    made = plan(tiny / "recipe.yaml", workspace=tiny / ".lepton")
    lower = stages(made, "int8")["lower lower"]
    assert lower.shared_with == ("baseline", "coarse")
    assert stages(made, "int8")["step quantize"].shared_with == ()
    assert stages(made, "int8")["verify onnx"].shared_with == ()


def test_numbers_of_an_onnx_model_are_exact(tiny: Path) -> None:
    made = plan(tiny / "recipe.yaml", workspace=tiny / ".lepton")
    numbers = 8 * 16 + 16 * 3
    assert made.model.form == "graph"
    assert (made.model.numbers, made.model.bytes) == (numbers, 4 * numbers)
    assert made.samples == {"train": 40, "calibration": 20, "evaluation": 40}


def test_targets_and_gates_are_told(tiny: Path) -> None:
    made = plan(tiny / "recipe.yaml", workspace=tiny / ".lepton")
    assert [(each.name, each.threads, each.batch) for each in made.targets] == [
        ("onnxruntime-cpu", 1, 1)
    ]
    drop, size = sorted(made.gates, key=lambda gate: gate.name)
    assert (drop.limit, drop.written, drop.strict) == (1.0, "100 %", False)
    assert (size.limit, size.written, size.strict) == (1_000_000, "1 MB", True)


def test_what_is_measured_beside_latency_is_told(tiny: Path) -> None:
    recipe = tiny / "recipe.yaml"
    beside = "cap: 1 s, rates: [50/s], callers: [4], tune: true"
    recipe.write_text(recipe.read_text().replace("cap: 1 s", beside))
    shown = io.StringIO()
    show(plan(recipe, workspace=tiny / ".lepton"), Console(file=shown, width=300))
    said = shown.getvalue()
    assert "or 1.00 s, 50 arrivals a second, 4 callers at once, settings of sessions tried" in said


FACTORY = """\
version: 1
name: factory
model: {factory: net.py:Net, weights: net.safetensors}
data: {npz: {path: data.npz, inputs: [x], targets: y}}
metrics: [accuracy]
"""


def test_a_factory_is_planned_without_running_it_and_without_torch(tiny: Path) -> None:
    (tiny / "net.py").write_text("raise SystemExit('was run')\n")
    weights = {"a.weight": np.zeros((8, 3), np.float32), "a.count": np.zeros((), np.int64)}
    save_file(weights, tiny / "net.safetensors")
    (tiny / "factory.yaml").write_text(FACTORY)
    code = (
        "import json, sys; from lepton_compress.plan import plan; made = plan('factory.yaml');"
        "print(json.dumps([made.model.numbers, made.model.bytes, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tiny, capture_output=True, text=True, check=True
    )
    numbers, size, modules = json.loads(done.stdout)
    assert (numbers, size) == (8 * 3 + 1, 8 * 3 * 4 + 8)
    assert not {"torch", "onnx", "onnxruntime"} & set(modules)


class TestCommand:
    def test_the_tree_draws_what_is_shared_once(self, tiny_run: Path, cli: Cli) -> None:
        done = cli("plan", "recipe.yaml", cwd=tiny_run)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("lower") == 1
        assert "shared by 3 variants" in done.stdout
        assert done.stdout.count("quantize") == 2
        assert "per_channel false" in done.stdout
        assert "12 of 12 results" in done.stdout
        assert "to do" not in done.stdout

    def test_json(self, tiny: Path, cli: Cli) -> None:
        done = cli("plan", "recipe.yaml", "--json", cwd=tiny)
        assert json.loads(done.stdout)["recipe"] == "tiny"
        assert not (tiny / ".lepton").exists()

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (("model.onnx", "other.onnx"), "other.onnx: no such file"),
            (("data.npz", "other.npz"), "other.npz: no such file"),
            (("[quantize]", "[quantise]"), "did you mean 'quantize'?"),
            (("[quantize]", "[{prune: {ratio: 50 %}}]"), "prune works on a torch module"),
        ],
    )
    def test_what_a_run_refuses_is_refused(
        self, tiny: Path, cli: Cli, change: tuple[str, str], said: str
    ) -> None:
        text = (tiny / "recipe.yaml").read_text()
        (tiny / "recipe.yaml").write_text(text.replace(*change))
        done = cli("plan", "recipe.yaml", cwd=tiny)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
