"""Which variants have a control, what it is, and what stands beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lepton_compress import branches, controls
from lepton_compress.artifacts import Score
from lepton_compress.job import Job, open_job
from lepton_compress.recipe import read
from tests.bench import MODULE, Bench

PRUNE, TRAIN = {"prune": {"ratio": "50 %"}}, {"distil": {"epochs": 1}}
TUNE = {"finetune": {"epochs": 1}}


def job_of(bench: Bench, variants: dict[str, list[Any]], **changes: Any) -> Job:
    return open_job(read(bench.recipe(MODULE, "asked", variants=variants, **changes)))


def labels(job: Job) -> dict[str, list[str]]:
    """Variant to the steps of its control."""
    return {
        name: [each.label for each in node.path() if each.step]
        for name, node in controls.plan(job).items()
    }


class TestPlan:
    @pytest.mark.parametrize(
        ("steps", "control"),
        [
            ([PRUNE, TRAIN, "quantize"], ["distil"]),
            ([TUNE, PRUNE, TRAIN, PRUNE, TUNE], ["finetune", "distil", "finetune"]),
            ([PRUNE, {"quantize_aware": {"epochs": 1}}], ["quantize_aware"]),
            ([PRUNE, "quantize"], None),
            ([TRAIN, "quantize"], None),
            ([TRAIN, PRUNE, "quantize"], None),
        ],
    )
    def test_the_same_training_without_what_prunes(
        self, bench: Bench, steps: list[Any], control: list[str] | None
    ) -> None:
        job = job_of(bench, {"small": steps})
        assert labels(job) == ({} if control is None else {"small": control})

    def test_it_can_be_turned_off(self, bench: Bench) -> None:
        assert labels(job_of(bench, {"small": [PRUNE, TRAIN]}, control=False)) == {}

    def test_a_variant_may_be_the_control(self, bench: Bench) -> None:
        job = job_of(bench, {"small": [PRUNE, TRAIN], "trained": [TRAIN]})
        assert controls.plan(job)["small"].key == branches.plan(job)["trained"].key


class TestCompare:
    def compared(self, job: Job, **outcomes: tuple[float, ...]) -> tuple[Any, list[str]]:
        """Controls from outcomes by name, and what was made for them."""
        asked: list[str] = []

        def score(name: str) -> list[Score]:
            held = outcomes[name]
            value = sum(held) / len(held)
            return [Score(name, "onnx", "accuracy", True, value, (0, 1), len(held), held)]

        def make(name: str, _: Any) -> list[Score]:
            asked.append(name)
            return score("made")

        scores = [each for name in outcomes if name != "made" for each in score(name)]
        return controls.compare(job, branches.plan(job), scores, make), asked

    def test_variants_with_one_training_share_a_control(self, bench: Bench) -> None:
        more = {"prune": {"ratio": "75 %"}}
        job = job_of(bench, {"half": [PRUNE, TRAIN], "quarter": [more, TRAIN, "quantize"]})
        found, asked = self.compared(
            job, half=(1, 1, 0, 1), quarter=(1, 0, 0, 1), made=(1, 1, 1, 1)
        )
        assert asked == ["control of half"]
        assert [(each.candidate, each.value, each.drop) for each in found] == [
            ("half", 1.0, 0.25),
            ("quarter", 1.0, 0.5),
        ]
        assert all(each.variant == "" and each.steps == ("distil",) for each in found)
        low, high = found[0].drop_interval
        assert low < 0.25 < high

    def test_a_variant_that_is_the_control_is_not_made_again(self, bench: Bench) -> None:
        job = job_of(bench, {"small": [PRUNE, TRAIN], "trained": [TRAIN]})
        found, asked = self.compared(job, small=(1, 0), trained=(1, 1))
        assert asked == []
        assert [(each.candidate, each.variant, each.drop) for each in found] == [
            ("small", "trained", 0.5)
        ]

    def test_another_metric_stands_beside_its_own(self, bench: Bench) -> None:
        job = job_of(bench, {"small": [PRUNE, TRAIN]})
        scores = [
            Score("small", "onnx", name, True, value, (0, 1), 1)
            for name, value in (("accuracy", 0.5), ("recall", 0.25))
        ]
        made = [replace(each, candidate="made", value=1.0) for each in scores]
        found = controls.compare(job, branches.plan(job), scores, lambda *_: made)
        assert {each.metric: each.drop for each in found} == {"accuracy": 0.5, "recall": 0.75}
        assert found[0].drop_interval is None
