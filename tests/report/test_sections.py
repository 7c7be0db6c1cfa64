"""The tables of the report: every cell says what was measured, and sorts by it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from lepton_compress.artifacts import Tuning
from lepton_compress.report import behaviour, costs, sections
from lepton_compress.report.manifest import manifest
from tests.report.results import profile, result


def test_every_variant_with_its_intervals() -> None:
    made = sections.candidates(result(), "edge")
    cells = [dict(zip(made.headings, row, strict=True)) for row in made.rows]
    base, int8 = cells
    assert [c["variant"].text for c in cells] == ["baseline", "int8"]
    assert int8["variant"].small == "chosen, front"
    assert (int8["accuracy"].text, int8["accuracy"].small) == ("97.00 %", "95.00 to 99.00")
    assert (int8["drop"].text, int8["drop"].small) == ("1.00 %", "-0.50 to 2.50")
    assert (int8["p50"].text, int8["p50"].small) == ("1.00 ms", "1.00 ms to 3.00 ms")
    assert (int8["ratio"].text, int8["ratio"].small) == ("0.50x", "0.49 to 0.51")
    assert (int8["p90"].text, int8["p99"].text) == ("3.00 ms", "")
    assert (int8["cold start"].text, int8["peak memory"].text) == ("250 ms", "12.0 MB")
    assert (int8["gates"].text, int8["gates"].state) == ("PASS", "good")
    assert (base["gates"].text, base["gates"].state) == ("FAIL size", "bad")
    assert [c["size"].sort for c in cells] == [200_000.0, 60_000.0]


def test_what_was_not_measured_is_empty_and_does_not_sort() -> None:
    failed = profile(
        "int8", "edge", None, status="failed", reason="it crashed", latency={}, interval={},
        cold_start=None, peak_memory=None,
    )  # fmt: skip
    base, other = result().scores
    unknown = replace(other, value=math.nan, interval=(math.nan, math.nan), drop=math.nan)
    held = result(profiles=(profile("baseline", "edge", 1.0), failed), scores=(base, unknown))
    made = sections.candidates(held, "edge")
    row = dict(zip(made.headings, made.rows[1], strict=True))
    assert (row["p50"].text, row["p50"].small, row["p50"].sort) == ("failed", "it crashed", None)
    assert (row["accuracy"].text, row["accuracy"].sort) == ("no value", None)
    assert (row["cold start"].text, row["peak memory"].sort) == ("", None)


def test_simulated_times_are_marked() -> None:
    simulated = profile("int8", "edge", 0.5, provenance="simulated")
    held = result(profiles=(profile("baseline", "edge", 1.0), simulated))
    made = sections.candidates(held, "edge")
    row = dict(zip(made.headings, made.rows[1], strict=True))
    assert row["p50"].small.endswith(", simulated")


def test_every_metric_and_every_gate_has_a_row() -> None:
    scores, verdicts = sections.scores(result()), sections.verdicts(result())
    assert len(scores.rows) == 2
    assert len(verdicts.rows) == 2
    for table in (scores, verdicts):
        assert {len(row) for row in table.rows} == {len(table.headings)}
    assert [cell.text for cell in verdicts.rows[0]] == ["int8", "all", "drop", "PASS", "a | b"]
    assert verdicts.rows[0][2].small == "strict"


def test_figures_of_what_was_chosen() -> None:
    (choice,) = result().chosen
    assert list(sections.figures(result(), choice)) == [
        ("accuracy", "97.00 %", ""),
        ("accuracy drop", "1.00 %", "-0.50 to 2.50"),
        ("latency, p50", "1.00 ms", ""),
        ("latency ratio", "0.50x", "0.49 to 0.51"),
        ("size", "60.0 KB", "0.30x"),
    ]
    nothing = replace(choice, candidate=None, format=None)
    assert list(sections.figures(result(chosen=(nothing,)), nothing)) == []


def test_environment_tells_what_to_reproduce_it_with() -> None:
    rows = dict(sections.environment(result()))
    assert rows["processor"] == "A CPU, 2 cores"
    assert rows["libraries"] == "torch 2.13.0, onnx 1.23.0"
    assert rows["recipe digest"] == "a" * 64
    assert dict(sections.environment(result(environment={})))["vector extensions"] == "none known"


def test_how_a_target_was_measured() -> None:
    assert sections.noise(result(), "edge") == (
        "onnxruntime-cpu, batch 1, 1 thread, 15 rounds in turns. "
        "The baseline against itself: 1.00x (0.99 to 1.01)."
    )
    assert sections.noise(result(profiles=()), "edge") == "Nothing was measured here."


class TestBeside:
    """What stands beside score and median: behaviour, operators, load and settings."""

    def test_shares_of_behaviour_are_of_all_samples_nodes_and_macs(self) -> None:
        made = behaviour.overview(result())
        assert made is not None
        row = made.rows[1]
        assert [cell.text for cell in row] == ["int8", "1", "1", "12.00 %", "75.00 %", "72.00 %"]
        assert (row[4].small, row[4].bar) == ("3 of 4", 0.75)
        assert behaviour.overview(result(behaviours=(), coverages=())) is None

    def test_a_corruption_has_a_row_for_each_variant_and_a_column_a_severity(self) -> None:
        (made,) = behaviour.corrupted(result())
        assert made.headings == ("corruption", "variant", "severity 1", "severity 3", "severity 5")
        assert [(row[1].text, row[2].text) for row in made.rows] == [
            ("baseline", "90.00 %"),
            ("int8", "80.00 %"),
        ]
        assert [row[4].small for row in made.rows] == ["", "drop 10.00 % (5.00 % to 15.00 %)"]
        (cut,) = behaviour.corrupted(result(), 1)
        assert len(cut.rows) == 1
        assert "1 more stand in result.json" in cut.caption

    def test_the_parts_that_lost_most_stand_first(self) -> None:
        (made,) = behaviour.parts(result())
        assert (made.name, made.summary) == ("int8", "most in slice night: 20.00 %")
        assert [each.headings[0] for each in made.tables] == ["slice", "class"]

    def test_operators_beyond_the_room_are_summed_up(self) -> None:
        made = next(costs.operators(result(), 1))
        assert made.summary == "Conv 75 %, Gemm 25 %"
        assert [[cell.text for cell in row] for row in made.table.rows] == [
            ["Conv", "float32", "3", "75 %", "900 us"],
            ["1 more", "", "1", "25 %", "300 us"],
        ]

    def test_settings_say_what_was_found_and_what_was_tried(self) -> None:
        made = list(costs.tunings(result()))[1]
        assert made.summary == "enable_cpu_mem_arena=False: 0.90x (0.88 to 0.92) the time"
        assert [row[1].text for row in made.table.rows] == ["faster", "no gain", "faster"]
        none = Tuning(reason="nothing is faster")
        assert costs.told(none) == "the default stays: nothing is faster"


def test_a_manifest_tells_the_session_to_open() -> None:
    held = json.loads(manifest(result(("edge", "cloud"))))
    assert [each["path"] for each in held["artifacts"]] == [
        "artifacts/baseline.onnx",
        "artifacts/int8.onnx",
    ]
    one = held["artifacts"][1]
    assert one["sha256"] == "d" * 64
    assert one["inputs"][0] == {
        "name": "image",
        "dtype": "float32",
        "shape": ["batch", 1, 8, 8],
    }
    assert [(each["target"], each["chosen"]) for each in one["targets"]] == [
        ("edge", True),
        ("cloud", True),
    ]
    target = one["targets"][0]
    assert target["session"] == {"intra_op_num_threads": 1, "enable_cpu_mem_arena": False}
    assert target["tuned"]["settings"] == {"enable_cpu_mem_arena": False}
    plain = profile("int8", "edge", 0.5, tuning=None)
    (target,) = json.loads(manifest(result(profiles=(plain,))))["artifacts"][1]["targets"]
    assert target["session"]["enable_cpu_mem_arena"] is True
    assert target["tuned"] is None
