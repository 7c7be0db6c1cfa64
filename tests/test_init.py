"""A recipe to start from is valid as it is, for every form of model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from lepton_compress import recipe
from lepton_compress.errors import InputError, OutputError, RecipeError
from lepton_compress.overviews import Draft
from lepton_compress.scaffold import BLANK, draft, write

if TYPE_CHECKING:
    from tests.conftest import Cli

FACTORY = (
    "class Net: ...\n\ntry:\n    from a import Other as Known\nexcept ImportError:\n    Late = 1\n"
)


@pytest.fixture
def here(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model of each form and two ways to data."""
    (tiny / "net.py").write_text(FACTORY)
    (tiny / "data.py").write_text("def load(): ...\n")
    (tiny / "net.pt2").write_bytes(b"a program, which is not opened")
    (tiny / "recipe.yaml").unlink()
    monkeypatch.chdir(tiny)
    return tiny


def valid(made: Draft, out: Path) -> recipe.Recipe:
    """The recipe of a draft, read as `validate` reads it."""
    out.parent.mkdir(exist_ok=True)
    out.write_text(made.text)
    return recipe.read(out).recipe


@pytest.mark.parametrize("out", [Path("recipe.yaml"), Path("below/recipe.yaml")])
@pytest.mark.parametrize("data", [None, "data.py:load", "data.npz"])
@pytest.mark.parametrize("model", ["model.onnx", "net.pt2", "net.py:Net", "some.package:Net"])
def test_it_is_valid_and_its_paths_lead_to_the_files(
    here: Path, model: str, data: str | None, out: Path
) -> None:
    made = draft(model, out=out, data=data)
    read = valid(made, out)
    named = str(read.model.factory or read.model.program or read.model.onnx)
    place = named.rpartition(":")[0] or named
    assert place == "some.package" or (out.parent / place).is_file()
    loader = read.data.parameters
    if data is not None:
        file = str(loader.get("path") or loader["function"]).partition(":")[0]
        assert (out.parent / file).is_file()
    assert max(len(line) for line in made.text.splitlines()) <= 100


@pytest.mark.parametrize(
    ("model", "form", "steps"),
    [
        ("model.onnx", "graph", {"quantize"}),
        ("net.pt2", "program", {"quantize"}),
        ("net.py:Net", "module", {"prune", "distil", "quantize"}),
    ],
)
def test_the_variants_fit_the_form(here: Path, model: str, form: str, steps: set[str]) -> None:
    made = draft(model, out=Path("recipe.yaml"))
    read = valid(made, Path("recipe.yaml"))
    assert made.form == form
    assert {step.name for variant in read.variants.values() for step in variant} == steps


def test_blanks_are_what_only_the_user_knows(here: Path) -> None:
    made = draft("net.py:Net", out=Path("recipe.yaml"))
    assert len(made.blanks) == made.text.count(BLANK) == 2
    assert draft("model.onnx", out=Path("r.yaml"), data="data.npz").blanks == ()


def test_arrays_of_an_npz_are_told_apart(here: Path) -> None:
    read = valid(draft("model.onnx", out=Path("r.yaml"), data="data.npz"), Path("r.yaml"))
    assert read.data.parameters == {"path": "data.npz", "inputs": ["x"], "targets": "y"}
    assert [metric.name for metric in read.metrics] == ["accuracy"]


def test_targets_that_are_numbers_get_an_error_metric(here: Path) -> None:
    np.savez(here / "house.npz", size=np.ones((4, 2)), target=np.ones(4))
    read = valid(draft("net.pt2", out=Path("r.yaml"), data="house.npz"), Path("r.yaml"))
    assert read.data.parameters["inputs"] == ["size"]
    assert [metric.name for metric in read.metrics] == ["mean_absolute_error"]


def test_an_npz_without_known_targets_leaves_a_blank(here: Path) -> None:
    np.savez(here / "odd.npz", a=np.ones(4), b=np.ones(4))
    made = draft("net.pt2", out=Path("r.yaml"), data="odd.npz")
    assert len(made.blanks) == 1
    assert f"{BLANK}: has a, b" in made.text
    valid(made, Path("r.yaml"))


