"""Which samples and classes changed, on outcomes whose answer is plain to see."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.artifacts import Score
from lepton_compress.outcomes import changes, comparable, worst_classes
from tests.measured import score


def scored(*outcomes: float, **more: Any) -> Score:
    return score("a", sum(outcomes) / len(outcomes), outcomes=outcomes, **more)


class TestChanges:
    def test_flips_both_ways_with_the_numbers_of_the_samples(self) -> None:
        found = changes(scored(1, 1, 0, 0, 1), scored(1, 0, 1, 0, 0), (7, 7, 8, 8, 9))
        assert found is not None
        assert found.flips
        assert [(c.sample, c.label, c.loss) for c in found.lost] == [(1, 7, 1.0), (4, 9, 1.0)]
        assert [(c.sample, c.label, c.loss) for c in found.gained] == [(2, 8, -1.0)]

    def test_errors_are_no_flips_and_count_the_other_way(self) -> None:
        one = scored(0.1, 0.2, 0.3, higher_is_better=False)
        other = scored(0.2, 0.1, 0.9, higher_is_better=False)
        found = changes(one, other)
        assert found is not None
        assert not found.flips
        assert [c.sample for c in found.lost] == [2, 0], "the worst first"
        assert [c.sample for c in found.gained] == [1]
        assert found.lost[0].label is None

    def test_without_outcomes_there_is_no_answer(self) -> None:
        assert changes(score("a"), scored(1, 0)) is None
        assert changes(scored(1, 0), scored(1, 0, 1)) is None
        assert not comparable(scored(1, 0), scored(1, 0, metric="other"))

    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
    def test_the_drop_is_what_was_lost_less_what_was_gained(
        self, pairs: list[tuple[bool, bool]]
    ) -> None:
        one = scored(*(float(a) for a, _ in pairs))
        other = scored(*(float(b) for _, b in pairs))
        found = changes(one, other)
        assert found is not None
        drop = (len(found.lost) - len(found.gained)) / len(pairs)
        assert drop == pytest.approx(one.value - other.value)


class TestWorstClasses:
    def test_the_worst_stands_first_and_gains_are_left_out(self) -> None:
        labels = (0, 0, 1, 1, 2, 2)
        found = worst_classes(scored(1, 1, 1, 1, 0, 1), scored(0, 0, 0, 1, 1, 1), labels)
        assert [(c.label, c.samples, c.before, c.after, c.drop) for c in found] == [
            (0, 2, 1.0, 0.0, 1.0),
            (1, 2, 1.0, 0.5, 0.5),
        ]
        for each in found:
            low, high = each.interval
            assert low <= each.drop <= high
            assert low < high, "two samples prove little"

    def test_at_most_so_many(self) -> None:
        labels = tuple(range(6)) * 2
        found = worst_classes(scored(*[1] * 12), scored(*[0] * 12), labels, most=2)
        assert len(found) == 2

    def test_labels_of_other_samples_are_not_used(self) -> None:
        assert worst_classes(scored(1, 1), scored(0, 0), (0,)) == ()
        assert worst_classes(scored(1, 1), scored(0, 0), ()) == ()
        assert worst_classes(score("a"), scored(0, 0), (0, 0)) == ()
