"""The arithmetic of widths: what is allowed, and which channels stay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compress.compress.groups import Group, Member, Part, choose, removed

SIZES = st.sampled_from([1, 2, 3, 4, 8, 16, 20, 32])
ROUNDS = st.integers(1, 64)
WIDTHS = st.integers(1, 80)


def group(width: int, size: int = 1, layer: str = "layer") -> Group:
    return Group(layer, width, tuple(float(at % 7) for at in range(width)), size=size)


class TestWidths:
    @settings(max_examples=100)
    @given(WIDTHS, SIZES, ROUNDS)
    def test_elements_are_multiples_or_all(self, width: int, size: int, round_to: int) -> None:
        allowed = group(width, size).widths(round_to)
        assert allowed == sorted(set(allowed))
        assert allowed[0] >= 1
        assert allowed[-1] == width
        assert all(each * size % round_to == 0 for each in allowed[:-1])

    @settings(max_examples=100)
    @given(WIDTHS, SIZES, ROUNDS, st.floats(0, 80))
    def test_the_one_that_fits_is_the_narrowest(
        self, width: int, size: int, round_to: int, wanted: float
    ) -> None:
        made = group(width, size)
        fits = [each for each in made.widths(round_to) if each >= wanted]
        assert made.fitting(wanted, round_to) == (fits[0] if fits else width)

    @pytest.mark.parametrize(
        ("size", "round_to", "step"), [(1, 8, 8), (8, 8, 1), (16, 8, 1), (4, 8, 2), (12, 8, 2)]
    )
    def test_a_head_counts_with_its_dimension(self, size: int, round_to: int, step: int) -> None:
        assert group(64, size).step(round_to) == step


class TestChosen:
    @settings(max_examples=100)
    @given(st.lists(st.tuples(WIDTHS, SIZES), min_size=1, max_size=5), st.floats(0, 1), ROUNDS)
    def test_no_layer_is_removed_whole(
        self, given: list[tuple[int, int]], ratio: float, round_to: int
    ) -> None:
        groups = [group(width, size, f"g{at}") for at, (width, size) in enumerate(given)]
        for scope in ("global", "local"):
            kept = choose(groups, ratio, scope, round_to)
            for each in groups:
                assert len(kept[each.layer]) in each.widths(round_to)

    @settings(max_examples=60)
    @given(WIDTHS, SIZES, ROUNDS, st.floats(0, 1))
    def test_local_never_takes_more_than_asked(
        self, width: int, size: int, round_to: int, ratio: float
    ) -> None:
        kept = choose([group(width, size)], ratio, "local", round_to)["layer"]
        assert len(kept) >= width * (1 - ratio) - 1e-9


class TestRemoved:
    PLACES = ((0, 4), (1, 5), (2, 6), (3, 7))
    MEMBER = Member("gates", "weight", 0, PLACES)

    def test_every_part_loses_its_own(self) -> None:
        other = Member("gates", "reverse", 0, self.PLACES)
        parts = (Part((self.MEMBER,), (3, 2, 1, 0)), Part((other,), (0, 1, 2, 3)))
        made = Group("gates", 4, (4.0, 3.0, 2.0, 1.0), "units", parts=parts)
        assert removed([made], {"gates": [0, 1]}) == {
            ("gates", "weight", 0): {0, 1, 4, 5},
            ("gates", "reverse", 0): {2, 3, 6, 7},
        }

    def test_groups_that_share_a_tensor_are_joined(self) -> None:
        left = Group("a", 2, parts=(Part((Member("c", "weight", 1, ((0,), (1,)), True),), (0, 1)),))
        right = Group(
            "b", 2, parts=(Part((Member("c", "weight", 1, ((2,), (3,)), True),), (0, 1)),)
        )
        assert removed([left, right], {"a": [0], "b": [1]}) == {("c", "weight", 1): {1, 2}}

    def test_nothing_where_all_stay(self) -> None:
        made = Group("gates", 4, parts=(Part((self.MEMBER,), (0, 1, 2, 3)),))
        assert removed([made], {"gates": [0, 1, 2, 3]}) == {}
