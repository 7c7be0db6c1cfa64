"""The documents: what they show is true, and what they promise runs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
RECIPES = sorted(ROOT.glob("recipes/*.yaml"))


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recipe_reference_is_up_to_date(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "recipe.md").read_text() == generate.page(), "run `make docs`"


def test_schema_file_is_up_to_date(generate: ModuleType) -> None:
    held = (ROOT / "recipes" / "recipe.schema.json").read_text()
    assert held == generate.schema(), "run `make docs`"


def test_what_is_made_from_the_fleets_models_is_up_to_date(generate: ModuleType) -> None:
    for name, text in generate.more().items():
        assert (ROOT / "docs" / name).read_text() == text, "run `make docs`"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipe_names_and_fits_the_schema(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=./recipe.schema.json\n")
    schema = json.loads((ROOT / "recipes" / "recipe.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(text), schema)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [each for each in targets if "://" not in each and not (page.parent / each).exists()]
    assert missing == []


def test_readme_names_every_command() -> None:
    from typer.main import get_command

    from lepton_compress.cli import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    text = (ROOT / "README.md").read_text()
    assert [name for name in sorted(commands) if f"`{name}`" not in text] == []


@pytest.mark.slow
def test_readme_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the size" in done.stdout
    assert (tmp_path / "runs" / "from-a-script" / "artifacts" / "compressed.onnx").is_file()


def test_contributing_example_is_a_step(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "example_step.py").write_text(code)
    check = (
        "import numpy, torch, example_step as e\n"
        "from lepton_compress import Model\n"
        "net = torch.nn.Linear(2, 2)\n"
        "before = net.weight.detach().clone()\n"
        "made = e.scale(Model('module', net, (), ()), e.Scale(factor=2.0), None)\n"
        "assert torch.equal(made.model.value.weight, 2 * before)\n"
        "assert torch.equal(net.weight, before)\n"
        "assert e.scale.__lepton_plugin__.name == 'scale'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
