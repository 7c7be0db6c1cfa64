"""Samples are held out by class, each once, and the same each time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.compress.validation import hold_out


@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=200),
    st.floats(0.05, 0.5),
    st.integers(0, 2**32),
)
def test_every_sample_is_on_one_side(labels: list[int], share: float, seed: int) -> None:
    targets = np.array(labels)
    kept, held = hold_out(targets, len(labels), share, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    again = hold_out(targets, len(labels), share, seed)
    assert np.array_equal(again[0], kept)
    if len(held):
        for label in set(labels):
            count = labels.count(label)
            assert abs((targets[held] == label).sum() - count * len(held) / len(labels)) <= 1


def test_without_classes_it_is_drawn() -> None:
    values = np.linspace(0, 1, 100)
    kept, held = hold_out(values, 100, 0.1, 0)
    assert (len(kept), len(held)) == (90, 10)
    assert not np.array_equal(held, hold_out(values, 100, 0.1, 1)[1])
    assert len(hold_out(None, 100, 0.1, 0)[1]) == 10


def test_less_than_two_are_none() -> None:
    assert len(hold_out(None, 10, 0.1, 0)[1]) == 0
    assert len(hold_out(None, 100, 0.0, 0)[1]) == 0
