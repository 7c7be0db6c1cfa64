"""Progress: what a terminal shows, what a file gets, and what the log keeps."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from lepton_compress.report import progress
from lepton_compress.report.progress import Bars
from lepton_compress.report.silent import Silent


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def said(held: Console) -> str:
    assert isinstance(held.file, io.StringIO)
    return held.file.getvalue()


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any time is worth a line."""
    monkeypatch.setattr(progress, "_WORTH_A_LINE", 0.0)


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="lepton_compress"):
        yield


def test_a_file_gets_a_line_for_what_took_long(instant: None) -> None:
    held = console(terminal=False)
    with Bars(held) as bars, bars.work("train", 3) as work:
        work.advance(3)
    (line,) = said(held).splitlines()
    assert line.endswith(" s  train")


def test_what_was_quick_gets_none() -> None:
    held = console(terminal=False)
    with Bars(held) as bars, bars.work("train"):
        pass
    assert said(held) == ""


def test_inner_work_is_told_under_the_outer_one(
    instant: None, caplog: pytest.LogCaptureFixture
) -> None:
    held = console(terminal=False)
    with Bars(held) as bars, bars.work("prune > distil"), bars.work("epoch", 2) as work:
        work.advance(note="loss 0.5")
    (line,) = said(held).splitlines()
    assert line.endswith("prune > distil")
    messages = [each.getMessage().partition(" after")[0] for each in caplog.records]
    assert messages == [
        "begin prune > distil",
        "begin prune > distil: epoch",
        "end prune > distil: epoch",
        "end prune > distil",
    ]


@pytest.mark.parametrize("note", ["loss [0.5]", "[/]", "[red]", "[/bold] of [b]"])
def test_a_terminal_shows_bars_whatever_the_label_holds(note: str) -> None:
    held = console(terminal=True)
    with Bars(held) as bars, bars.work(f"a step {note}", 2) as work:
        work.advance(note=note)
        bars.bars.refresh()
    assert f"a step {note}" in said(held)
    assert "50%" in said(held)


def test_an_error_leaves_no_bar_behind() -> None:
    bars = Bars(console(terminal=False))
    with pytest.raises(ValueError, match="no"), bars, bars.work("a"), bars.work("b"):
        raise ValueError("no")
    assert bars.labels == []
    assert bars.tasks == []
    assert bars.bars.tasks == []


def test_quiet_says_nothing_and_logs_all_the_same(
    instant: None, caplog: pytest.LogCaptureFixture
) -> None:
    held = console(terminal=True)
    with Bars(held, quiet=True) as bars, bars.work("train"):
        bars.note("[careful]")
    assert said(held) == ""
    assert "[careful]" in caplog.messages


def test_a_note_is_shown_as_it_is() -> None:
    held = console(terminal=False)
    with Bars(held) as bars:
        bars.note("int8 [/x] saturates")
    assert said(held) == "    note  int8 [/x] saturates\n"


def test_the_silent_one_only_logs(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = Silent()
    with silent.work("train", 2) as work:
        work.advance(1, "half")
    silent.note("careful")
    assert caplog.messages == ["train", "careful"]
    assert capsys.readouterr() == ("", "")
