"""`gate` on the command line: its exit codes, its outputs for machines, and how quick it is."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xmlschema
import yaml

from tests.conftest import Cli
from tests.test_import_rules import FRAMEWORKS

DATA = Path(__file__).parents[1] / "data"
LOOSE = "size: 1 MB\ndrop: 50 %\n"
TIGHT = "# what ships must be tiny\nsize: 10 B\n"


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a run's folder, as `tiny`, beside budgets."""
    shutil.copytree(tiny_run / "runs" / "tiny", tmp_path / "runs" / "tiny")
    for name in ("model.onnx", "data.npz", "recipe.yaml"):
        shutil.copy(tiny_run / name, tmp_path)
    (tmp_path / "loose.yaml").write_text(LOOSE)
    (tmp_path / "tight.yaml").write_text(TIGHT)
    return tmp_path


def test_exit_codes_tell_the_outcome(run: Path, cli: Cli) -> None:
    assert cli("gate", "runs/tiny", cwd=run).returncode == 0
    assert cli("gate", "runs/tiny/result.json", "--budget", "loose.yaml", cwd=run).returncode == 0
    failed = cli("gate", "runs/tiny", "--budget", "tight.yaml", cwd=run)
    assert failed.returncode == 1
    assert "FAIL" in failed.stdout
    assert failed.stdout.endswith("failed: 1 of 2 gates\n")
    assert cli("gate", "runs/none", "--budget", "loose.yaml", cwd=run).returncode == 2


def test_machines_get_json_junit_and_sarif_at_once(run: Path, cli: Cli) -> None:
    files = ("--junit", "out/gates.xml", "--sarif", "gates.sarif", "--json", "--github")
    done = cli(
        "gate", "runs/tiny", "--budget", "tight.yaml", *files, cwd=run, GITHUB_STEP_SUMMARY="sum.md"
    )
    assert done.returncode == 1
    judged = json.loads(done.stdout)
    assert (judged["passed"], judged["places"]["size"]) == (False, ["tight.yaml", 2])
    xmlschema.XMLSchema(str(DATA / "junit.xsd")).validate(str(run / "out" / "gates.xml"))
    (alert,) = [
        each
        for each in json.loads((run / "gates.sarif").read_text())["runs"][0]["results"]
        if each["kind"] == "fail"
    ]
    assert alert["ruleId"] == "size"
    assert "::error file=tight.yaml,line=2,title=gate size%3A FAIL::" in done.stderr
    assert (run / "sum.md").read_text().startswith("### Gates: FAILED")


def test_it_loads_no_framework_and_costs_little(run: Path) -> None:
    code = (
        "import sys; from lepton_compress import cli; sys.argv[1:] = "
        "['gate', 'runs/tiny', '--budget', 'loose.yaml', '--junit', 'a.xml']\n"
        "try: cli.main()\nexcept SystemExit as e: assert not e.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=run, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert set(done.stderr.decode().split()) & FRAMEWORKS == set()
    # Half a second where it has the machine for itself; nothing is compiled beforehand here.
    assert after.ru_utime - before.ru_utime < 1.5


def test_a_damaged_result_is_one_line(run: Path, cli: Cli) -> None:
    file = run / "runs" / "tiny" / "result.json"
    file.write_text(file.read_text()[:500])
    done = cli("gate", "runs/tiny", cwd=run)
    assert done.returncode == 2
    assert done.stderr == "error: runs/tiny/result.json: is not a result, or is truncated\n"


def test_limits_are_needed_to_measure_again(run: Path, cli: Cli) -> None:
    done = cli("gate", "runs/tiny", "--measure", cwd=run)
    assert done.returncode == 2
    assert "give --budget or --against" in done.stderr


def test_measuring_again_judges_this_machine(run: Path, cli: Cli) -> None:
    (run / "fast.yaml").write_text("latency: 1 s\nlatency_ratio: 100x\n")
    done = cli("gate", "runs/tiny", "--budget", "fast.yaml", "--measure", "--json", cwd=run)
    assert done.returncode == 0, done.stderr
    judged = json.loads(done.stdout)
    assert judged["measured_again"]
    assert {each["gate"] for each in judged["verdicts"]} == {"parity", "latency", "latency_ratio"}
    with (run / "runs" / "tiny" / "artifacts" / "baseline.onnx").open("ab") as file:
        file.write(b"\0")
    done = cli("gate", "runs/tiny", "--budget", "fast.yaml", "--measure", cwd=run)
    assert done.returncode == 2
    assert "is another file than the run measured" in done.stderr


METRICS = """\
def broken(outputs, targets):
    return float("nan")


def parts(inputs, targets):
    rare = targets < 0
    rare[:4] = True
    return {"rare": rare, "all": targets >= 0}
"""


def rerun(folder: Path, cli: Cli, **changes: object) -> subprocess.CompletedProcess[str]:
    """The tiny recipe without variants, changed."""
    (folder / "own.py").write_text(METRICS)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"variants": {}, "gates": {}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | changes))
    return cli("run", "recipe.yaml", "--json", cwd=folder)


def test_a_metric_that_gives_no_number_is_an_error(tiny: Path, cli: Cli) -> None:
    done = rerun(tiny, cli, metrics=["accuracy", {"python": {"function": "own.py:broken"}}])
    assert done.returncode == 2
    line = "metrics[1]: python gives no number for the original model; check the metric"
    assert line in done.stderr


def test_one_metric_twice_and_a_slice_with_too_few_samples(tiny: Path, cli: Cli) -> None:
    done = rerun(
        tiny,
        cli,
        metrics=["accuracy", {"top_k": {"k": 1, "name": "top1"}}, {"top_k": {"k": 2}}],
        slices="own.py:parts",
        gates={
            "score": {"limit": "10 %", "metric": "top1"},
            "worst_slice": "5 %",
            "worst_class": {"limit": "5 %", "samples": 1},
        },
    )
    assert done.returncode == 1, done.stderr
    made = json.loads(done.stdout)
    assert {each["metric"] for each in made["scores"]} == {"accuracy", "top1", "top_k"}
    verdicts = {each["gate"]: each for each in made["verdicts"]}
    assert (verdicts["score"]["status"], verdicts["worst_class"]["status"]) == ("PASS", "PASS")
    assert verdicts["worst_slice"]["status"] == "INCONCLUSIVE"
    assert verdicts["worst_slice"]["reason"].startswith("slice rare has 4 samples, 20 are needed")
    assert verdicts["worst_slice"]["needed"] == 20
    judged = cli("gate", "runs/tiny", "--json", cwd=tiny)
    assert judged.returncode == 1
