"""Judging results that exist: by a budget, against an earlier one, and as the run judged them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.artifacts import SCHEMA_VERSION, Choice, RunResult, Status
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.judgements import Judgement
from lepton_compress.judging import judge_result
from lepton_compress.report.folder import to_json
from lepton_compress.report.silent import Silent
from tests.report.results import profile, result


def good(**changes: Any) -> RunResult:
    """A result whose artifacts compute what their sources compute."""
    made = result(**changes)
    (parity,) = made.parities
    held = tuple(replace(parity, candidate=each, value=1e-6) for each in ("baseline", "int8"))
    return replace(made, parities=held) if "parities" not in changes else made


def judged(folder: Path, made: RunResult, budget: str = "", **more: Any) -> Judgement:
    (folder / "now").mkdir(exist_ok=True)
    (folder / "now" / "result.json").write_text(to_json(made))
    if budget:
        (folder / "budget.yaml").write_text(budget)
    if "against" in more:
        (folder / "then.json").write_text(to_json(more["against"]))
        more["against"] = folder / "then.json"
    file = folder / "budget.yaml" if budget else None
    return judge_result(folder / "now", budget=file, observer=Silent(), **more)


def statuses(made: Judgement) -> dict[str, str]:
    return {each.gate: str(each.status) for each in made.verdicts}


class TestBudget:
    def test_what_was_chosen_is_judged(self, tmp_path: Path) -> None:
        made = judged(tmp_path, good(), "size: 100 KB\nlatency_ratio: 0.6x\n")
        assert made.passed
        assert {each.candidate for each in made.verdicts} == {"int8"}
        assert statuses(made) == {"parity": "PASS", "size": "PASS", "latency_ratio": "PASS"}
        assert made.places["size"] == (str(tmp_path / "budget.yaml"), 1)

    def test_a_tighter_one_fails(self, tmp_path: Path) -> None:
        made = judged(tmp_path, good(), "size: 10 KB\n")
        assert not made.passed
        assert [each.gate for each in made.bad] == ["size"]

    def test_parity_is_judged_without_being_asked_for(self, tmp_path: Path) -> None:
        made = judged(tmp_path, result(), "size: 100 KB\n")
        assert not made.passed
        assert statuses(made) == {"parity": "FAIL", "size": "PASS"}

    def test_what_was_not_measured_never_passes(self, tmp_path: Path) -> None:
        text = "flips: 1 %\ninteger_nodes: 50 %\nworst_slice: 2 %\nscore: {limit: 1, metric: f1}\n"
        made = judged(tmp_path, good(behaviours=(), coverages=()), text)
        assert not made.passed
        assert {each.status for each in made.bad} == {Status.NOT_MEASURED}
        assert len(made.bad) == 4

    def test_an_inconclusive_one_says_what_would_decide(self, tmp_path: Path) -> None:
        made = judged(tmp_path, good(), "drop: {limit: 2 %, strict: true}\n")
        (bad,) = made.bad
        assert bad.status is Status.INCONCLUSIVE
        # 4 samples; the half above the drop is 1.5 points, the way to the limit 1 point.
        assert bad.needed == 9
        assert "about 9 samples would decide" in bad.reason

    def test_other_candidates_on_request(self, tmp_path: Path) -> None:
        made = judged(tmp_path, good(), "size: 100 KB\n", candidates=["baseline"])
        assert [(each.candidate, each.gate) for each in made.bad] == [("baseline", "size")]

    def test_nothing_chosen_is_a_failure(self, tmp_path: Path) -> None:
        none = good(chosen=(Choice("edge", None, None, "there is no artifact", False),))
        made = judged(tmp_path, none, "size: 100 KB\n")
        assert not made.passed
        assert made.bad[0].reason == "there is no artifact"

    @pytest.mark.parametrize(
        ("text", "more", "said"),
        [
            ("size: {limit: 1 KB, targets: [egde]}\n", {}, "did you mean 'edge'?"),
            ("size: 1 KB\n", {"candidates": ["int9"]}, "did you mean 'int8'?"),
        ],
    )
    def test_a_name_that_is_not_in_the_result_is_refused(
        self, tmp_path: Path, text: str, more: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(RecipeError) as caught:
            judged(tmp_path, good(), text, **more)
        assert said in str(caught.value)


class TestWithoutABudget:
    def test_the_runs_own_verdicts_count(self, tmp_path: Path) -> None:
        made = judged(tmp_path, good())
        assert made.passed
        assert statuses(made) == {"drop": "PASS"}

    def test_a_run_that_failed_by_another_variant_fails(self, tmp_path: Path) -> None:
        made = judged(tmp_path, good(passed=False))
        assert not made.passed
        assert [each.candidate for each in made.bad] == ["baseline"]

    def test_a_run_without_verdicts_does_not_pass(self, tmp_path: Path) -> None:
        assert not judged(tmp_path, good(verdicts=())).passed


class TestAgainst:
    def test_the_same_result_is_no_regression(self, tmp_path: Path) -> None:
        made = judged(tmp_path, good(), against=good())
        assert made.passed
        assert set(statuses(made)) == {
            "regression.drop",
            "regression.size",
            "regression.latency",
        }

    def test_each_way_of_being_worse_is_found(self, tmp_path: Path) -> None:
        now = good()
        slow = tuple(
            replace(each, ratio=0.6, ratio_interval=(0.59, 0.61)) if each.ratio == 0.5 else each
            for each in now.profiles
        )
        fat = tuple(
            replace(each, bytes=70_000) if each.candidate == "int8" else each
            for each in now.artifacts
        )
        wrong = tuple(
            replace(each, value=0.72, outcomes=(1.0, 1.0, 0.0, 0.0)) if each.outcomes else each
            for each in now.scores
        )
        ways: dict[str, dict[str, Any]] = {
            "regression.latency": {"profiles": slow},
            "regression.size": {"artifacts": fat},
            "regression.drop": {"scores": wrong},
        }
        for gate, worse in ways.items():
            made = judged(tmp_path, good(**worse), against=good())
            assert [(each.gate, str(each.status)) for each in made.bad] == [(gate, "FAIL")]

    def test_negative_flips_against_the_earlier_artifact(self, tmp_path: Path) -> None:
        before = good()
        other = tuple(
            replace(each, outcomes=(0.0, 1.0, 1.0, 1.0)) if each.outcomes else each
            for each in before.scores
        )
        made = judged(
            tmp_path, good(scores=other), "regression: {negative_flips: 10 %}\n", against=before
        )
        (bad,) = made.bad
        assert (bad.gate, bad.observed) == ("regression.negative_flips", 0.25)

    def test_on_other_hardware_only_ratios_are_compared(self, tmp_path: Path) -> None:
        cpu = {"name": "Another CPU", "machine": "aarch64", "cores": 4, "extensions": []}
        then = good(environment=good().environment | {"cpu": cpu})
        made = judged(tmp_path, good(), against=then)
        assert made.passed
        assert "other hardware" in made.notes[0]

    def test_on_other_hardware_without_a_common_baseline_nothing_is_said(
        self, tmp_path: Path
    ) -> None:
        cpu = {"name": "Another CPU", "machine": "aarch64", "cores": 4, "extensions": []}
        then = good(environment=good().environment | {"cpu": cpu})
        first, *rest = then.artifacts
        then = replace(then, artifacts=(replace(first, sha256="e" * 64), *rest))
        made = judged(tmp_path, good(), against=then)
        (bad,) = made.bad
        assert (bad.gate, bad.status) == ("regression.latency", Status.NOT_MEASURED)

    def test_the_same_hardware_compares_times_where_the_baselines_differ(
        self, tmp_path: Path
    ) -> None:
        first, *rest = good().artifacts
        then = good(
            artifacts=(replace(first, sha256="e" * 64), *rest),
            profiles=tuple(profile(n, "edge", r) for n, r in (("baseline", 1.0), ("int8", 0.4))),
        )
        made = judged(tmp_path, good(), against=then)
        (bad,) = made.bad
        assert bad.gate == "regression.latency"
        assert bad.observed == pytest.approx(1.25)

    def test_other_evaluation_data_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="was evaluated on other data"):
            judged(tmp_path, good(), against=good(data_fingerprint="c" * 64))

    def test_an_artifact_without_a_predecessor_is_not_measured(self, tmp_path: Path) -> None:
        now = good()
        renamed = replace(now.artifacts[1], candidate="int4")
        choice = replace(now.chosen[0], candidate="int4")
        now = replace(now, artifacts=(now.artifacts[0], renamed), chosen=(choice,))
        made = judged(tmp_path, now, against=good(), candidates=["int4"])
        assert {each.status for each in made.verdicts} == {Status.NOT_MEASURED}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (to_json(good())[:-200], "is truncated"),
        (
            to_json(good()).replace(f'"schema": {SCHEMA_VERSION}', '"schema": 99', 1),
            "has schema version 99",
        ),
        (
            to_json(good()).replace("60000", "60001", 1),
            "was edited or damaged: its digest does not match",
        ),
        ("[]", "is not a result"),
    ],
)
def test_a_damaged_result_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(InputError) as caught:
        judge_result(tmp_path, observer=Silent())
    assert said in str(caught.value)
