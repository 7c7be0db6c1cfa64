"""The table on a terminal: whole at any width, and honest about what is missing."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from lepton_compress.artifacts import Choice, RunResult
from lepton_compress.report import terminal
from tests.report.results import profile, result


def shown(held: RunResult, width: int = 140) -> list[str]:
    console = Console(file=io.StringIO(), width=width, soft_wrap=True)
    terminal.show(held, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 140, 200])
def test_no_cell_is_ever_cut(width: int) -> None:
    text = "\n".join(shown(result(("edge", "cloud")), width))
    assert "…" not in text
    for cell in ("target", "variant", "accuracy", "97.00 %", "60.0 KB", "1.00 ms", "FAIL size"):
        assert cell in text
    assert "\nedge" in text.replace(" edge", "\nedge")
    assert "cloud" in text


def test_intervals_stand_where_there_is_room() -> None:
    assert any("1.00 % (-0.50 to 2.50)" in line for line in shown(result(), 140))
    assert not any("-0.50" in line for line in shown(result(), 80))


def test_the_chosen_one_is_marked_and_explained() -> None:
    lines = shown(result())
    (row,) = [line for line in lines if line.lstrip().startswith("> int8")]
    assert row.rstrip().endswith("PASS")
    assert "chosen on edge: int8, 0.50x the latency" in lines
    assert lines[-1] == "passed"


def test_a_single_target_takes_no_column() -> None:
    assert "target" not in shown(result())[1]
    assert "target" in shown(result(("edge", "cloud")))[1]


def test_nothing_chosen_and_failed() -> None:
    nothing = (Choice("edge", None, None, "even the baseline is wrong", False),)
    lines = shown(result(chosen=nothing, passed=False))
    assert "chosen on edge: nothing, even the baseline is wrong" in lines
    assert lines[-1] == "failed: see the gates"
    assert not any(">" in line for line in lines)


def test_what_has_no_value_says_so() -> None:
    held = result()
    scores = tuple(replace(score, value=math.nan, drop=math.nan) for score in held.scores)
    profiles = (
        profile("baseline", "edge", 1.0, latency={}),
        profile("int8", "edge", None, status="failed", latency={}),
    )
    lines = shown(replace(held, scores=scores, profiles=profiles))
    assert sum("no value" in line for line in lines) == 2
    assert sum("too few calls" in line for line in lines) == 1
    assert any("failed" in line and "int8" in line for line in lines)
    assert not any("nan" in line for line in lines)


def test_names_are_not_taken_for_markup() -> None:
    held = result(recipe="[bold]tiny[/bold]", notes=("[red]note[/red]",))
    lines = shown(held)
    assert "note: [red]note[/red]" in lines
    assert "[bold]tiny[/bold]" in lines[0]


def test_two_formats_are_told_apart() -> None:
    held = result()
    other = tuple(replace(each, format="other") for each in held.artifacts)
    both = replace(held, artifacts=(*held.artifacts, *other))
    profiles = tuple(replace(each, format="other") for each in held.profiles)
    lines = shown(replace(both, profiles=(*held.profiles, *profiles)))
    assert any("int8 (onnx)" in line for line in lines)
    assert any("int8 (other)" in line for line in lines)
    # A target that takes one of them has nothing to say of the other.
    lines = shown(both)
    assert any("int8 " in line for line in lines)
    assert not any("other" in line for line in lines)
