"""Two ways of running a model, compared: what holds, and every way to differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton_compress.artifacts import Parity, Split
from lepton_compress.verify import (
    AGREEMENT,
    AGREEMENT_LIMIT,
    BATCHES,
    DEVIATION,
    DEVIATION_LIMIT,
    LIMIT,
    agree,
    difference,
    verify,
)

Arrays = Mapping[str, NDArray[Any]]


def one(*values: float, dtype: Any = np.float32) -> dict[str, NDArray[Any]]:
    return {"y": np.array(values, dtype)}


class TestDifference:
    def test_equal_is_none(self) -> None:
        assert difference(one(1, 2), one(1, 2)) == 0

    def test_it_is_relative_to_the_largest_magnitude(self) -> None:
        assert difference(one(0, -4), one(1, -4)) == 0.25
        assert difference(one(0, -4e6), one(1e6, -4e6)) == 0.25

    def test_the_worst_output_counts(self) -> None:
        wanted = {"a": np.ones(2), "b": np.ones(2)}
        assert difference(wanted, {"a": np.ones(2), "b": np.array([1, 0.5])}) == 0.5

    @pytest.mark.parametrize(
        "given_",
        [
            {"z": np.ones(2)},
            {},
            {"y": np.ones(2), "z": np.ones(2)},
            {"y": np.ones((2, 1))},
            {"y": np.ones(1)},
            {"y": np.array([1, math.nan])},
            {"y": np.array([1, math.inf])},
        ],
        ids=["name", "missing", "more", "rank", "length", "NaN", "infinity"],
    )
    def test_what_cannot_be_compared_is_infinitely_far(self, given_: Arrays) -> None:
        assert difference({"y": np.ones(2)}, given_) == math.inf

    def test_outputs_in_another_order_are_other_outputs(self) -> None:
        arrays = {"a": np.ones(1), "b": np.ones(1)}
        assert difference(arrays, dict(reversed(arrays.items()))) == math.inf

    def test_a_reference_that_is_no_number_never_holds(self) -> None:
        assert difference(one(math.nan), one(math.nan)) == math.inf

    def test_of_whole_numbers_the_share_that_differs_counts(self) -> None:
        wanted = one(1, 2, 3, 4, dtype=np.int64)
        assert difference(wanted, one(1, 2, 3, 9, dtype=np.int64)) == 0.25
        assert difference(one(1, 0, dtype=np.bool_), one(1, 1, dtype=np.bool_)) == 0.5

    def test_all_zeros_are_matched_by_zeros_alone(self) -> None:
        assert difference(one(0, 0), one(0, 0)) == 0
        assert difference(one(0, 0), one(0, 1e-6)) > LIMIT

    @pytest.mark.parametrize("dtype", [np.float32, np.int64])
    def test_nothing_equals_nothing(self, dtype: Any) -> None:
        assert difference(one(dtype=dtype), one(dtype=dtype)) == 0

    def test_half_precision_does_not_overflow(self) -> None:
        assert difference(one(6e4, dtype=np.float16), one(-6e4, dtype=np.float16)) == 2

    @given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), st.integers(0, 8))
    def test_a_planted_fault_is_found(self, values: list[float], place: int) -> None:
        wanted, wrong = one(*values), one(*values)
        place %= len(values)
        wrong["y"][place] += 0.01 * (1 + np.abs(wanted["y"]).max())
        assert difference(wanted, wrong) > LIMIT
        assert difference(wanted, wanted) == 0


def double(feeds: Arrays) -> dict[str, NDArray[Any]]:
    return {"y": 2 * feeds["x"]}


def check(subject: Any, rows: int = 9) -> tuple[Parity, ...]:
    samples = Split({"x": np.arange(1, rows + 1, dtype=np.float32)[:, None]})
    return verify(subject, double, samples, candidate="a", format="onnx", against="module")


class TestVerify:
    def test_both_batches_are_compared(self) -> None:
        made = check(double)
        assert [each.batch for each in made] == list(BATCHES) == [1, 7]
        assert [each.samples for each in made] == [1, 7]
        assert all(each.holds for each in made)
        assert {(each.candidate, each.format, each.against) for each in made} == {
            ("a", "onnx", "module")
        }

    def test_neither_batch_is_that_of_the_traced_example(self) -> None:
        assert 2 not in BATCHES

    def test_too_few_samples_are_repeated(self) -> None:
        seen: list[int] = []

        def subject(feeds: Arrays) -> dict[str, NDArray[Any]]:
            seen.append(len(feeds["x"]))
            return double(feeds)

        made = check(subject, rows=3)
        assert seen == [1, 7]
        assert [each.samples for each in made] == [1, 3]

    def test_a_batch_that_is_baked_in_shows(self) -> None:
        one_row, seven = check(lambda feeds: {"y": 2 * feeds["x"][:1]})
        assert one_row.holds
        assert not seven.holds
        assert seven.value == math.inf

    def test_rows_that_get_mixed_up_show(self) -> None:
        made = check(lambda feeds: {"y": 2 * feeds["x"][::-1]})
        assert [each.holds for each in made] == [True, False]

    @pytest.mark.parametrize(
        ("value", "holds"),
        [(0.0, True), (LIMIT, True), (2 * LIMIT, False), (math.inf, False), (math.nan, False)],
    )
    def test_what_holds(self, value: float, holds: bool) -> None:
        assert Parity("a", "onnx", "graph", "m", value, LIMIT, 1, 1).holds is holds


class TestAgree:
    """Scores (150, 3): a batch and more, of which each row has a class of its own."""

    SCORES = np.eye(3, dtype=np.float32)[np.arange(150) % 3]

    def found(self, subject: Any, **more: Any) -> dict[str, Parity]:
        made = agree(
            subject,
            lambda feeds: {"scores": feeds["x"]},
            Split({"x": self.SCORES}),
            candidate="a",
            format="litert",
            against="graph",
            **more,
        )
        assert all(each.samples == 150 for each in made)
        return {each.metric: each for each in made}

    def test_the_same_agrees(self) -> None:
        made = self.found(lambda feeds: {"scores": feeds["x"]})
        assert [made[each].value for each in (DEVIATION, AGREEMENT)] == [0.0, 0.0]
        assert all(each.holds for each in made.values())

    def test_a_step_here_and_there_is_no_other_answer(self) -> None:
        made = self.found(lambda feeds: {"scores": feeds["x"] + np.float32(0.01)})
        assert 0 < made[DEVIATION].value < DEVIATION_LIMIT
        assert made[AGREEMENT].value == 0

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_samples_of_another_class_are_counted(self, count: int) -> None:
        rows = iter(range(150))

        def subject(feeds: Arrays) -> dict[str, NDArray[Any]]:
            made = feeds["x"].copy()
            for place in range(len(made)):
                if next(rows) < count:
                    made[place] = np.roll(made[place], 1)
            return {"scores": made}

        made = self.found(subject)[AGREEMENT]
        assert made.value == count / 150
        assert made.holds == (count / 150 <= AGREEMENT_LIMIT)

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda x: {"other": x},
            lambda x: {"scores": x[:, :2]},
            lambda x: {},
            lambda x: {"scores": np.full_like(x, np.nan)},
            lambda x: {"scores": np.full_like(x, np.inf)},
        ],
    )
    def test_what_cannot_be_compared_never_agrees(self, wrong: Any) -> None:
        made = self.found(lambda feeds: wrong(feeds["x"]))[DEVIATION]
        assert made.value == math.inf
        assert not made.holds

    def test_where_rounding_is_the_point_classes_do_not_count(self) -> None:
        made = self.found(lambda feeds: {"scores": feeds["x"]}, classes=False)
        assert list(made) == [DEVIATION]

    def test_the_subject_may_take_other_samples(self) -> None:
        raw = Split({"x": (self.SCORES * 255).astype(np.uint8)})
        made = self.found(lambda feeds: {"scores": feeds["x"].astype(np.float32) / 255}, given=raw)
        assert made[DEVIATION].value == 0
