"""What is kept is listed, and room is made from the least recently used end."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from lepton_compress.cache import DAMAGED, listing, prune
from lepton_compress.errors import RecipeError
from lepton_compress.report.cache import ago
from lepton_compress.store import Store, key

if TYPE_CHECKING:
    from tests.conftest import Cli

DAY = 86400


def fill(workspace: Path, ages: dict[str, float], size: int = 1000) -> dict[str, str]:
    """A result for each label, last used that many seconds ago; label to key."""
    store, keys = Store(workspace), {}
    for label, age in ages.items():
        keys[label] = key("test", label=label)

        def build(folder: Path) -> dict[str, str]:
            (folder / "file").write_bytes(b"x" * size)
            return {}

        entry = store.make(keys[label], label, build)
        used = time.time() - age
        os.utime(entry.folder / "entry.json", (used, used))
    return keys


def labels(workspace: Path) -> list[str]:
    return [row.label for row in listing(workspace).entries]


def test_listing_has_the_most_recently_used_first(tmp_path: Path) -> None:
    keys = fill(tmp_path, {"old": 3 * DAY, "new": 10, "middle": DAY})
    found = listing(tmp_path)
    assert [row.label for row in found.entries] == ["new", "middle", "old"]
    assert {row.key for row in found.entries} == set(keys.values())
    held = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert found.bytes == held
    assert found.unfinished == 0


def test_listing_is_no_use(tmp_path: Path) -> None:
    fill(tmp_path, {"old": DAY})
    before = listing(tmp_path)
    assert listing(tmp_path) == before


def test_a_workspace_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert listing(tmp_path / "none").entries == ()
    assert prune(tmp_path / "none", everything=True).removed == ()
    assert not (tmp_path / "none").exists()


def test_older_than(tmp_path: Path) -> None:
    fill(tmp_path, {"old": 8 * DAY, "new": 6 * DAY})
    made = prune(tmp_path, older_than=7 * DAY)
    assert [row.label for row in made.removed] == ["old"]
    assert labels(tmp_path) == ["new"]
    assert made.freed == made.removed[0].bytes > 1000
    assert (made.kept, made.kept_bytes) == (1, listing(tmp_path).bytes)


def test_to_size_keeps_the_most_recently_used(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 4, "b": 3, "c": 2, "d": 1})
    each = listing(tmp_path).entries[0].bytes
    made = prune(tmp_path, to_size=2 * each)
    assert [row.label for row in made.removed] == ["a", "b"]
    assert labels(tmp_path) == ["d", "c"]
    assert prune(tmp_path, to_size=2 * each).removed == ()


def test_a_dry_run_removes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 1})
    made = prune(tmp_path, everything=True, dry_run=True)
    assert len(made.removed) == 2
    assert made.kept == 0
    assert len(labels(tmp_path)) == 2


def test_what_is_being_made_stays(tmp_path: Path) -> None:
    keys = fill(tmp_path, {"busy": 2, "idle": 1})
    with FileLock(tmp_path / "store" / "locks" / f"{keys['busy']}.lock"):
        made = prune(tmp_path, everything=True)
    assert [row.label for row in made.removed] == ["idle"]
    assert made.busy == 1
    assert labels(tmp_path) == ["busy"]


def test_damaged_results_are_listed_and_go_with_all(tmp_path: Path) -> None:
    keys = fill(tmp_path, {"good": 1, "bad": 2})
    held = keys["bad"]
    (tmp_path / "store" / held[:2] / held / "entry.json").write_text("{")
    assert sorted(labels(tmp_path)) == [DAMAGED, "good"]
    prune(tmp_path, everything=True)
    assert labels(tmp_path) == []


def test_nothing_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--older-than, --to-size or --all"):
        prune(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "just now"),
        (59, "59 s ago"),
        (3599, "59 min ago"),
        (7200, "2 h ago"),
        (9e5, "10 d ago"),
    ],
)
def test_ages_are_shown_in_the_largest_whole_unit(seconds: float, shown: str) -> None:
    assert ago(seconds) == shown


class TestCommand:
    def test_list(self, tiny_run: Path, cli: Cli) -> None:
        done = cli("cache", "list", cwd=tiny_run)
        assert done.returncode == 0
        assert "export onnx" in done.stdout
        assert "results, " in done.stdout.splitlines()[-1]

    def test_list_json(self, tiny_run: Path, cli: Cli) -> None:
        found = json.loads(cli("cache", "list", "--json", cwd=tiny_run).stdout)
        assert found["bytes"] == sum(each["bytes"] for each in found["entries"])

    def test_prune_and_run_again(self, tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
        shutil.copytree(tiny_run / ".lepton", tmp_path / "kept")
        arguments = ("--workspace", "kept", "--older-than", "7 d", "--to-size", "1 KB", "--json")
        made = json.loads(cli("cache", "prune", *arguments, cwd=tmp_path).stdout)
        assert made["removed"]
        assert listing(tmp_path / "kept").bytes == made["kept_bytes"] <= 1000

    def test_prune_says_what_it_freed(self, tmp_path: Path, cli: Cli) -> None:
        fill(tmp_path / ".lepton", {"a": 1})
        done = cli("cache", "prune", "--all", "--dry-run", cwd=tmp_path)
        assert "would free 1." in done.stdout
        done = cli("cache", "prune", "--all", cwd=tmp_path)
        assert "freed 1." in done.stdout
        assert "nothing is kept" in cli("cache", "list", cwd=tmp_path).stdout

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "nothing says what to remove"),
            (["--older-than", "7"], "the unit is missing"),
            (["--to-size", "much"], "is not a number with a unit"),
        ],
    )
    def test_wrong_options_are_one_line(
        self, tmp_path: Path, cli: Cli, arguments: list[str], said: str
    ) -> None:
        done = cli("cache", "prune", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
