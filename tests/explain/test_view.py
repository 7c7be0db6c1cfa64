"""The table at the widths of real terminals."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from lepton_compress.accounts import Explanation, Finding
from lepton_compress.report import explain as view
from tests.explain.test_diagnose import ACCOUNT, CLIPPED, NODE

NODES = tuple(
    replace(
        NODE, name=f"blocks.{each}.norm/Conv", sqnr_db=40.0 - each, share=0.05, activation=CLIPPED
    )
    for each in range(20)
)
FOUND = Finding("clipped_range", "accuracy", "a range is clipped", "numbers " * 30, "mend it", 0.9)
EXPLANATION = Explanation(replace(ACCOUNT, nodes=NODES, notes=("something left out",)), (FOUND,))


def drawn(width: int, *, every: bool = False) -> str:
    file = io.StringIO()
    show = view.show_all if every else view.show
    show(EXPLANATION, Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_nothing_is_cut(width: int) -> None:
    text = drawn(width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "1. a range is clipped (accuracy, sure)" in text
    assert "note: something left out" in text


def test_worst_first_and_fifteen_of_them() -> None:
    text = drawn(120)
    assert text.index("blocks.19.") < text.index("blocks.18.")
    assert "blocks.4." not in text
    assert "5 more nodes with --all" in text
    assert "blocks.0." in drawn(120, every=True)


def test_ranges_are_left_out_where_they_do_not_fit() -> None:
    assert "can hold" in drawn(120)
    assert "can hold" not in drawn(60)


def test_no_finding_is_told_too() -> None:
    file = io.StringIO()
    view.show(Explanation(ACCOUNT), Console(file=file, width=100))
    assert "nothing wrong found" in file.getvalue()
