"""Every shipped recipe runs, and its gates hold; skipped where its data is not at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from lepton_compress.errors import EXIT_OK
from lepton_compress.load.files import VARIABLE
from tests.bench import Bench, finish

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("recipes/*.yaml"))
SHIPS = ("digits-cnn", "digits-transfer")
"""Those whose data comes with a package."""
LONG = 1500.0
"""Seconds: some train, and one searches over a network of 385 million multiply-accumulates."""


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_gates_hold(path: Path, tmp_path: Path) -> None:
    if path.stem not in SHIPS and not os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} does not say where its data lies")
    done = finish(Bench(tmp_path).start("run", path), deadline=LONG)
    assert done.code == EXIT_OK, done
    assert (tmp_path / "runs" / path.stem / "report.html").is_file()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_is_told_in_the_table_of_results(path: Path) -> None:
    assert f"[{path.stem}](../recipes/{path.stem}.yaml)" in (ROOT / "docs/results.md").read_text()


FROM_SCRIPTS = {"restore", "restore_graph"}
"""They take what a training script has saved, as docs/training-scripts.md shows."""


def test_every_technique_is_in_one_of_them() -> None:
    from lepton_compress.recipe import StepUse, read
    from lepton_compress.registry import names

    used = {
        use.name
        for path in RECIPES
        for _, use in read(path).recipe.uses()
        if isinstance(use, StepUse)
    }
    assert set(names("step")) - used == FROM_SCRIPTS


def test_every_recipe_has_a_gate_on_what_may_be_lost() -> None:
    for path in RECIPES:
        gates = yaml.safe_load(path.read_text())["gates"]
        assert {"drop", "score"} & set(gates), path.stem
