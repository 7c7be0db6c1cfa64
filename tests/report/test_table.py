"""The rows that every rendering shows: each number as its unit wants it, and none made up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from lepton_compress.artifacts import RunResult, Score, Status
from lepton_compress.report.table import Row, front, headings, noise, rows
from tests.report.results import profile, result


def row(held: RunResult, candidate: str = "int8", target: str = "edge") -> Row:
    (found,) = [each for each in rows(held, target) if each.variant == candidate]
    return found


def scored(**changes: Any) -> RunResult:
    """A result in which the variant's score is changed."""
    held = result()
    base, other = held.scores
    return replace(held, scores=(base, replace(other, **changes)))


def profiled(**changes: Any) -> RunResult:
    """A result in which the variant's profile is changed."""
    held = result()
    return replace(held, profiles=(held.profiles[0], replace(held.profiles[1], **changes)))


class TestRow:
    def test_everything_measured(self) -> None:
        assert row(result()) == Row(
            artifact=result().artifacts[1],
            chosen=True,
            variant="int8",
            score="97.00 %",
            drop="1.00 % (-0.50 to 2.50)",
            size="60.0 KB",
            latency="1.00 ms",
            ratio="0.50x (0.49 to 0.51)",
            verdict="PASS",
            passed=True,
            front=True,
        )

    def test_what_is_beaten_is_not_on_the_front(self) -> None:
        alone = replace(result().fronts[0], members=(("baseline", "onnx"),))
        held = replace(result(), fronts=(alone,))
        assert [each.front for each in rows(held, "edge")] == [True, False]
        assert [each.front for each in rows(replace(held, fronts=()), "edge")] == [False, False]

    def test_the_baseline_is_compared_with_nothing(self) -> None:
        made = row(result(), "baseline")
        assert (made.drop, made.ratio) == ("", "")
        assert (made.chosen, made.passed, made.verdict) == (False, False, "FAIL size")

    def test_rows_stand_in_the_order_of_the_artifacts(self) -> None:
        assert [each.variant for each in rows(result(), "edge")] == ["baseline", "int8"]

    def test_every_verdict_that_is_none_is_named(self) -> None:
        held = result()
        more = [
            replace(held.verdicts[0], status=status, gate=gate)
            for status, gate in ((Status.INCONCLUSIVE, "drop"), (Status.NOT_MEASURED, "latency"))
        ]
        made = row(replace(held, verdicts=(*held.verdicts, *more)))
        assert (made.verdict, made.passed) == ("INCONCLUSIVE drop; NOT_MEASURED latency", False)

    def test_a_verdict_of_another_target_is_not_its(self) -> None:
        held = result(("edge", "cloud"))
        elsewhere = replace(held.verdicts[0], status=Status.FAIL, target="cloud")
        held = replace(held, verdicts=(elsewhere,))
        assert row(held, target="edge").verdict == "PASS"
        assert row(held, target="cloud").verdict == "FAIL drop"


class TestScores:
    @pytest.mark.parametrize(
        ("changes", "shown", "dropped"),
        [
            ({"drop_interval": None}, "97.00 %", "1.00 %"),
            ({"drop": -0.002}, "97.00 %", "-0.20 % (-0.50 to 2.50)"),
            ({"drop": None}, "97.00 %", ""),
            ({"drop": math.nan}, "97.00 %", ""),
            ({"value": math.nan}, "no value", "0.01 (-0.005 to 0.025)"),
            # A signal to noise ratio, in decibels, is no share; nor is an error.
            ({"value": 35.125}, "35.12", "0.01 (-0.005 to 0.025)"),
            ({"higher_is_better": False, "value": 0.25}, "0.25", "0.01 (-0.005 to 0.025)"),
        ],
    )
    def test_in_their_own_unit(self, changes: dict[str, Any], shown: str, dropped: str) -> None:
        made = row(scored(**changes))
        assert (made.score, made.drop) == (shown, dropped)

    def test_without_one_the_cells_are_empty(self) -> None:
        made = row(replace(result(), scores=()))
        assert (made.score, made.drop) == ("", "")

    @pytest.mark.parametrize(
        ("value", "higher", "share"),
        [
            (0.9, True, True),
            (1.0, True, True),
            (-0.3, True, True),
            (1.01, True, False),
            (0.9, False, False),
            (math.nan, True, False),
        ],
    )
    def test_what_is_a_share(self, value: float, higher: bool, share: bool) -> None:
        assert Score("a", "onnx", "m", higher, value, (0, 1), 1).is_share is share


class TestProfiles:
    @pytest.mark.parametrize(
        ("changes", "latency", "ratio"),
        [
            ({"latency": {}}, "too few calls", "0.50x (0.49 to 0.51)"),
            ({"ratio": None}, "1.00 ms", ""),
            ({"ratio_interval": None}, "1.00 ms", ""),
            ({"provenance": "simulated"}, "1.00 ms (simulated)", "0.50x (0.49 to 0.51)"),
            ({"provenance": "estimated"}, "1.00 ms (estimated)", "0.50x (0.49 to 0.51)"),
            ({"status": "failed", "ratio": None, "latency": {}}, "failed", ""),
        ],
    )
    def test_what_is_not_known_is_not_shown(
        self, changes: dict[str, Any], latency: str, ratio: str
    ) -> None:
        made = row(profiled(**changes))
        assert (made.latency, made.ratio) == (latency, ratio)

    def test_without_one_the_cells_are_empty(self) -> None:
        made = row(replace(result(), profiles=()))
        assert (made.latency, made.ratio) == ("", "")

    def test_noise_is_that_of_the_target(self) -> None:
        assert noise(result(), "edge") == "1.00x (0.99 to 1.01)"
        assert noise(result(), "cloud") == "not measured"
        unknown = profile("int8", "edge", 0.5, noise=None, noise_interval=None)
        assert noise(replace(result(), profiles=(unknown,)), "edge") == "not measured"


def test_headings_name_the_metric() -> None:
    assert headings(result())[1] == "accuracy"
    named = replace(result(), scores=(replace(result().scores[0], metric="mean_absolute_error"),))
    assert headings(named)[1] == "mean absolute error"
    assert headings(replace(result(), scores=()))[1] == "score"


def test_the_front_says_what_it_is_over() -> None:
    assert front(result(("edge", "cloud"))) == "score, p50, size, peak memory"
    assert front(replace(result(), fronts=())) == ""
