"""What is dropped before a split, and how it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.errors import InputError
from lepton_compress.load.cleaning import clean
from lepton_compress.load.splitting import Shares, part


def images() -> np.ndarray:
    return np.arange(24, dtype=np.float32).reshape(8, 3)


def test_clean_data_stays_as_it_is_and_says_nothing() -> None:
    made = clean({"x": images()}, np.zeros(8, int), where="d", low=0, high=23, labels=[0])
    assert made.rows.tolist() == list(range(8))
    assert made.rows.dtype == np.int64
    assert made.notes == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_missing_value_drops_its_sample(value: float) -> None:
    x = images()
    x[5, 1] = value
    made = clean({"x": x}, None, where="d")
    assert made.rows.tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert made.notes == ("1 sample with a missing value dropped (first: sample 5, in x)",)


def test_empty_arrays_blank_texts_and_missing_targets_are_missing() -> None:
    waves = [np.ones(3), np.ones(0), np.ones(5), np.ones(6), np.ones(7), np.ones(8)]
    texts = ["a", "b", " \t", "d", "e", "f"]
    labels = ["x", "y", "z", None, "x", "x"]
    made = clean({"wave": waves, "text": texts}, labels, where="d")
    assert made.rows.tolist() == [0, 4, 5]
    assert "3 samples with a missing value dropped (first: sample 1, in wave)" in made.notes


def test_of_samples_that_are_alike_the_first_stays() -> None:
    x = images()
    x[[5, 7]] = x[2]
    made = clean({"x": x}, np.array([0, 0, 1, 0, 0, 1, 0, 1]), where="d")
    assert made.rows.tolist() == [0, 1, 2, 3, 4, 6]
    assert made.notes == ("2 samples that stand twice dropped (first: sample 5, of sample 2)",)


def test_alike_means_in_every_input_and_bit_for_bit() -> None:
    x = images()
    x[3] = x[2]
    assert len(clean({"x": x, "y": np.arange(8)}, where="d").rows) == 8
    assert len(clean({"t": ["ab", "a"], "u": ["c", "bc"]}, where="d").rows) == 2


def test_of_samples_that_contradict_each_other_none_stays() -> None:
    x = images()
    x[[5, 7]] = x[2]
    made = clean({"x": x}, np.array([0, 0, 1, 0, 0, 1, 0, 4]), where="d")
    assert made.rows.tolist() == [0, 1, 3, 4, 6]
    said = "3 samples labelled differently though alike dropped (first: sample 2 and sample 7, "
    assert made.notes == (said + "labelled 1 and 4)",)


def test_values_outside_the_limits_are_out_of_range() -> None:
    made = clean({"x": images()}, where="d", low=3, high=20)
    assert made.rows.tolist() == [1, 2, 3, 4, 5, 6]
    assert made.notes == ("2 samples out of range dropped (first: sample 0, 0.0 in x)",)


def test_labels_that_are_not_allowed_are_out_of_range() -> None:
    made = clean({"x": images()}, np.arange(8), where="d", labels=range(6))
    assert made.rows.tolist() == list(range(6))
    assert made.notes == ("2 samples out of range dropped (first: sample 6, label 6)",)


def test_samples_have_the_names_they_are_given() -> None:
    x = images()
    x[1] = x[0]
    (note,) = clean({"x": x}, where="d", named=lambda row: f"{row}.png").notes
    assert note == "1 sample that stands twice dropped (first: 1.png, of 0.png)"


def test_nothing_left_is_a_mistake() -> None:
    with pytest.raises(InputError, match="d: only 0 of 8 samples are left: 8 samples out of range"):
        clean({"x": images()}, where="d", low=100)


def test_labels_that_are_mostly_wrong_are_a_mistake() -> None:
    assert len(clean({"x": images()}, np.arange(8), where="d", labels=range(4)).rows) == 4
    with pytest.raises(InputError, match="only 3 of 8 samples are left: 5 samples out of range"):
        clean({"x": images()}, np.arange(8), where="d", labels=range(3))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=12))
def test_what_stays_has_no_doubles_and_no_contradiction(drawn: list[tuple[int, int]]) -> None:
    x = np.array([[value] for value, _ in drawn])
    y = np.array([label for _, label in drawn])
    told: dict[int, set[int]] = {}
    for value, label in drawn:
        told.setdefault(value, set()).add(label)
    right = {value for value, labels in told.items() if len(labels) == 1}
    if not right:
        with pytest.raises(InputError):
            clean({"x": x}, y, where="d")
        return
    kept = clean({"x": x}, y, where="d").rows
    assert sorted(x[kept, 0].tolist()) == sorted(right)


class TestSplitting:
    def part(self, **given: Any) -> dict[str, np.ndarray]:
        shares = Shares(calibration="10 %", evaluation="20 %")
        return part(np.arange(100), shares, given.pop("seed", 0), "d", **given)

    def test_every_sample_is_in_one_split(self) -> None:
        parts = self.part()
        assert {name: len(rows) for name, rows in parts.items()} == {
            "train": 70,
            "calibration": 10,
            "evaluation": 20,
        }
        assert sorted(np.concatenate(list(parts.values()))) == list(range(100))

    def test_given_ones_are_evaluated_on_whatever_the_seed(self) -> None:
        last = np.arange(90, 100)
        one, other = self.part(evaluation=last), self.part(evaluation=last, seed=1)
        assert one["evaluation"].tolist() == other["evaluation"].tolist() == last.tolist()
        assert one["train"].tolist() != other["train"].tolist()
        assert len(one["calibration"]) == 10
        assert sorted(np.concatenate(list(one.values()))) == list(range(100))
