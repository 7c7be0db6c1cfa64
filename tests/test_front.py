"""The Pareto front: what is on it by definition, and what never is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.artifacts import Front, Profile, Score
from lepton_compress.front import front, pareto
from tests.measured import artifact, parity, profile, score

NAN = math.nan
HERE = "onnxruntime-cpu"


points = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, math.inf, NAN])] * 2), max_size=12)


@given(points)
def test_a_pareto_front_is_exactly_the_undominated_points(
    held: list[tuple[float, float]],
) -> None:
    known = {i: p for i, p in enumerate(held) if not any(map(math.isnan, p))}
    front = [
        index
        for index, (x, y) in known.items()
        if not any((u <= x and v < y) or (u < x and v <= y) for u, v in known.values())
    ]
    assert pareto(held) == front


def test_equal_points_share_the_front() -> None:
    assert pareto([(1.0, 2.0), (1.0, 2.0), (2.0, 1.0), (2.0, 2.0)]) == [0, 1, 2]
    assert pareto([]) == []


def made(
    *names: str,
    sizes: dict[str, int] | None = None,
    values: dict[str, float] | None = None,
    ratios: dict[str, float | None] | None = None,
    broken: str = "",
    more: dict[str, dict[str, object]] | None = None,
) -> Front:
    """The front of candidates that are all alike but for what is given."""
    sizes, values, ratios, more = sizes or {}, values or {}, ratios or {}, more or {}
    return front(
        HERE,
        [artifact(name, sizes.get(name, 1000)) for name in names],
        [parity(name, NAN if name == broken else 0.0) for name in names],
        [score(name, values.get(name, 0.9)) for name in names],
        [profile(name, ratios.get(name, 1.0), **more.get(name, {})) for name in names],
    )


def members(found: Front) -> list[str]:
    assert {form for _, form in found.members} <= {"onnx"}
    return [candidate for candidate, _ in found.members]


class TestFront:
    def test_all_four_measures_count(self) -> None:
        found = made("a", "b")
        assert found.measures == ("score", "latency", "size", "peak_memory")
        assert members(found) == ["a", "b"], "equals share it"

    @pytest.mark.parametrize(
        "better",
        [
            {"values": {"b": 0.91}},
            {"ratios": {"b": 0.9}},
            {"sizes": {"b": 900}},
            {"more": {"b": {"peak_memory": 4_999_999}}},
        ],
    )
    def test_what_is_better_in_one_beats_the_rest(self, better: dict[str, dict[str, int]]) -> None:
        assert members(made("a", "b", **better)) == ["b"]  # type: ignore[arg-type]

    def test_better_here_and_worse_there_stays(self) -> None:
        found = made("a", "b", "c", values={"a": 0.95}, ratios={"b": 0.5}, sizes={"c": 1001})
        assert members(found) == ["a", "b"]

    def test_an_error_counts_the_other_way(self) -> None:
        errors = [score(n, v, higher_is_better=False) for n, v in (("a", 0.2), ("b", 0.1))]
        things = [artifact("a"), artifact("b")]
        found = front(HERE, things, [], errors, [profile("a"), profile("b")])
        assert members(found) == ["b"]

    def test_what_computes_something_else_is_not_on_it(self) -> None:
        assert members(made("a", "b", ratios={"b": 0.1}, broken="b")) == ["a"]

    def test_what_could_not_be_measured_is_not_on_it(self) -> None:
        found = made("a", "b", sizes={"b": 1}, more={"b": {"latency": {}}})
        assert members(found) == ["a"]

    def test_a_measure_that_nobody_has_is_left_out(self) -> None:
        gone: dict[str, object] = {"peak_memory": None}
        found = made("a", "b", ratios={"b": 0.5}, more={"a": gone, "b": gone})
        assert found.measures == ("score", "latency", "size")
        assert members(found) == ["b"]

    def test_only_the_first_metric_counts(self) -> None:
        second = [score(n, v, metric="second") for n, v in (("a", 0.1), ("b", 0.9))]
        first = [score("a"), score("b")]
        found = front(
            HERE, [artifact("a"), artifact("b")], [], first + second, [profile("a"), profile("b")]
        )
        assert members(found) == ["a", "b"]

    def test_where_nothing_ran_nobody_is_on_it(self) -> None:
        nothing: list[Profile] = []
        scores: list[Score] = [score("a")]
        assert front(HERE, [artifact("a")], [], scores, nothing).members == ()
