"""Where a report goes, and what kind it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_compress import joined
from lepton_compress.errors import InputError, OutputError
from lepton_compress.report.folder import to_json
from tests.report.results import result


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.html", "html"), ("a.HTM", "html"), ("a.md", "markdown"), ("a.json", "json"),
     ("a.png", "png"), ("a.svg", "svg"), ("a.txt", "html"), ("folder", "html")],
)  # fmt: skip
def test_a_name_asks_for_a_kind(name: str, kind: str) -> None:
    assert joined.kind_of(Path(name)) == kind
    assert joined.kind_of(None) == "html"


def test_a_folder_gets_a_file(tmp_path: Path) -> None:
    assert joined.place(tmp_path, "png") == tmp_path / "report.png"
    assert joined.place(tmp_path / "x.html", "html") == tmp_path / "x.html"
    assert joined.place(None, "markdown") == Path("report.md")


def test_a_result_is_never_written_over(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is where a run keeps its result; name another"):
        joined.place(tmp_path / "result.json", "json")
    with pytest.raises(OutputError, match="no such folder"):
        joined.place(tmp_path / "gone" / "a.html", "html")


def test_a_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(to_json(result(scores=(), labels=())))
    with pytest.raises(InputError, match="has nothing to draw"):
        joined.report([tmp_path], "png")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.mkdir()
    with pytest.raises((OutputError, OSError)):
        joined.write(b"new", file)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
