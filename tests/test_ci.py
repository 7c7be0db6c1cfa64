"""The action and the examples for CI: what they call exists, and the budget shown is one."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from typer.main import get_command

from lepton_compress.budget import read_budget
from lepton_compress.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "ci.md").read_text()
BLOCKS = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)


def options() -> set[str]:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    return {name for each in commands["gate"].params for name in each.opts}


def test_the_budget_on_the_page_is_one(tmp_path: Path) -> None:
    (text,) = [text for name, text in BLOCKS if name == "budget.yaml"]
    (tmp_path / "budget.yaml").write_text(text)
    assert read_budget(tmp_path / "budget.yaml").budget.regression.size.limit == 1.02


def test_every_option_named_exists() -> None:
    action = (ROOT / "action.yml").read_text()
    named = {
        option
        for line in [*PAGE.splitlines(), *action.splitlines()]
        if "lepton-compress gate" in line or "options" in line
        for option in re.findall(r"--[a-z]+", line)
    }
    assert named
    assert named <= options()


def test_the_workflow_gives_the_action_what_it_takes() -> None:
    (text,) = [text for name, text in BLOCKS if name.endswith("compress.yml")]
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = [
        step
        for step in yaml.safe_load(text)["jobs"]["compress"]["steps"]
        if step.get("uses", "").startswith("lepton-compress/")
    ]
    required = {name for name, each in action["inputs"].items() if each.get("required")}
    assert required <= set(step["with"]) <= set(action["inputs"])
    assert action["runs"]["using"] == "composite"


def test_no_input_of_the_action_is_read_as_shell() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    scripts = [step["run"] for step in action["runs"]["steps"] if "run" in step]
    assert scripts
    assert not any("${{" in script for script in scripts)
