"""The table of differences: the same on a terminal and as Markdown, and cut with care."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lepton_compress.compare import compare
from lepton_compress.comparison import Comparison
from lepton_compress.report import compare as view
from lepton_compress.report.folder import to_json
from tests.report.results import profile, result


def found(tmp_path: Path) -> Comparison:
    """A variant that got worse, slower and smaller."""
    base, score = result().scores
    artifact = replace(result().artifacts[1], bytes=30_000, sha256="e" * 64)
    other = result(
        scores=(base, replace(score, value=0.5, outcomes=(0.0, 1.0, 1.0, 1.0))),
        artifacts=(result().artifacts[0], artifact),
        profiles=(profile("baseline", "edge", 1.0), profile("int8", "edge", 0.75)),
        data_fingerprint="b" * 64,
    )
    for name, held in (("one", result()), ("two", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(to_json(held))
    return compare(str(tmp_path / "one"), str(tmp_path / "two"))


def shown(held: Comparison, width: int) -> str:
    out = io.StringIO()
    view.show(held, Console(file=out, width=width, soft_wrap=True))
    return out.getvalue()


def test_every_difference_stands_in_the_line(tmp_path: Path) -> None:
    same, worse = view.lines(found(tmp_path))
    assert same.cells[:5] == ("baseline", "98.00 %", "0.00 % (-46.20 to 46.20)", "none",
                              "200 KB (same file)")  # fmt: skip
    assert worse.cells[:2] == ("int8", "97.00 -> 50.00 %")
    assert worse.cells[3:7] == ("-1 +1", "60.0 -> 30.0 KB (0.50x)", "edge", "1.00 -> 1.50 ms")
    assert worse.cells[7].startswith("1.50x (")
    assert worse.cells[8] == "PASS"


def test_a_wide_terminal_shows_all_and_a_narrow_one_no_brackets(tmp_path: Path) -> None:
    held = found(tmp_path)
    wide, narrow = shown(held, 300), shown(held, 60)
    assert "(0.50x)" in wide
    assert re.search(r"int8 .* 97\.00 -> 50\.00 % .* \(.* to .*\)", wide)
    assert "(0.50x)" not in narrow
    assert "60.0 -> 30.0 KB" in narrow, "a cell that is cut would be a wrong number"
    middle = shown(held, 130)
    assert "(0.50x)" not in middle
    assert "0.00 % (-46.20 to 46.20)" in middle, "the paired interval goes last"


def test_markdown_is_a_table(tmp_path: Path) -> None:
    text = view.markdown(found(tmp_path))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {10}
    assert "- **note**: files that are the same took 1.00x as long" in text
    assert "Ratios are between runs that did not take turns." in text


def test_without_a_ratio_each_is_told_against_its_baseline(tmp_path: Path) -> None:
    held = found(tmp_path)
    pair = held.pairs[1]
    apart = replace(pair.latencies[0], ratio=None, interval=None)
    unknown = replace(pair.scores[0], one=math.nan, drop=math.nan, interval=None, lost=None)
    lone = replace(held, pairs=(replace(pair, latencies=(apart,), scores=(unknown,)),))
    (line,) = view.lines(lone)
    assert line.cells[7] == "to own baselines 0.50x -> 0.75x"
    assert line.cells[1:4] == ("no value -> 50.00 %", "", "")
    assert "did not take turns" not in view.markdown(lone)


def test_nothing_in_common_is_said(tmp_path: Path) -> None:
    held = replace(found(tmp_path), pairs=(), only_one=("a", "b"))
    text = shown(held, 100)
    assert "No variant stands in both." in text
    assert f"Only in {held.one.reference}: a, b." in text
