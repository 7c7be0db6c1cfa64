"""What is drawn: every point where it was measured, every gate where it limits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from lepton_compress.artifacts import RunResult, Status, Verdict
from lepton_compress.report.chart import Budget, chart, charts
from tests.report.results import result


def verdict(gate: str, limit: float, observed: float | None, **changes: Any) -> Verdict:
    held: dict[str, Any] = {
        "candidate": "int8",
        "format": "onnx",
        "target": None,
        "gate": gate,
        "status": Status.PASS,
        "observed": observed,
        "interval": None,
        "limit": limit,
        "strict": False,
        "reason": "",
        **changes,
    }
    return Verdict(**held)


def sound() -> RunResult:
    """A result whose parities hold."""
    return result(parities=())


class TestPoints:
    def test_each_artifact_is_one(self) -> None:
        made = chart(sound(), "edge", "latency")
        assert [(p.name, p.x, p.y) for p in made.points] == [
            ("baseline", 2e-3, 0.98),
            ("int8", 1e-3, 0.97),
        ]
        base, int8 = made.points
        assert (base.baseline, base.chosen, base.passed) == (True, False, False)
        assert (int8.baseline, int8.chosen, int8.passed) == (False, True, True)
        assert int8.x_interval == (1e-3, 3e-3)
        assert int8.y_interval == (0.95, 0.99)

    @pytest.mark.parametrize(("axis", "x"), [("size", 60_000.0), ("peak_memory", 12_000_000.0)])
    def test_over_other_costs_too(self, axis: str, x: float) -> None:
        point = chart(sound(), "edge", axis).points[1]
        assert (point.x, point.x_interval) == (x, None)

    def test_what_has_no_value_is_named_instead(self) -> None:
        base, int8 = sound().profiles
        failed = replace(int8, status="failed", latency={}, reason="crashed")
        made = chart(replace(sound(), profiles=(base, failed)), "edge", "latency")
        assert [point.name for point in made.points] == ["baseline"]
        assert made.missing == ("int8",)

    def test_only_charts_with_points_are_drawn(self) -> None:
        assert [c.axis for c in charts(sound(), "edge")] == ["latency", "size", "peak_memory"]
        assert list(charts(result(scores=()), "edge")) == []
        forgotten = [replace(p, peak_memory=None) for p in sound().profiles]
        made = charts(replace(sound(), profiles=tuple(forgotten)), "edge")
        assert [each.axis for each in made] == ["latency", "size"]


class TestFrontLine:
    def test_by_rising_cost(self) -> None:
        made = chart(sound(), "edge", "latency")
        assert [made.points[i].name for i in made.line] == ["int8", "baseline"]

    def test_a_broken_artifact_is_drawn_but_never_on_it(self) -> None:
        made = chart(result(), "edge", "latency")
        assert len(made.points) == 2
        assert [made.points[i].name for i in made.line] == ["baseline"]

    def test_errors_are_better_below(self) -> None:
        scores = tuple(replace(s, higher_is_better=False) for s in sound().scores)
        made = chart(replace(sound(), scores=scores), "edge", "latency")
        assert [made.points[i].name for i in made.line] == ["int8"]


class TestBudgets:
    @pytest.mark.parametrize(
        ("axis", "given", "expected"),
        [
            ("latency", verdict("latency", 5e-3, 1e-3), ("x", 5e-3, "latency at most 5.00 ms")),
            (
                "latency",
                verdict("latency_ratio", 0.9, 0.5, target="edge", strict=True),
                ("x", 1.8e-3, "latency ratio at most 0.90x, strict"),
            ),
            ("size", verdict("size", 1e5, 6e4), ("x", 1e5, "size at most 100 KB")),
            ("size", verdict("size_ratio", 0.5, 0.3), ("x", 1e5, "size ratio at most 0.50x")),
            (
                "peak_memory",
                verdict("peak_memory", 2e7, 1.2e7),
                ("x", 2e7, "peak memory at most 20.0 MB"),
            ),
            ("size", verdict("drop", 0.02, 0.01), ("y", 0.96, "drop at most 2.00 %")),
            ("size", verdict("score", 0.9, 0.97), ("y", 0.9, "score at least 90.00 %")),
        ],
    )
    def test_stand_where_they_limit(
        self, axis: str, given: Verdict, expected: tuple[str, float, str]
    ) -> None:
        (made,) = chart(replace(sound(), verdicts=(given,)), "edge", axis).budgets
        assert (made.axis, made.label) == (expected[0], expected[2])
        assert made.value == pytest.approx(expected[1])
        assert made.at_most is (made.axis == "x")

    @pytest.mark.parametrize(
        ("axis", "given"),
        [
            ("latency", verdict("latency", 5e-3, 3e-3)),  # of the 90th percentile
            ("latency", verdict("latency", 5e-3, 1e-3, target="cloud")),
            ("latency", verdict("size", 1e5, 6e4)),
            ("size", verdict("latency", 5e-3, 1e-3)),
            ("size", verdict("drop", 0.02, 0.3)),  # of another metric
            ("size", verdict("drop", 0.02, 0.0, candidate="baseline")),
            ("size", verdict("cold_start", 1.0, 0.25)),
            ("size", verdict("parity", 1e-4, math.nan)),
        ],
    )
    def test_what_cannot_be_drawn_is_left_out(self, axis: str, given: Verdict) -> None:
        assert chart(replace(sound(), verdicts=(given,)), "edge", axis).budgets == ()

    def test_a_gate_is_drawn_once(self) -> None:
        given = (verdict("size", 1e5, 2e5, candidate="baseline"), verdict("size", 1e5, 6e4))
        made = chart(replace(sound(), verdicts=given), "edge", "size").budgets
        assert made == (Budget("x", 1e5, "size at most 100 KB", True),)

    def test_the_drop_of_an_error_stands_above(self) -> None:
        scores = tuple(replace(s, higher_is_better=False) for s in sound().scores)
        held = replace(sound(), scores=scores, verdicts=(verdict("drop", 0.02, 0.01),))
        (made,) = chart(held, "edge", "size").budgets
        assert made.value == pytest.approx(1.0)
        assert made.at_most
