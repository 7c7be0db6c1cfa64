"""The Markdown report: every number of the result, in tables that stay tables."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lepton_compress.artifacts import Choice
from lepton_compress.report.markdown import markdown
from tests.report.results import profile, result


def tables(text: str) -> list[list[str]]:
    """The lines of each table."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [each for each in found if each]


def test_says_what_was_chosen_and_why() -> None:
    lines = markdown(result()).splitlines()
    assert lines[0] == "# tiny: passed"
    assert "- On **edge**: **int8**: 0.50x the latency" in lines


def test_says_that_nothing_can_be_shipped() -> None:
    nothing = (Choice("edge", None, None, "even the baseline is wrong", False),)
    text = markdown(result(chosen=nothing, passed=False))
    assert text.startswith("# tiny: FAILED\n")
    assert "- On **edge**: nothing can be shipped. even the baseline is wrong" in text


def test_says_that_what_was_chosen_does_not_do() -> None:
    poor = (Choice("edge", "baseline", "onnx", "nothing passes", False),)
    assert "**baseline** (does not meet the gates): nothing passes" in markdown(result(chosen=poor))


@pytest.mark.parametrize("targets", [("edge",), ("edge", "cloud")])
def test_every_table_has_as_many_cells_in_each_row(targets: tuple[str, ...]) -> None:
    found = tables(markdown(result(targets)))
    assert len(found) == 6 * len(targets) + 8
    for rows in found:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
        assert re.fullmatch(r"(\| --- )+\|", rows[1])


def test_the_numbers_are_those_of_the_result() -> None:
    text = markdown(result())
    assert (
        "| **int8** (chosen, front) | 97.00 % | 1.00 % (-0.50 to 2.50) | 60.0 KB | 1.00 ms |"
        in text
    )
    assert "0.50x (0.49 to 0.51) | PASS |" in text
    assert "| baseline (front) | 98.00 % |  | 200 KB | 2.00 ms |  | FAIL size |" in text
    assert "The baseline against itself: 1.00x (0.99 to 1.01)." in text
    load = "| int8 | 50/s | 3.00 ms | too few arrivals | 9.00 ms (8.00 ms to 10.0 ms) | 1000 |"
    assert load in text
    assert (
        "| int8 | 3.00 ms | too few calls | 500 | 250 ms | 12.0 MB | 3000 | 15 | measured |" in text
    )
    assert "| int8 | quantize | 1.2 s (reused) | output_sqnr_db 31.5; left \\| float |" in text
    assert "| int8 |  |  | 12,345 parameters, 1,000,000 MACs |" in text
    assert "| baseline |  |  | 12,345 parameters, unknown MACs |" in text
    assert "| int8 |  | drop (strict) | PASS | a \\| b |" in text
    assert "- note: a note" in text
    assert f"`artifacts/int8.onnx` sha256 `{'d' * 64}`" in text


def test_a_profile_that_failed_says_why() -> None:
    failed = profile("int8", "edge", 1.0, status="failed", reason="out of memory", latency={})
    text = markdown(result(profiles=(profile("baseline", "edge", 1.0), failed)))
    assert "failed: out of memory" in text


def test_what_does_not_pass_stands_in_sight_and_the_rest_folded() -> None:
    gates = markdown(result()).partition("## Gates")[2].partition("## Samples")[0]
    shown, _, folded = gates.partition("<details><summary>one verdict that passes")
    assert "| baseline |  | size | FAIL | too large |" in shown
    assert "drop (strict)" not in shown
    assert "drop (strict)" in folded
    assert folded.rstrip().endswith("</details>")
    fine = replace(result(), verdicts=result().verdicts[:1])
    assert "Every variant passes every gate." in markdown(fine)


def test_flips_and_worst_classes_of_what_was_chosen() -> None:
    text = markdown(result())
    assert "## Samples: int8 against the original" in text
    assert "- 1 lost: 3\n- 0 gained" in text
    assert re.search(r"\| 0 \| 2 \| 100\.00 % \| 50\.00 % \| 50\.00 % \(.* to .*\) \|", text)
    base = (Choice("edge", "baseline", "onnx", "nothing is better", True),)
    assert "## Samples" not in markdown(result(chosen=base))


def test_many_samples_are_not_all_listed() -> None:
    one, other = result().scores
    scores = (
        replace(one, outcomes=(1.0,) * 50, samples=50),
        replace(other, outcomes=(0.0,) * 50, samples=50),
    )
    text = markdown(result(scores=scores, labels=()))
    assert "- 50 lost: 0, 1, 2," in text
    assert "18, 19, and 30 more" in text


def test_costs_beside_the_median_have_their_tables() -> None:
    text = markdown(result())
    assert "| int8 | Conv 75 %, Gemm 25 % |" in text
    assert "under the runtime's profiler" in text
    assert "| int8 | 4 | 2 | 900 (880 to 920) | 4.00 ms | too few calls | 1000 |" in text
    assert "| int8 | enable_cpu_mem_arena=False: 0.90x (0.88 to 0.92) the time | 3 |" in text


def test_behaviour_has_coverage_and_corrupted_data() -> None:
    text = markdown(result())
    assert "| int8 | 1 (25.00 % of 4) | 1 (25.00 % of 4) | 12.00 % (1.00 % to 20.00 %) |" in text
    assert "| 75.00 % (3 of 4) | 72.00 % (720 of 1,000) |" in text
    noisy = "80.00 % (drop 10.00 % (5.00 % to 15.00 %))"
    assert f"| gaussian noise | int8 | {noisy} | {noisy} | {noisy} |" in text
    assert "| night | 2 | 60.00 % | 20.00 % (5.00 % to 15.00 %) |" in text


def test_what_was_not_measured_has_no_table() -> None:
    plain = profile("int8", "edge", 0.5, operators=(), callers=(), tuning=None, loads=())
    text = markdown(result(profiles=(plain,), behaviours=(), coverages=()))
    for word in ("profiler", "Callers", "Settings", "Behaviour", "Requests"):
        assert word not in text
