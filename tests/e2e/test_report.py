"""`report` and `compare` as a user runs them, on a real run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lepton_compress.errors import EXIT_OK, EXIT_USER
from lepton_compress.provenance import digest
from tests.report.pages import read

if TYPE_CHECKING:
    from tests.conftest import Cli


@pytest.fixture
def runs(tiny_run: Path, tmp_path: Path) -> Path:
    """A folder with a run twice, the second one as if on another machine and older."""
    for name in ("one", "two"):
        shutil.copytree(tiny_run / "runs" / "tiny", tmp_path / name)
    file = tmp_path / "two" / "result.json"
    body = json.loads(file.read_text())
    body["environment"]["cpu"]["name"] = "Another CPU"
    held = {k: v for k, v in body.items() if k not in ("schema", "digest", "fronts", "labels")}
    file.write_text(json.dumps({"schema": 1, "digest": digest(held), **held}))
    return tmp_path


def test_a_run_leaves_its_page(tiny_run: Path) -> None:
    folder = tiny_run / "runs" / "tiny"
    said = read((folder / "report.html").read_text()).says()
    for text in ("chosen on onnxruntime-cpu", "coarse", "Accuracy against latency", "MatMul",
                 "lepton-compress run ../../recipe.yaml", "per_channel: false"):  # fmt: skip
        assert text in said, text
    result = json.loads((folder / "result.json").read_text())
    assert len(result["labels"]) == result["scores"][0]["samples"]
    (front,) = result["fronts"]
    assert front["members"]
    assert (folder / "report.html").stat().st_size < 1_000_000


class TestReport:
    def test_joins_runs_into_one_page(self, cli: Cli, runs: Path) -> None:
        done = cli("report", "one", "two", "--out", "both.html", cwd=runs)
        assert (done.returncode, done.stdout) == (EXIT_OK, "")
        assert done.stderr.strip() == "written to both.html"
        said = read((runs / "both.html").read_text()).says()
        assert "2 runs side by side" in said
        assert "measured on other hardware" in said

    @pytest.mark.parametrize(
        ("option", "name", "start"),
        [
            ("--html", "report.html", b"<!doctype html>"),
            ("--png", "report.png", b"\x89PNG"),
            ("--svg", "report.svg", b"<?xml"),
        ],
    )
    def test_files_by_option(
        self, cli: Cli, runs: Path, option: str, name: str, start: bytes
    ) -> None:
        if option != "--html":
            pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
        done = cli("report", "one", option, cwd=runs)
        assert done.returncode == EXIT_OK, done.stderr
        assert (runs / name).read_bytes().lstrip().startswith(start)

    def test_markdown_and_json_are_printed(self, cli: Cli, runs: Path) -> None:
        text = cli("report", "one", "--markdown", cwd=runs)
        assert text.stdout == (runs / "one" / "report.md").read_text()
        done = cli("report", "one", "two/result.json", "--json", cwd=runs)
        made = json.loads(done.stdout)
        assert [each["recipe"] for each in made["results"]] == ["tiny", "tiny"]
        assert {each["schema"] for each in made["results"]} == {2}
        assert made["notes"] == ["measured on other hardware: latencies tell of the machines too"]

    def test_into_a_folder(self, cli: Cli, runs: Path) -> None:
        (runs / "out").mkdir()
        assert cli("report", "one", "--markdown", "--out", "out", cwd=runs).returncode == EXIT_OK
        assert (runs / "out" / "report.md").read_text().startswith("# tiny: ")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["gone"], "gone: no such file; run the recipe first"),
            (["one", "--html", "--png"], "--html and --png exclude each other; give one"),
            (["one", "--out", "gone/a.html"], "gone: no such folder; make it, or name another"),
            (["one", "--out", "one/result.json"], "is where a run keeps its result"),
        ],
    )
    def test_mistakes_are_one_line(
        self, cli: Cli, runs: Path, arguments: list[str], said: str
    ) -> None:
        done = cli("report", *arguments, cwd=runs)
        assert done.returncode == EXIT_USER
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

    def test_an_edited_result_is_noticed(self, cli: Cli, runs: Path) -> None:
        file = runs / "one" / "result.json"
        file.write_text(file.read_text().replace('"passed": true', '"passed": false'))
        for command in (("report", "one"), ("compare", "one", "two")):
            done = cli(*command, cwd=runs)
            assert done.returncode == EXIT_USER
            assert "was edited or damaged: its digest does not match" in done.stderr


class TestCompare:
    def test_a_table_with_what_differs_around_it(self, cli: Cli, runs: Path) -> None:
        done = cli("compare", "one", "two", cwd=runs)
        assert done.returncode == EXIT_OK, done.stderr
        assert "note: measured on other hardware" in done.stdout
        assert "int8" in done.stdout
        assert "to own baselines" in done.stdout

    def test_two_candidates_as_json(self, cli: Cli, runs: Path) -> None:
        done = cli("compare", "one:int8", "one:coarse", "--json", cwd=runs)
        made = json.loads(done.stdout)
        (pair,) = made["pairs"]
        assert (pair["one"], pair["other"], pair["same_file"]) == ("int8", "coarse", False)
        assert pair["scores"][0]["interval"] is not None

    def test_markdown(self, cli: Cli, runs: Path) -> None:
        done = cli("compare", "one", "two", "--markdown", cwd=runs)
        assert done.stdout.startswith("# one -> two\n")
        assert done.stdout.count("| --- ") == 9

    def test_mistakes_are_one_line(self, cli: Cli, runs: Path) -> None:
        for arguments, said in (
            (("one", "gone"), "gone: no such file; run the recipe first"),
            (("one:int9", "one:int8"), "one: unknown candidate 'int9'; did you mean 'int8'?"),
            (("one", "one", "--json", "--markdown"), "--markdown and --json exclude each other"),
        ):
            done = cli("compare", *arguments, cwd=runs)
            assert done.returncode == EXIT_USER
            assert said in done.stderr
