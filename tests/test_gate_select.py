"""Choosing: every reason by example, and what must hold always by property."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.artifacts import Choice, Status, Verdict
from lepton_compress.gate import PARITY, Measured, judge, passed, select
from lepton_compress.recipe import Recipe
from tests.measured import artifact, choose, measured, parity, profile, recipe, score

NAN = math.nan


class TestTargets:
    TARGETS = ({"name": "one"}, {"name": "two"})

    def test_costs_are_judged_on_each_and_facts_once(self) -> None:
        asked = recipe(targets=list(self.TARGETS), gates={"size": "1 KB", "cold_start": "1 s"})
        made = judge(asked, measured("a"))
        assert [v.target for v in made if v.gate == "size"] == [None]
        assert [v.target for v in made if v.gate == "cold_start"] == ["one", "two"]

    def test_a_gate_may_hold_on_one_alone(self) -> None:
        gates = {"size": {"limit": "999 B", "targets": ["two"]}}
        asked = recipe(targets=list(self.TARGETS), gates=gates, select="smallest", variants={})
        found = measured("baseline", profiles=[])
        one, two = select(asked, found, judge(asked, found))
        assert (one.target, one.met) == ("one", True)
        assert (two.target, two.met) == ("two", False)

    def test_each_gets_its_own_winner(self) -> None:
        asked = recipe(targets=list(self.TARGETS))
        speeds = {("a", "one"): 0.5, ("b", "one"): 0.7, ("a", "two"): 0.9, ("b", "two"): 0.6}
        profiles = [profile(name, ratio, target=on) for (name, on), ratio in speeds.items()]
        profiles += [profile("baseline", target="one"), profile("baseline", target="two")]
        found = measured("baseline", "a", "b", profiles=profiles)
        made = select(asked, found, judge(asked, found))
        assert [each.candidate for each in made] == ["a", "b"]


class TestFormats:
    """Of two formats each target takes one, which is what it was tried with."""

    @pytest.fixture
    def found(self) -> Measured:
        names = [(name, kind) for kind in ("onnx", "litert") for name in ("baseline", "a")]
        sizes = {"onnx": 1000, "litert": 2000}
        speeds = {("a", "onnx"): 0.5, ("a", "litert"): 0.4}
        return Measured(
            "baseline",
            [artifact(name, sizes[kind], format=kind) for name, kind in names],
            [parity(name, format=kind) for name, kind in names],
            [score(name, format=kind) for name, kind in names],
            [
                profile(name, speeds.get((name, kind), 1.0), format=kind, target=on)
                for name, kind in names
                for on in [{"onnx": "one", "litert": "two"}[kind]]
            ],
        )

    def test_each_target_is_judged_and_chosen_for_with_its_own(self, found: Measured) -> None:
        asked = recipe(targets=list(TestTargets.TARGETS), gates={"latency_ratio": "0.9x"})
        verdicts = judge(asked, found)
        ratios = [each for each in verdicts if each.gate == "latency_ratio"]
        assert {(each.format, each.target) for each in ratios} == {
            ("onnx", "one"),
            ("litert", "two"),
        }
        assert all(each.status is not Status.NOT_MEASURED for each in ratios)
        made = select(asked, found, verdicts)
        assert [(each.candidate, each.format) for each in made] == [("a", "onnx"), ("a", "litert")]

    def test_a_target_that_was_not_tried_has_measured_nothing(self, found: Measured) -> None:
        asked = recipe(targets=[*TestTargets.TARGETS, {"name": "three"}], gates={"latency": "1 s"})
        untried = [each for each in judge(asked, found) if each.target == "three"]
        assert {each.status for each in untried} == {Status.NOT_MEASURED}


class TestChoice:
    def test_the_fastest_is_the_one_with_the_least_ratio(self) -> None:
        profiles = [profile("baseline"), profile("a", 0.8), profile("b", 0.5)]
        made = choose(measured("baseline", "a", "b", profiles=profiles))
        assert (made.candidate, made.met) == ("b", True)
        assert made.reason == "0.50x the latency, 1.00x the size, same accuracy"

    def test_a_tie_in_time_goes_to_the_smaller(self) -> None:
        sizes = [artifact("baseline"), artifact("a", 900), artifact("b", 800)]
        profiles = [profile("baseline"), profile("a", 0.5), profile("b", 0.5)]
        found = measured("baseline", "a", "b", artifacts=sizes, profiles=profiles)
        assert choose(found).candidate == "b"

    def test_the_smallest(self) -> None:
        sizes = [artifact("baseline"), artifact("a", 900), artifact("b", 800)]
        found = measured("baseline", "a", "b", artifacts=sizes)
        assert choose(found, select="smallest").candidate == "b"

    def test_the_most_accurate(self) -> None:
        scores = [score("baseline"), score("a", 0.92, -0.02), score("b", 0.95, -0.05)]
        made = choose(measured("baseline", "a", "b", scores=scores), select="most_accurate")
        assert made.candidate == "b"
        assert made.reason.endswith("5.00 % accuracy gained")

    @pytest.mark.parametrize(
        ("asked", "what"),
        [("fastest", "faster"), ("smallest", "smaller"), ("most_accurate", "more accurate")],
    )
    def test_where_nothing_beats_it_the_original_is_chosen(self, asked: str, what: str) -> None:
        made = choose(measured("baseline", "a", "b"), select=asked)
        assert (made.candidate, made.met) == ("baseline", True)
        assert made.reason == f"no variant that passes the gates is {what} than the original"

    @pytest.mark.parametrize(
        ("ratio", "interval", "noise", "chosen"),
        [
            (0.95, (0.93, 0.97), 1.0, "a"),
            (0.95, (0.93, 0.97), 1.06, "baseline"),  # less than the machine's own difference
            (0.95, (0.93, 0.97), 0.94, "baseline"),
            (0.95, (0.93, 1.0), 1.0, "baseline"),  # perhaps no gain
            (0.95, (0.93, 0.97), NAN, "baseline"),
            (0.95, None, 1.0, "baseline"),
        ],
    )
    def test_faster_means_beyond_the_noise(
        self, ratio: float, interval: tuple[float, float] | None, noise: float, chosen: str
    ) -> None:
        fast = profile("a", ratio, ratio_interval=interval, noise=noise)
        found = measured("baseline", "a", profiles=[profile("baseline"), fast])
        assert choose(found).candidate == chosen

    def test_a_variant_that_passes_is_chosen_if_the_original_does_not(self) -> None:
        sizes = [artifact("baseline", 2000), artifact("a", 900), artifact("b", 900)]
        profiles = [profile("baseline"), profile("a", 1.2), profile("b", 1.1)]
        found = measured("baseline", "a", "b", artifacts=sizes, profiles=profiles)
        made = choose(found, gates={"size": "1 KB"})
        assert (made.candidate, made.met) == ("b", True)
        assert made.reason.endswith("; the original does not pass the gates")

    def test_where_nothing_passes_the_gates_are_blamed(self) -> None:
        made = choose(measured("baseline", "a", "b"), gates={"size": "999 B"})
        assert (made.candidate, made.met) == ("baseline", False)
        why = "size FAIL (1.00 KB, at most 999 B asked)"
        assert made.reason == f"nothing passes the gates: a {why}; b {why}"

    def test_where_only_the_original_passes_the_gates_are_blamed_too(self) -> None:
        scores = [score("baseline"), score("a", 0.5, 0.4)]
        found = measured("baseline", "a", scores=scores)
        made = choose(found, gates={"drop": "1 %"})
        assert (made.candidate, made.met) == ("baseline", True)
        assert made.reason.startswith("no variant passes the gates: a drop FAIL (40.00 %, at most")

    def test_a_format_that_breaks_the_model_does_not_stand_for_the_original(self) -> None:
        names = [("baseline", "broken"), ("a", "broken"), ("baseline", "onnx"), ("a", "onnx")]
        found = Measured(
            "baseline",
            [artifact(name, format=kind) for name, kind in names],
            [parity(name, 0.5 if kind == "broken" else 0.0, format=kind) for name, kind in names],
            [score(name, format=kind) for name, kind in names],
            [profile(name, format=kind) for name, kind in names],
        )
        made = choose(found, exports=["onnx"])
        assert (made.candidate, made.format, made.met) == ("baseline", "onnx", True)

    def test_errors_are_told_as_more_or_less(self) -> None:
        scores = [
            score("baseline", 2.0, higher_is_better=False),
            score("a", 1.5, -0.5, higher_is_better=False),
        ]
        made = choose(measured("baseline", "a", scores=scores), select="most_accurate")
        assert made.reason.endswith("0.5 accuracy less")

    def test_a_choice_is_made_without_a_ratio_where_the_original_cannot_run(self) -> None:
        slow, fast = ({"p50": seconds} for seconds in (2e-3, 1e-3))
        profiles = [
            profile("baseline", None, status="failed", reason="too large"),
            profile("a", None, latency=slow),
            profile("b", None, latency=fast),
        ]
        made = choose(measured("baseline", "a", "b", profiles=profiles))
        assert (made.candidate, made.met) == ("b", True)


class TestPassed:
    def test_the_chosen_one_must_meet_the_gates(self) -> None:
        for size, good in (("1 KB", True), ("999 B", False)):
            asked, found = recipe(gates={"size": size}), measured("baseline", "a")
            verdicts = judge(asked, found)
            assert passed(asked, select(asked, found, verdicts), verdicts) is good

    @pytest.mark.parametrize("status", list(Status))
    def test_every_variant_must_pass_if_so_asked(self, status: Status) -> None:
        asked = recipe(require="every")
        met = [Choice("onnxruntime-cpu", "a", "onnx", "", True)]
        made = Verdict("b", "onnx", None, "size", status, 1.0, None, 1.0, False, "")
        assert passed(asked, met, [made]) is (status is Status.PASS)
        assert passed(recipe(), met, [made])
        # The original is no variant.
        assert passed(asked, met, [replace(made, candidate="baseline")])


PARTS = st.sampled_from([0.0, 0.005, 0.02, 0.5, NAN, None])
RATIOS = st.sampled_from([0.5, 0.97, 1.0, 1.3, None])
VALUES = st.sampled_from([0.0, 1e-5, 2e-4, math.inf, NAN])
GATES = st.fixed_dictionaries(
    {},
    optional={
        "drop": st.sampled_from([{"limit": "1 %", "strict": s} for s in (True, False)]),
        "size": st.sampled_from(["1 KB", "500 B"]),
        "latency_ratio": st.sampled_from([{"limit": "1x", "strict": s} for s in (True, False)]),
        "latency": st.sampled_from(["1 ms", {"limit": "3 ms", "percentile": "p99"}]),
    },
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Recipe, Measured]:
    """A recipe, and what a run of it might have measured."""
    names = ("baseline", "a", "b")
    sizes = [artifact(name, draw(st.sampled_from([400, 900, 2000]))) for name in names]
    profiles = []
    for name in names:
        ratio = draw(RATIOS)
        status = draw(st.sampled_from(["measured", "measured", "failed"]))
        profiles.append(profile(name, ratio, status=status, noise=draw(RATIOS)))
    found = measured(
        *names,
        artifacts=sizes,
        parities=[parity(name, draw(VALUES)) for name in names],
        scores=[score(name, draw(st.sampled_from([0.9, NAN])), draw(PARTS)) for name in names],
        profiles=profiles,
    )
    best = draw(st.sampled_from(["fastest", "smallest", "most_accurate"]))
    return recipe(gates=draw(GATES), select=best), found


def failing(choice: Choice, verdicts: tuple[Verdict, ...]) -> Iterator[Verdict]:
    """Of the chosen artifact on its target."""
    for each in verdicts:
        same = (each.candidate, each.format) == (choice.candidate, choice.format)
        if same and each.target in (None, choice.target) and each.status is not Status.PASS:
            yield each


@given(runs())
def test_a_choice_that_is_met_passes_every_gate(run: tuple[Recipe, Measured]) -> None:
    asked, found = run
    verdicts = judge(asked, found)
    (choice,) = select(asked, found, verdicts)
    assert choice.reason
    if choice.candidate is not None:
        assert choice.met is (not list(failing(choice, verdicts)))
    if not choice.met:  # then nothing at all would have been
        held = [(each.candidate, each.format) for each in found.artifacts]
        others = [replace(choice, candidate=name, format=kind) for name, kind in held]
        assert all(list(failing(each, verdicts)) for each in others)
    assert passed(asked, [choice], verdicts) is choice.met


@given(runs())
def test_what_was_not_measured_never_passes(run: tuple[Recipe, Measured]) -> None:
    for each in judge(*run):
        unknown = each.observed is None or math.isnan(each.observed)
        if unknown and each.gate != PARITY:
            assert each.status in (Status.NOT_MEASURED, Status.FAIL)
        assert not (each.status is Status.PASS and unknown)
        assert each.reason


@given(runs())
def test_a_broken_parity_is_never_chosen(run: tuple[Recipe, Measured]) -> None:
    asked, found = run
    (choice,) = select(asked, found, judge(asked, found))
    held = {each.candidate: each.value for each in found.parities}
    assert choice.candidate is None or held[choice.candidate] <= 1e-4
