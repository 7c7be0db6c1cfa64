"""Layouts, beside numpy's own arrays."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compress.export.flatbuffer.layouts import Layout, Shape, moves, permuted, plain

SIZES = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5)


def memory_of(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Where the elements of a value lie."""
    return array.reshape(layout.factors).transpose(layout.order).ravel()


@st.composite
def changes(draw: st.DrawFn) -> tuple[Shape, list[tuple[str, Shape]]]:
    """A shape, and what is done to it: turned by a permutation, or seen in another shape."""
    shape = tuple(draw(SIZES))
    steps: list[tuple[str, Shape]] = []
    now = shape
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            order = tuple(draw(st.permutations(range(len(now)))))
            steps.append(("turn", order))
            now = tuple(now[axis] for axis in order)
        else:
            left, sizes = math.prod(now), []
            while left > 1:
                size = draw(st.sampled_from([n for n in range(2, left + 1) if left % n == 0]))
                sizes.append(size)
                left //= size
            now = tuple(sizes) or (1,)
            steps.append(("shape", now))
    return shape, steps


@settings(max_examples=300, deadline=None)
@given(changes())
def test_nothing_moves_in_memory(case: tuple[Shape, list[tuple[str, Shape]]]) -> None:
    shape, steps = case
    array, layout = np.arange(math.prod(shape)).reshape(shape), plain(shape)
    memory = array.ravel()
    for kind, numbers in steps:
        turned = kind == "turn"
        made = layout.transposed(array.shape, numbers) if turned else layout.fitted(numbers)
        if made is None:  # it would have to be moved
            return
        array = array.transpose(numbers) if turned else array.reshape(numbers)
        layout = made
        fitted = layout.fitted(array.shape)
        assert fitted is not None
        assert (memory_of(array, fitted) == memory).all()
        storage = layout.storage(array.shape)
        if storage is not None:
            assert (array.transpose(storage).ravel() == memory).all()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_moves_bring_a_value_into_any_order(data: st.DataObject) -> None:
    shape = tuple(data.draw(SIZES))
    before, after = (tuple(data.draw(st.permutations(range(len(shape))))) for _ in range(2))
    array = np.arange(math.prod(shape)).reshape(shape)
    memory = array.transpose(before).ravel()
    found = moves(permuted(shape, before), shape, after)
    assert found is not None
    sizes, turn = found
    assert (memory.reshape(sizes).transpose(turn).ravel() == array.transpose(after).ravel()).all()
    assert all(later != earlier + 1 for earlier, later in itertools.pairwise(turn))


def test_channels_last_flattened() -> None:
    """The example of the module."""
    layout = permuted((1, 6, 4, 4), (0, 2, 3, 1)).fitted((1, 96))
    assert layout is not None
    assert layout.storage((1, 96)) is None
    assert layout.storage((1, 96), shuffled=True) == (0, 1)
    assert layout.factors == (6, 16)
    assert layout.order == (1, 0)
