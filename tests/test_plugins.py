"""Plug-ins are listed, the broken ones too, and their parameters are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lepton_compress import registry
from lepton_compress.errors import RecipeError
from lepton_compress.plugins import listing, page

if TYPE_CHECKING:
    from tests.conftest import Cli, Install

HALVE = """\
from typing import Annotated
from pydantic import Field
from lepton_compress import Params, plugin
from lepton_compress.units import Percent


class Below(Params):
    must: str
    may: int = Field(3, description="An inner one.")


class Halve(Params):
    share: Percent = Field(0.5, description="How much.")
    depth: Annotated[int, Field(ge=1, lt=9)]
    names: list[str] = []
    below: Below | None = None
    free: dict = {}


@plugin("step", "halve", Halve, form="graph")
def halve(model, params, context):
    \"\"\"Halves it.

    At length.
    \"\"\"
"""


def test_every_built_in_is_listed_and_works() -> None:
    rows = listing()
    assert {(row.kind, row.name) for row in rows} >= set(registry.BUILTIN)
    assert [row for row in rows if row.broken] == []
    assert all(row.summary for row in rows)
    kinds = [row.kind for row in rows]
    assert kinds == sorted(kinds, key=registry.KINDS.index)


def test_one_kind() -> None:
    rows = listing("metric")
    assert {row.kind for row in rows} == {"metric"}
    assert [row.name for row in rows] == sorted(row.name for row in rows)


@pytest.mark.parametrize(("kind", "name"), list(registry.BUILTIN))
def test_every_built_in_has_a_page(kind: str, name: str) -> None:
    made = page(kind, name)
    assert made.origin == "built-in"
    for row in made.parameters:
        assert row.type not in ("", "anything")


def test_parameters_are_told_as_a_recipe_writes_them(third_party: Install) -> None:
    third_party({"step.halve": "halves:halve"}, halves=HALVE)
    made = page("step", "halve")
    assert (made.origin, made.form, made.summary, made.about) == (
        "acme",
        "graph",
        "Halves it.",
        "At length.",
    )
    told = {row.name: (row.type, row.default, row.description) for row in made.parameters}
    assert told == {
        "share": ("such as 1 %", "50 %", "How much."),
        "depth": ("whole number, at least 1 and below 9", None, ""),
        "names": ("list of text", "[]", ""),
        "below": ("mapping", "none", ""),
        "below.must": ("text", None, ""),
        "below.may": ("whole number", "3", "An inner one."),
        "free": ("mapping", "{}", ""),
    }


def test_broken_ones_say_why(third_party: Install) -> None:
    third_party(
        {"step.lost": "gone:lost", "metric.bad": "bad:bad", "loader.none": "bad2:none"},
        bad="1 / 0\n",
        bad2="",
    )
    broken = {row.name: row.broken for row in listing() if row.broken}
    assert set(broken) == {"lost", "bad", "none"}
    assert "cannot be imported" in broken["lost"]
    assert "ZeroDivisionError" in broken["bad"]
    assert "is not the loader 'none'" in broken["none"]


def test_a_name_that_two_offer_does_not_stop_the_listing(third_party: Install) -> None:
    third_party({"step.prune": "halves:halve"})
    rows = listing("step")
    assert {row.name for row in rows} >= {"prune", "quantize"}
    assert all("offered twice" in row.broken for row in rows)


@pytest.mark.parametrize("call", [lambda: listing("steps"), lambda: page("steps", "prune")])
def test_unknown_kinds(call: object) -> None:
    assert callable(call)
    with pytest.raises(RecipeError, match="did you mean 'step'"):
        call()


class TestCommand:
    def test_all_of_them(self, tmp_path: Path, cli: Cli) -> None:
        done = cli("plugins", cwd=tmp_path)
        assert done.returncode == 0
        assert "quantize" in done.stdout
        assert "accuracy" in done.stdout
        assert done.stdout == cli("plugins", "list", cwd=tmp_path).stdout

    def test_one_kind(self, tmp_path: Path, cli: Cli) -> None:
        done = cli("plugins", "step", cwd=tmp_path)
        assert "quantize" in done.stdout
        assert "top_k" not in done.stdout

    def test_a_page(self, tmp_path: Path, cli: Cli) -> None:
        done = cli("plugins", "show", "loader", "npz", cwd=tmp_path)
        assert "inputs  list of text  required" in done.stdout
        assert "default 20 %" in done.stdout

    @pytest.mark.parametrize(
        "arguments", [["--json"], ["step", "--json"], ["show", "step", "prune", "--json"]]
    )
    def test_json(self, tmp_path: Path, cli: Cli, arguments: list[str]) -> None:
        assert json.loads(cli("plugins", *arguments, cwd=tmp_path).stdout)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["steps"], "did you mean 'step'?"),
            (["show", "step", "prun"], "did you mean 'prune'?"),
            (["show", "stage", "prune"], "there is no kind of plug-in 'stage'"),
        ],
    )
    def test_unknown_names_are_one_line(
        self, tmp_path: Path, cli: Cli, arguments: list[str], said: str
    ) -> None:
        done = cli("plugins", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_a_broken_one_of_a_third_party_is_no_crash(self, tmp_path: Path, cli: Cli) -> None:
        about = tmp_path / "site" / "acme-0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 0\n")
        (about / "entry_points.txt").write_text(f"[{registry.GROUP}]\nstep.lost = gone:lost\n")
        done = cli("plugins", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
        assert done.returncode == 0
        assert "broken: step 'lost' cannot be imported" in done.stdout
        assert "acme" in done.stdout
