"""Errors become a line and an exit code in one place, and nobody else chooses the exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from lepton_compress.boundary import guarded, working
from lepton_compress.errors import (
    EXIT_GATE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNEXPECTED,
    EXIT_USER,
    InputError,
    PluginError,
    RecipeError,
)


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Not pytest's own, and logs where they can be found."""
    monkeypatch.setattr(sys, "argv", ["lepton-compress"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    level = logging.getLogger("lepton_compress").level
    yield
    logging.getLogger("lepton_compress").setLevel(level)


def ended(error: BaseException | None) -> int:
    """The exit code of a command whose work ends in that error."""

    def program() -> None:
        with working():
            os.write(1, b"a library says\n")
            if error is not None:
                raise error

    return guarded(program)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, EXIT_OK),
        (typer.Exit(EXIT_GATE), EXIT_GATE),
        (RecipeError("wrong"), EXIT_USER),
        (InputError("wrong"), EXIT_USER),
        (PluginError("broke"), EXIT_UNEXPECTED),
        (ValueError("what"), EXIT_UNEXPECTED),
        (KeyboardInterrupt(), EXIT_INTERRUPTED),
    ],
    ids=repr,
)
def test_each_ends_in_its_code(
    error: BaseException | None, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended(error) == code
    said = capfd.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    if code in (EXIT_USER, EXIT_UNEXPECTED):
        assert said.err.startswith("error: ")


@pytest.mark.parametrize("given", [0, 1, None, "bye"])
def test_code_that_exits_does_not_choose_the_code(
    given: int | str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    # 0 would tell a build server that every gate has passed.
    assert ended(SystemExit(given)) == EXIT_UNEXPECTED
    line = f"error: code that was called for the run exited with {given!r}\n"
    assert capfd.readouterr().err.startswith(line)


def test_an_unexpected_error_leaves_its_log_with_what_libraries_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    ended(ValueError("what"))
    log = Path(capfd.readouterr().err.rpartition("the log is ")[2].strip())
    assert "ValueError: what" in log.read_text()
    assert "a library says" in log.read_text()


@pytest.mark.parametrize("error", [None, InputError("wrong"), KeyboardInterrupt()], ids=repr)
def test_nothing_is_left_otherwise(error: BaseException | None, tmp_path: Path) -> None:
    ended(error)
    assert list(tmp_path.glob("lepton-compress-*")) == []


def test_every_finding_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    others = (RecipeError("second", where="b"), RecipeError("third", where="c", mend="mend it"))
    assert ended(RecipeError("first", where="a", others=others)) == EXIT_USER
    assert capfd.readouterr().err.splitlines() == [
        "error: a: first",
        "error: b: second",
        "error: c: third; mend it",
    ]
