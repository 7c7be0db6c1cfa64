"""Judging: every branch by example, and what must hold always by property."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.artifacts import Choice, Status, Verdict
from lepton_compress.budget import Gates
from lepton_compress.gate import PARITY, RUNS, VALUE, Measured, judge, judge_gates
from tests.measured import artifact, choose, measured, parity, profile, recipe, score

NAN = math.nan


def verdict(found: Measured, gate: str, of: str = "a", /, **gates: Any) -> Verdict:
    """The one verdict of that gate on that candidate."""
    (made,) = [
        each
        for each in judge(recipe(gates=gates), found)
        if (each.candidate, each.gate) == (of, gate)
    ]
    return made


class TestParity:
    @pytest.mark.parametrize(
        ("value", "status"),
        [(0.0, "PASS"), (1e-4, "PASS"), (1.1e-4, "FAIL"), (math.inf, "FAIL"), (NAN, "FAIL")],
    )
    def test_it_is_judged_without_being_asked_for(self, value: float, status: str) -> None:
        made = verdict(measured("a", parities=[parity("a"), parity("a", value, 7)]), PARITY)
        assert made.status == status
        assert made.limit == 1e-4
        assert made.target is None

    def test_a_broken_one_says_by_how_much_and_where(self) -> None:
        made = verdict(measured("a", parities=[parity("a"), parity("a", 0.25, 7)]), PARITY)
        assert made.reason == "differs from its graph by 0.25 (limit 1e-04) at batch 7"
        assert made.observed == pytest.approx(0.25)

    def test_a_broken_one_names_the_layer_where_it_is_known(self) -> None:
        broken = replace(parity("a", 0.25, 7), layer="stem/Conv")
        made = verdict(measured("a", parities=[broken]), PARITY)
        assert made.reason.endswith(" at batch 7; stem/Conv is the first to compute something else")

    def test_none_is_not_measured(self) -> None:
        made = verdict(measured("a", parities=[parity("b")]), PARITY)
        assert (made.status, made.observed) == (Status.NOT_MEASURED, None)
        assert made.reason == "was not compared with its source"

    @given(st.floats(1e-4, exclude_min=True) | st.just(NAN), st.floats(0.01, 0.5))
    def test_an_artifact_with_a_broken_one_is_never_chosen(self, apart: float, fast: float) -> None:
        found = measured(
            "baseline",
            "a",
            parities=[parity("baseline"), parity("a", apart)],
            profiles=[profile("baseline"), profile("a", fast)],
        )
        assert choose(found).candidate == "baseline"

    def test_of_the_baseline_leaves_nothing_to_ship(self) -> None:
        broken = measured("baseline", parities=[parity("baseline", NAN)])
        made = choose(broken, variants={})
        assert (made.candidate, made.format, made.met) == (None, None, False)
        assert made.reason.startswith("even the baseline's artifact differs from its graph by nan")


class TestPoint:
    """Not strict: the measured point decides, and meeting the limit exactly is enough."""

    @pytest.mark.parametrize(
        ("gate", "limit", "at", "beyond"),
        [
            ("score", 0.9, {"value": 0.9}, {"value": 0.899}),
            ("drop", 0.01, {"drop": 0.01}, {"drop": 0.0101}),
        ],
    )
    def test_accuracy(
        self, gate: str, limit: float, at: dict[str, float], beyond: dict[str, float]
    ) -> None:
        for held, status in ((at, Status.PASS), (beyond, Status.FAIL)):
            made = verdict(measured("a", scores=[score("a", **held)]), gate, **{gate: limit})
            assert made.status is status
            assert made.limit == limit

    def test_the_score_of_an_error_is_held_from_above(self) -> None:
        held = score("a", 0.5, metric="accuracy", higher_is_better=False)
        assert verdict(measured("a", scores=[held]), "score", score=0.6).status is Status.PASS
        made = verdict(measured("a", scores=[held]), "score", score=0.4)
        assert (made.status, made.reason) == (Status.FAIL, "0.5, at most 0.4 asked")

    @pytest.mark.parametrize(
        ("gate", "at", "beyond", "shown"),
        [
            ("latency", "1 ms", "0.8 ms", "1.00 ms, at most 800 us asked"),
            ("latency_ratio", "1x", "0.9x", "1.00x, at most 0.90x asked"),
            ("cold_start", "0.2 s", "0.1 s", "200 ms, at most 100 ms asked"),
            ("peak_memory", "5 MB", "4 MB", "5.00 MB, at most 4.00 MB asked"),
            ("size", "1 KB", "999 B", "1.00 KB, at most 999 B asked"),
            ("size_ratio", "0.5x", "0.4x", "0.50x, at most 0.40x asked"),
        ],
    )
    def test_costs(self, gate: str, at: str, beyond: str, shown: str) -> None:
        found = measured("baseline", "a", artifacts=[artifact("baseline", 2000), artifact("a")])
        assert verdict(found, gate, **{gate: at}).status is Status.PASS
        made = verdict(found, gate, **{gate: beyond})
        assert (made.status, made.reason) == (Status.FAIL, shown)

    def test_a_percentile_is_the_one_asked_for(self) -> None:
        asked = {"limit": "1.5 ms", "percentile": "p90"}
        assert verdict(measured("a"), "latency", latency=asked).status is Status.FAIL
        assert verdict(measured("a"), "latency", latency="1.5 ms").status is Status.PASS

    def test_shares_are_shown_in_per_cent_and_other_scores_as_numbers(self) -> None:
        held = score("a", 35.0, 0.4)
        made = verdict(measured("a", scores=[held]), "drop", drop=0.3)
        assert made.reason == "0.4, at most 0.3 asked"
        assert verdict(measured("a"), "drop", drop="1 %").reason == "0.00 %, at most 1.00 % asked"

    def test_the_baseline_has_dropped_by_nothing(self) -> None:
        found = measured("baseline", scores=[score("baseline", drop=None)])
        for strict in (False, True):
            asked = {"limit": "0 %", "strict": strict}
            assert verdict(found, "drop", "baseline", drop=asked).status is Status.PASS


class TestTimes:
    """A time beyond its limit fails only with the whole of its interval, strictly or not."""

    @pytest.mark.parametrize(
        ("gate", "passes", "open_", "fails"),
        [
            ("latency", "1 ms", "0.95 ms", "0.85 ms"),
            ("latency_ratio", "1x", "0.99x", "0.97x"),
            ("throughput", "1000/s", "1050/s", "1200/s"),
            ("latency_at", "5 ms", "4.8 ms", "4.4 ms"),
        ],
    )
    def test_the_point_passes_and_the_interval_fails(
        self, gate: str, passes: str, open_: str, fails: str
    ) -> None:
        found = measured("baseline", "a", profiles=[profile("baseline"), profile("a")])
        for limit, status in ((passes, "PASS"), (open_, "INCONCLUSIVE"), (fails, "FAIL")):
            assert verdict(found, gate, **{gate: limit}).status == status

    def test_an_open_one_says_why_and_how_many_rounds_would_decide(self) -> None:
        slow = profile("a", 1.06, rounds=40, ratio_interval=(1.02, 1.10))
        found = measured("baseline", "a", profiles=[profile("baseline"), slow])
        made = verdict(found, "latency_ratio", latency_ratio="1.05x")
        assert made.reason == (
            "1.06x, at most 1.05x asked, but the limit lies within its interval, 1.02x to 1.10x; "
            "about 640 rounds would decide"
        )
        assert made.needed == 640

    def test_a_single_value_without_an_interval_is_judged_by_itself(self) -> None:
        assert verdict(measured("a"), "cold_start", cold_start="0.1 s").status is Status.FAIL


class TestStrict:
    """The whole interval must lie on the good side."""

    @pytest.mark.parametrize(
        ("interval", "status"),
        [
            ((0.0, 0.01), "PASS"),
            ((0.0, 0.011), "INCONCLUSIVE"),
            ((0.01, 0.02), "INCONCLUSIVE"),
            ((0.011, 0.02), "FAIL"),
        ],
    )
    def test_held_from_above(self, interval: tuple[float, float], status: str) -> None:
        held = score("a", drop=0.005, drop_interval=interval)
        asked = {"limit": 0.01, "strict": True}
        made = verdict(measured("a", scores=[held]), "drop", drop=asked)
        assert made.status == status
        assert made.strict
        assert made.interval == interval

    @pytest.mark.parametrize(
        ("interval", "status"),
        [((0.9, 1.0), "PASS"), ((0.8, 0.95), "INCONCLUSIVE"), ((0.7, 0.89), "FAIL")],
    )
    def test_held_from_below(self, interval: tuple[float, float], status: str) -> None:
        held = score("a", 0.93, interval=interval)
        asked = {"limit": 0.9, "strict": True}
        assert verdict(measured("a", scores=[held]), "score", score=asked).status == status

    @pytest.mark.parametrize("interval", [None, (NAN, NAN), (0.0, NAN)])
    def test_without_an_interval_it_is_inconclusive(
        self, interval: tuple[float, float] | None
    ) -> None:
        held = score("a", drop_interval=interval)
        asked = {"limit": 0.5, "strict": True}
        made = verdict(measured("a", scores=[held]), "drop", drop=asked)
        assert made.status is Status.INCONCLUSIVE
        assert made.interval is None
        assert "no confidence interval" in made.reason

    @pytest.mark.parametrize("gate", ["cold_start", "peak_memory"])
    def test_what_is_measured_once_has_no_interval(self, gate: str) -> None:
        asked = {"limit": {"cold_start": "1 h", "peak_memory": "1 GB"}[gate], "strict": True}
        assert verdict(measured("a"), gate, **{gate: asked}).status is Status.INCONCLUSIVE

    @pytest.mark.parametrize(("limit", "status"), [("1000 B", "PASS"), ("999 B", "FAIL")])
    def test_sizes_are_exact(self, limit: str, status: str) -> None:
        asked = {"limit": limit, "strict": True}
        assert verdict(measured("a"), "size", size=asked).status == status

    @pytest.mark.parametrize(("limit", "status"), [("0.5x", "PASS"), ("0.49x", "FAIL")])
    def test_ratios_of_sizes_are_exact(self, limit: str, status: str) -> None:
        found = measured("baseline", "a", artifacts=[artifact("baseline", 2000), artifact("a")])
        asked = {"limit": limit, "strict": True}
        assert verdict(found, "size_ratio", size_ratio=asked).status == status

    @given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(-1, 1))
    def test_what_passes_strictly_passes_by_its_point(
        self, drop: float, below: float, above: float, limit: float
    ) -> None:
        held = score("a", drop=drop, drop_interval=(drop - below, drop + above))
        asked = {"limit": limit, "strict": True}
        strictly = verdict(measured("a", scores=[held]), "drop", drop=asked)
        by_point = verdict(measured("a", scores=[held]), "drop", drop=limit)
        assert (strictly.status, by_point.status) in {
            (Status.PASS, Status.PASS),
            (Status.FAIL, Status.FAIL),
            (Status.INCONCLUSIVE, Status.PASS),
            (Status.INCONCLUSIVE, Status.FAIL),
        }


class TestNotMeasured:
    FAILED = profile("a", None, status="failed", reason="it crashed")

    @pytest.mark.parametrize(
        ("gate", "limit", "missing", "reason"),
        [
            ("score", "0 %", {"scores": []}, "accuracy was not measured"),
            ("score", "0 %", {"scores": [score("a", NAN)]}, "accuracy has no value"),
            ("drop", "100 %", {"scores": [score("a", drop=None)]}, "nothing to compare with"),
            ("drop", "100 %", {"scores": [score("a", drop=NAN)]}, "nothing to compare with"),
            ("size_ratio", "9x", {}, "the baseline has no such artifact"),
            ("latency", "1 h", {"profiles": []}, "was not profiled"),
            ("latency", "1 h", {"profiles": [FAILED]}, "it crashed"),
            ("latency", "1 h", {"profiles": [profile("a", None)]}, "100 samples are too few"),
            ("latency_ratio", "9x", {"profiles": [profile("a", None)]}, "has no latency"),
            ("cold_start", "1 h", {"profiles": [profile("a", cold_start=None)]}, "not measured"),
            ("peak_memory", "1 GB", {"profiles": [profile("a", peak_memory=None)]}, "not measured"),
        ],
    )
    @pytest.mark.parametrize("strict", [False, True])
    def test_it_never_passes(
        self, gate: str, limit: str, missing: dict[str, Any], reason: str, strict: bool
    ) -> None:
        asked = {"limit": limit, "strict": strict}
        made = verdict(measured("a", **missing), gate, **{gate: asked})
        assert made.status is Status.NOT_MEASURED
        assert reason in made.reason

    def test_a_metric_without_a_number_is_told_though_no_gate_asks(self) -> None:
        found = measured("baseline", "a", scores=[score("baseline"), score("a", NAN)])
        made = verdict(found, VALUE)
        assert (made.status, made.reason) == (Status.NOT_MEASURED, "accuracy gives no number")
        assert choose(found).candidate == "baseline"

    def test_what_a_target_cannot_run_is_not_chosen_for_it(self) -> None:
        sizes = [artifact("baseline"), artifact("a", 10)]
        profiles = [profile("baseline"), self.FAILED]
        found = measured("baseline", "a", artifacts=sizes, profiles=profiles)
        assert verdict(found, RUNS).reason == "cannot run there (it crashed)"
        made = choose(found, select="smallest")
        assert (made.candidate, made.met) == ("baseline", True)
        assert "a runs FAIL (cannot run there (it crashed))" in made.reason

    def test_a_target_that_cannot_run_the_original_gets_nothing(self) -> None:
        failed = replace(self.FAILED, candidate="baseline")
        made = choose(measured("baseline", profiles=[failed]), variants={})
        assert (made.candidate, made.met) == (None, False)
        assert made.reason == "even the baseline's artifact cannot run there (it crashed)"

    def test_nothing_at_all_is_no_choice(self) -> None:
        made = choose(Measured("baseline", [], [], [], []))
        assert made == Choice("onnxruntime-cpu", None, None, "there is no artifact", False)


class TestNeeded:
    """An inconclusive verdict says about how many samples would decide it."""

    @given(st.floats(-0.5, 0.5), st.floats(1e-3, 0.5), st.floats(-0.5, 0.5))
    def test_so_many_samples_do_decide(self, drop: float, half: float, limit: float) -> None:
        held = score("a", drop=drop, drop_interval=(drop - half, drop + half))
        asked = {"limit": limit, "strict": True}
        made = verdict(measured("a", scores=[held]), "drop", drop=asked)
        if made.needed is None:
            return
        assert made.status is Status.INCONCLUSIVE
        assert made.needed > 100
        assert f"about {made.needed:,} samples would decide" in made.reason
        narrower = half * (100 / made.needed) ** 0.5
        held = score("a", drop=drop, drop_interval=(drop - narrower, drop + narrower))
        again = verdict(measured("a", scores=[held]), "drop", drop=asked)
        assert again.status is not Status.INCONCLUSIVE or narrower == pytest.approx(
            abs(limit - drop)
        )

    def test_of_a_latency_it_counts_rounds(self) -> None:
        held = profile("a", 1.0, rounds=16, ratio_interval=(0.96, 1.04))
        made = verdict(
            measured("a", profiles=[held]),
            "latency_ratio",
            latency_ratio={"limit": "1.02x", "strict": True},
        )
        assert (made.status, made.needed) == (Status.INCONCLUSIVE, 64)
        assert made.reason.endswith("; about 64 rounds would decide")


def test_a_gate_on_lists_of_batches_judges_each() -> None:
    found = measured("baseline", "a")
    found = replace(
        found,
        profiles=[
            profile(name, ratio, target=target)
            for name in ("baseline", "a")
            for target, ratio in (("edge/b1", 1.0), ("edge/b8", 3.0), ("cloud", 9.0))
        ],
    )
    gates = Gates.model_validate({"latency": {"limit": "2 ms", "targets": ["edge"]}})
    made = judge_gates(gates, found, metric="accuracy", targets=["edge/b1", "edge/b8", "cloud"])
    assert [
        (each.target, each.status)
        for each in made
        if (each.candidate, each.gate) == ("a", "latency")
    ] == [("edge/b1", Status.PASS), ("edge/b8", Status.FAIL)]
