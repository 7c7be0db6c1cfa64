"""Judging and choosing where a device is simulated: what is not told never passes, and where no
time is told at all the smallest is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from lepton_compress.artifacts import Fallback, Fit, Status
from lepton_compress.budget import Gates
from lepton_compress.gate import Measured, judge, select
from lepton_compress.recipe import Recipe
from lepton_compress.use import FROM_FILE
from tests import measured
from tests.measured import artifact, parity, profile, score

FIT = Fit("tool 1", seconds=1e-3, ram=1000, flash=2000, operators=4)
BARE: dict[str, Any] = {"provenance": "simulated", "noise": None, "noise_interval": None}
UNTOLD: dict[str, Any] = {**BARE, "latency": {}, "interval": {}, "ratio_interval": None}


def recipe(gates: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """With gates that reading a recipe would refuse here, since its target never tells them."""
    asked = Gates.model_validate(gates or {}, context=FROM_FILE)
    return measured.recipe(**changes).model_copy(update={"gates": asked})


def found(base: Any, other: Any, sizes: tuple[int, int] = (2000, 1000)) -> Measured:
    names = ("baseline", "a")
    return Measured(
        baseline="baseline",
        artifacts=[artifact(name, size) for name, size in zip(names, sizes, strict=True)],
        parities=[parity(name) for name in names],
        scores=[score(name) for name in names],
        profiles=[base, other],
    )


def verdict(asked: Recipe, held: Measured, gate: str) -> Any:
    (made,) = [v for v in judge(asked, held) if (v.candidate, v.gate) == ("a", gate)]
    return made


def untold(name: str, fit: Fit = FIT) -> Any:
    return profile(name, None, fit=fit, **UNTOLD)


class TestReadings:
    @pytest.mark.parametrize("gate", ["ram", "flash"])
    def test_bytes_that_are_not_told_never_pass(self, gate: str) -> None:
        held = found(untold("baseline"), untold("a", Fit("tool 1", operators=4)))
        made = verdict(recipe(gates={gate: "1 MB"}), held, gate)
        assert (made.status, made.reason) == (Status.NOT_MEASURED, "tool 1 does not tell it")

    @pytest.mark.parametrize("gate", ["ram", "flash"])
    def test_what_does_not_fit_never_passes(self, gate: str) -> None:
        fit = Fit("tool 1", ram=0, flash=0, operators=4, problem="nothing runs there")
        bad = profile("a", None, fit=fit, status="failed", reason=fit.problem, **UNTOLD)
        made = verdict(recipe(gates={gate: "1 MB"}), found(untold("baseline"), bad), gate)
        assert (made.status, made.reason) == (Status.NOT_MEASURED, "it does not fit there")

    def test_what_is_over_a_limit_of_the_device_is_judged_all_the_same(self) -> None:
        over = profile("a", None, fit=FIT, status="failed", reason="takes too much", **UNTOLD)
        held = found(untold("baseline"), over)
        assert verdict(recipe(gates={"ram": "900 B"}), held, "ram").status is Status.FAIL
        assert verdict(recipe(gates={"ram": "1 KB"}), held, "ram").status is Status.PASS
        assert verdict(recipe(gates={"ram": "1 KB"}), held, "runs").status is Status.FAIL

    def test_a_measured_target_says_how_to_leave_it_out(self) -> None:
        made = verdict(
            recipe(gates={"ram": "1 KB"}), found(profile("baseline"), profile("a")), "ram"
        )
        assert made.status is Status.NOT_MEASURED
        assert "name simulated targets in the gate's `targets`" in made.reason

    @pytest.mark.parametrize(
        ("fallbacks", "status", "says"),
        [
            (0, Status.PASS, "100.00 %, at least 75.00 % asked"),
            (1, Status.PASS, "75.00 %, at least 75.00 % asked"),
            (2, Status.FAIL, "50.00 %, at least 75.00 % asked"),
            (9, Status.FAIL, "0.00 %, at least 75.00 % asked"),
        ],
    )
    def test_coverage_counts_operators(self, fallbacks: int, status: Status, says: str) -> None:
        fit = Fit("tool 1", operators=4, fallbacks=(Fallback("ADD", "a"),) * fallbacks)
        asked = recipe(gates={"operator_coverage": "75 %"})
        made = verdict(asked, found(untold("baseline"), untold("a", fit)), "operator_coverage")
        assert (made.status, made.reason) == (status, says)

    def test_a_time_without_the_host_s_operators_is_none(self) -> None:
        fit = Fit("tool 1", operators=4, fallbacks=(Fallback("FLOOR", "x"),))
        held = found(untold("baseline"), untold("a", fit))
        made = verdict(recipe(gates={"latency": "1 s"}), held, "latency")
        assert made.status is Status.NOT_MEASURED
        assert made.reason == "1 operator on the host, whose time is not told"

    @pytest.mark.parametrize("strict", [False, True])
    def test_a_simulated_time_is_its_own_interval(self, strict: bool) -> None:
        exact = {"latency": {"p50": 1e-3}, "interval": {"p50": (1e-3, 1e-3)}}
        held = found(untold("baseline"), profile("a", None, **{**UNTOLD, **exact}, fit=FIT))
        for limit, status in (("1 ms", Status.PASS), ("0.9 ms", Status.FAIL)):
            asked = recipe(gates={"latency": {"limit": limit, "strict": strict}})
            assert verdict(asked, held, "latency").status is status
        asked = recipe(gates={"latency": {"limit": "1 s", "percentile": "p99"}})
        assert verdict(asked, held, "latency").status is Status.NOT_MEASURED


class TestChoice:
    def choose(self, held: Measured, **changes: Any) -> Any:
        asked = recipe(**changes)
        (made,) = select(asked, held, judge(asked, held))
        return made

    def test_without_a_time_the_smallest_is_chosen(self) -> None:
        made = self.choose(found(untold("baseline"), untold("a")))
        assert (made.candidate, made.met) == ("a", True)
        made = self.choose(found(untold("baseline"), untold("a"), sizes=(1000, 2000)))
        assert made.candidate == "baseline"
        assert made.reason == (
            "no variant that passes the gates is smaller (no time is told there) than the original"
        )

    def test_a_variant_of_which_a_time_is_told_is_not_compared_with_none(self) -> None:
        timed = profile("a", None, latency={"p50": 1e-3}, interval={"p50": (1e-3, 1e-3)}, fit=FIT)
        assert self.choose(found(untold("baseline"), timed)).candidate == "baseline"

    def test_why_the_variants_fail_comes_before_the_original(self) -> None:
        fit = Fit("tool 1", operators=4, problem="nothing runs on the NPU")
        base = profile("baseline", None, fit=fit, status="failed", reason=fit.problem, **UNTOLD)
        held = found(base, untold("a"))
        assert self.choose(held).candidate == "a"
        made = self.choose(held, gates={"ram": "1 B"})
        assert made.candidate is None
        assert made.reason == "nothing passes the gates: a ram FAIL (1.00 KB, at most 1 B asked)"
