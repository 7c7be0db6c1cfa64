"""Steps, layers and samples in words: each account that a step leaves, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lepton_compress.artifacts import Candidate, StepRecord
from lepton_compress.report import details
from tests.report.results import result


def candidate(*statistics: dict[str, Any]) -> Candidate:
    records = tuple(StepRecord("step", {}, 1.0, True, False, held) for held in statistics)
    return Candidate("a", "0" * 64, "baseline", records, 1, 1)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (True, "yes"),
        ("mse", "mse"),
        ([2444544, 853872], "2,444,544 → 853,872"),
        ({"value": 8, "why": "sums are exact"}, "8 (sums are exact)"),
        ({"macs": 0.35, "parameters": None}, "macs 0.35"),
        ({"a": [1, 2], "b": 3}, "a 1 → 2, b 3"),
        ({str(i): i * 10**6 for i in range(20)}, ""),
        ({"a": {"b": list(range(9))}}, ""),
        ([1, 2, 3], ""),
        ([], ""),
        ("x" * 200, "x" * 117 + "..."),
    ],
)
def test_a_value_in_a_few_words(value: Any, said: str) -> None:
    assert details.short(value) == said


def test_a_step_tells_what_it_was_given_and_what_it_did() -> None:
    (step,) = details.steps(result().candidates[1])
    assert (step.name, step.took) == ("quantize", "1.2 s (reused)")
    assert step.parameters == (("samples", "16"),)
    assert step.statistics == (("output sqnr db", "31.5"),)
    assert step.notes == ("left | float",)
    assert step.raw == '{\n "output_sqnr_db": 31.5\n}'


def test_long_statistics_are_cut_and_say_so() -> None:
    (step,) = details.steps(candidate({"many": list(range(1000))}), most=100)
    assert len(step.raw) < 150
    assert step.raw.endswith("... the rest stands in result.json")


class TestLayers:
    def test_integer_and_float_nodes_with_their_reasons(self) -> None:
        held = {"weighted": {"integer": {"conv": "QLinearConv"}, "float": {"gru": "no kernel"}}}
        (table,) = details.layers(candidate(held))
        assert table.headings == ("node", "computed", "with, or why")
        assert [[cell.text for cell in row] for row in table.rows] == [
            ["conv", "in integer", "QLinearConv"],
            ["gru", "in float", "no kernel"],
        ]
        assert [row[1].state for row in table.rows] == ["good", "bad"]

    def test_noise_of_weights_where_it_was_measured(self) -> None:
        held = {"weighted": {"blocks": ["a", "b"], "float": {}}, "sqnr_db": {"a": 31.25}}
        (table,) = details.layers(candidate(held))
        assert table.headings[-1] == "weights' SQNR"
        assert [(row[-1].text, row[-1].sort) for row in table.rows] == [
            ("31.2 dB", 31.25),
            ("", None),
        ]

    def test_widths_of_pruned_layers(self) -> None:
        saved = {"macs_saved": 12345, "parameters_saved": 678}
        held = {
            "groups": {
                "qkv": {"kind": "heads", "width": [4, 2], **saved},
                "up": {"kind": "channels", "width": [64, 64], **dict.fromkeys(saved, 0)},
            }
        }
        (table,) = details.layers(candidate(held))
        assert table.headings == details.WIDTH_HEADINGS
        assert [[cell.text for cell in row] for row in table.rows] == [
            ["qkv", "heads", "4 → 2", "12,345", "678"],
            ["up", "nothing", "64 → 64", "0", "0"],
        ]

    def test_ranges_beside_what_was_seen(self) -> None:
        held = {"ranges": {"x": [0.0, 4.0], "y": [0, 1]}, "seen": {"x": [-0.5, 5.0]}}
        (table,) = details.layers(candidate(held))
        assert [[cell.text for cell in row] for row in table.rows] == [
            ["x", "0 to 4", "-0.5 to 5"],
            ["y", "0 to 1", ""],
        ]

    @pytest.mark.parametrize(
        "held",
        [
            {},
            {"weighted": 3},
            {"weighted": {}},
            {"weighted": {"integer": 7}},
            {"ranges": [1, 2]},
            {"ranges": {}},
            {"groups": 3},
            {"groups": {"a": 3, "b": {"width": 4}}},
        ],
    )
    def test_what_is_no_account_gives_no_table(self, held: dict[str, Any]) -> None:
        assert list(details.layers(candidate(held))) == []

    def test_strange_ranges_are_left_empty(self) -> None:
        held = {"ranges": {"x": "wide", "y": [1, "z"], "z": [0.0, 1.0]}, "seen": 3}
        (table,) = details.layers(candidate(held))
        assert [row[1].text for row in table.rows] == ["", "", "0 to 1"]

    def test_a_deep_model_is_cut_and_says_so(self) -> None:
        held = {"weighted": {"integer": {f"conv{i}": "QLinearConv" for i in range(500)}}}
        (table,) = details.layers(candidate(held), most=30)
        assert len(table.rows) == 30
        assert "(the first 30; 470 more stand in result.json)" in table.caption


class TestSamples:
    def test_what_was_lost_with_its_class(self) -> None:
        (held,) = details.samples(result())
        assert (held.name, held.summary) == ("int8", "1 lost, 0 gained of 4 samples")
        assert (held.lost, held.gained, held.more) == (("3 (class 0)",), (), 0)
        assert held.classes is not None
        ((label, count, before, after, drop),) = held.classes.rows
        assert [label.text, count.text, before.text, after.text, drop.text] == [
            "0", "2", "100.00 %", "50.00 %", "50.00 %"
        ]  # fmt: skip
        assert " to " in drop.small

    def test_without_outcomes_there_is_nothing_to_tell(self) -> None:
        base, other = result().scores
        assert list(details.samples(result(scores=(base, replace(other, outcomes=None))))) == []
        assert list(details.samples(result(scores=()))) == []

    def test_many_are_counted_and_not_listed(self) -> None:
        base, other = result().scores
        scores = (replace(base, outcomes=(1.0,) * 100), replace(other, outcomes=(0.0,) * 100))
        (held,) = details.samples(result(scores=scores, labels=()))
        assert len(held.lost) == details.MOST_FLIPS
        assert held.more == 100 - details.MOST_FLIPS
        assert held.classes is None

    def test_errors_show_how_far_they_moved(self) -> None:
        base, other = (replace(s, higher_is_better=False) for s in result().scores)
        scores = (replace(base, outcomes=(0.1, 0.2)), replace(other, outcomes=(0.3, 0.2)))
        (held,) = details.samples(result(scores=scores, labels=()))
        assert held.summary == "1 worse, 0 better of 4 samples"
        assert held.lost == ("0 0.1 → 0.3",)
