"""Help, and what the shell completes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lepton_compress.options import complete_model, complete_recipe

if TYPE_CHECKING:
    from tests.conftest import Cli

COMMANDS = ["explain", "run", "validate", "schema", "plan", "inspect", "init", "doctor", "gate"]
COMMANDS += ["report", "compare", "predict"]
COMMANDS += ["split"]
COMMANDS += ["place", "sensitivity"]
GROUPS = {"plugins": ["list", "show"], "cache": ["list", "prune"], "targets": ["show"]}
ALL = [[each] for each in [*COMMANDS, *GROUPS]]
ALL += [[group, each] for group, below in GROUPS.items() for each in below]


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_help_shows_an_example(tmp_path: Path, cli: Cli, command: list[str]) -> None:
    done = cli(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"Example: `lepton-compress {command[0]}" in done.stdout


def test_help_names_every_command_and_cuts_no_summary(tmp_path: Path, cli: Cli) -> None:
    shown = cli("--help", cwd=tmp_path).stdout
    for command in [*COMMANDS, *GROUPS]:
        assert f"\n  {command} " in shown
    assert "..." not in shown.partition("Commands:")[2]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['lepton-compress', '--help']\n"
        "from lepton_compress.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "typer" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "numpy", "rich", "pydantic", "yaml"}


@pytest.mark.parametrize(
    "arguments",
    [["plan", "none.yaml"], ["inspect", "none"], ["init", "none"], ["cache", "prune"]],
    ids=" ".join,
)
def test_errors_are_json_too(tmp_path: Path, cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["plan"], ["inspect"], ["init"], ["plugins", "show"], ["cache", "trim"], ["nonsense"]],
)
def test_wrong_usage(tmp_path: Path, cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def complete(cli: Cli, folder: Path, words: str) -> list[str]:
    """What bash is offered for the last of the words."""
    count = str(len(words.split(" ")) - 1)
    asked = {"_LEPTON_COMPRESS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
    return cli(cwd=folder, **asked).stdout.split()


class TestCompletion:
    @pytest.mark.parametrize(
        ("words", "offered"),
        [
            ("lepton-compress p", ["plan", "predict", "place", "plugins"]),
            ("lepton-compress cache ", ["list", "prune"]),
            ("lepton-compress plan r", ["recipe.yaml"]),
            ("lepton-compress inspect m", ["model.onnx"]),
            ("lepton-compress plugins show exp", ["exporter"]),
            ("lepton-compress plugins show exporter ", ["executorch", "litert", "onnx"]),
        ],
    )
    def test_words(self, tiny: Path, cli: Cli, words: str, offered: list[str]) -> None:
        assert complete(cli, tiny, words) == offered

    def test_every_command(self, tmp_path: Path, cli: Cli) -> None:
        assert set(complete(cli, tmp_path, "lepton-compress ")) == {*COMMANDS, *GROUPS}

    def test_the_script_for_bash(self, tmp_path: Path, cli: Cli) -> None:
        done = cli("--show-completion", cwd=tmp_path, SHELL="/bin/bash")
        if done.returncode == 0:  # it looks at the process above, which may be no shell
            assert "COMPREPLY" in done.stdout


def test_paths_complete_through_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    for name in ("recipes/a.yaml", "recipes/b.onnx", "recipes/.hidden.yaml", "c.yml"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    assert complete_recipe("") == ["c.yml", "recipes/"]
    assert complete_recipe("recipes/") == ["recipes/a.yaml"]
    assert complete_model(f"{tmp_path}/recipes/b") == [f"{tmp_path}/recipes/b.onnx"]
    assert complete_recipe("none/x") == []
