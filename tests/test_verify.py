"""An artifact against its source: what counts as the same, and what never does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton_compress.artifacts import Split
from lepton_compress.verify import BATCHES, LIMIT, difference, verify

Arrays = Mapping[str, NDArray[Any]]
ONE = {"y": np.array([[1.0, -4.0]], np.float32)}


def run(factor: float, offset: float = 0.0) -> object:
    return lambda feeds: {"y": feeds["x"] * factor + offset}


def samples(count: int) -> Split:
    return Split({"x": np.arange(1.0, count * 3 + 1, dtype=np.float32).reshape(count, 3)})


class TestDifference:
    def test_of_equals_is_zero(self) -> None:
        assert difference(ONE, {"y": ONE["y"].copy()}) == 0

    def test_is_relative_to_the_largest_magnitude(self) -> None:
        assert difference(ONE, {"y": np.array([[1.0, -4.4]], np.float32)}) == pytest.approx(0.1)
        assert difference(ONE, {"y": np.array([[1.4, -4.0]], np.float32)}) == pytest.approx(0.1)

    def test_the_worst_output_counts(self) -> None:
        two = {**ONE, "z": np.array([2.0], np.float32)}
        assert difference(two, {**ONE, "z": np.array([1.0], np.float32)}) == pytest.approx(0.5)

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"z": ONE["y"]},
            {"y": ONE["y"][0]},
            {"y": np.array([[np.nan, -4.0]], np.float32)},
            {"y": np.array([[np.inf, -4.0]], np.float32)},
        ],
    )
    def test_what_cannot_be_compared_is_infinitely_far(self, given: Arrays) -> None:
        assert difference(ONE, given) == math.inf

    def test_of_labels_is_the_share_that_differs(self) -> None:
        wanted = {"y": np.array([1, 2, 3, 4])}
        assert difference(wanted, {"y": np.array([1, 2, 3, 5])}) == 0.25
        assert difference(wanted, {"y": np.array([1, 2, 3, 4])}) == 0

    def test_of_nothing_is_zero(self) -> None:
        empty: Arrays = {"y": np.zeros((0, 3), np.float32), "z": np.zeros(0, np.int64)}
        assert difference(empty, empty) == 0

    def test_of_zeros_does_not_divide_by_zero(self) -> None:
        zeros = {"y": np.zeros(3, np.float32)}
        assert difference(zeros, zeros) == 0
        assert difference(zeros, {"y": np.full(3, 1e-3, np.float32)}) > LIMIT


class TestVerify:
    def check(self, subject: object, count: int = 9) -> list[tuple[bool, int, int]]:
        found = verify(
            subject,  # type: ignore[arg-type]
            run(2.0),  # type: ignore[arg-type]
            samples(count),
            candidate="a",
            format="onnx",
            against="graph",
        )
        return [(each.holds, each.batch, each.samples) for each in found]

    def test_at_each_batch(self) -> None:
        assert self.check(run(2.0)) == [(True, batch, batch) for batch in BATCHES]

    def test_a_wrong_weight_fails_both(self) -> None:
        assert [held for held, *_ in self.check(run(2.001))] == [False, False]

    def test_a_baked_batch_fails_one(self) -> None:
        def baked(feeds: Arrays) -> Arrays:
            return {"y": np.resize(feeds["x"] * 2, (1, 3))}

        assert [held for held, *_ in self.check(baked)] == [True, False]

    def test_few_samples_are_repeated_to_fill_the_batch(self) -> None:
        seen = []

        def watched(feeds: Arrays) -> Arrays:
            seen.append(feeds["x"][:, 0].tolist())
            return {"y": feeds["x"] * 2}

        assert self.check(watched, count=2) == [(True, 1, 1), (True, 7, 2)]
        assert seen == [[1.0], [1.0, 4.0, 1.0, 4.0, 1.0, 4.0, 1.0]]