def test_weights_beside_the_factory_are_found(here: Path) -> None:
    (here / "net.safetensors").write_bytes(b"")
    read = valid(draft("net.py:Net", out=Path("below/r.yaml")), Path("below/r.yaml"))
    assert read.model.weights == "../net.safetensors"
    (here / "second.pt").write_bytes(b"")
    assert valid(draft("net.py:Net", out=Path("r.yaml")), Path("r.yaml")).model.weights is None
    made = draft("net.py:Net", out=Path("r.yaml"), weights="second.pt")
    assert valid(made, Path("r.yaml")).model.weights == "second.pt"


@pytest.mark.parametrize("name", ["a b: c", "-", "null", "#x", "é", "1.0", "'"])
def test_odd_names_are_spelled_as_yaml_wants_them(here: Path, name: str) -> None:
    (here / "model.onnx").rename(here / f"{name}.onnx")
    read = valid(draft(f"{name}.onnx", out=Path("r.yaml")), Path("r.yaml"))
    assert read.model.onnx == f"{name}.onnx"


@pytest.mark.parametrize("name", ["Known", "Late"])
def test_names_that_are_bound_in_blocks_count(here: Path, name: str) -> None:
    draft(f"net.py:{name}", out=Path("r.yaml"))


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("none.onnx", {}, "none.onnx: no such file"),
        ("model.txt", {}, "is no model"),
        ("none.py:Net", {}, "none.py: no such file"),
        ("net.py:Nett", {}, "did you mean 'Net'?"),
        ("net.py:", {}, "is not a reference"),
        ("model.onnx", {"data": "none.npz"}, "none.npz: no such file"),
        ("model.onnx", {"data": "data.py:lod"}, "did you mean 'load'?"),
        ("model.onnx", {"data": "net.pt2"}, "is not a reference"),
        ("net.py:Net", {"weights": "none.pt"}, "none.pt: no such file"),
    ],
)
def test_what_is_not_there_is_an_error(
    here: Path, model: str, options: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        draft(model, out=Path("r.yaml"), **options)
    assert said in str(caught.value)


def test_weights_go_with_a_factory(here: Path) -> None:
    with pytest.raises(RecipeError, match="--weights"):
        draft("model.onnx", out=Path("r.yaml"), weights="net.pt2")


def test_a_file_that_is_no_npz(here: Path) -> None:
    (here / "bad.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"not an \.npz"):
        draft("model.onnx", out=Path("r.yaml"), data="bad.npz")


def test_nothing_is_overwritten_unless_forced(here: Path) -> None:
    out = here / "recipe.yaml"
    out.write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        write("model.onnx", out=out, force=False)
    assert out.read_text() == "mine"
    assert write("model.onnx", out=out, force=True).path == out
    assert out.read_text() != "mine"
    with pytest.raises(OutputError, match="is a folder"):
        write("model.onnx", out=here, force=True)


class TestCommand:
    def test_the_next_command_is_printed_and_works(self, here: Path, cli: Cli) -> None:
        done = cli("init", "model.onnx", "--data", "data.npz", "--out", "a b.yaml", cwd=here)
        assert done.returncode == 0, done.stderr
        assert "next: lepton-compress plan 'a b.yaml'" in done.stdout
        assert cli("plan", "a b.yaml", cwd=here).returncode == 0

    def test_blanks_are_listed(self, here: Path, cli: Cli) -> None:
        done = cli("init", "net.py:Net", cwd=here)
        assert done.stdout.count("fill in") == 2
        assert "next: lepton-compress validate recipe.yaml" in done.stdout
        assert cli("validate", "recipe.yaml", cwd=here).returncode == 0

    def test_json(self, here: Path, cli: Cli) -> None:
        found = json.loads(cli("init", "net.pt2", "--json", cwd=here).stdout)
        assert found["path"] == "recipe.yaml"
        assert yaml.safe_load(found["draft"]["text"])["model"] == {"program": "net.pt2"}

    def test_an_existing_file_is_one_line(self, here: Path, cli: Cli) -> None:
        (here / "recipe.yaml").write_text("mine")
        done = cli("init", "model.onnx", cwd=here)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "error: recipe.yaml: exists already; name another with --out, or pass --force"
        ]

    def test_what_it_wrote_runs(self, here: Path, cli: Cli) -> None:
        cli("init", "model.onnx", "--data", "data.npz", cwd=here)
        with (here / "recipe.yaml").open("a") as file:
            file.write("measure: {rounds: 5, cap: 1 s}\n")
        done = cli("run", "recipe.yaml", cwd=here)
        assert done.returncode in (0, 1), done.stderr  # a busy machine may miss the time gate
        assert (here / "runs" / "model" / "result.json").is_file()
