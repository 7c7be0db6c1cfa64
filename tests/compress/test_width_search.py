"""The greedy path: nested, within its budget, and never more for less."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compress.compress.width_search import greedy, within

Case = tuple[dict[str, list[int]], dict[str, list[float]], dict[str, float], list[float]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Groups with widths, importances by channel, a cost for each channel and for each pair."""
    names = [f"g{number}" for number in range(draw(st.integers(1, 4)))]
    step = draw(st.sampled_from([1, 2, 4]))
    options = {name: [step * (k + 1) for k in range(draw(st.integers(1, 6)))] for name in names}
    values = st.floats(0.01, 10)
    importance = {
        name: sorted(draw(st.lists(values, min_size=widths[-1], max_size=widths[-1])))
        for name, widths in options.items()
    }
    alone = {name: draw(st.floats(0, 5)) for name in names}
    pairs = draw(st.lists(st.floats(0, 5), min_size=len(names), max_size=len(names)))
    return options, importance, alone, pairs


def _path(case: Case) -> tuple[list[dict[str, int]], list[float]]:
    options, importance, alone, pairs = case

    def loss(name: str, width: int) -> float:
        return sum(importance[name][: options[name][-1] - width])

    def cost(widths: Mapping[str, int]) -> float:
        own = sum(alone[name] * width for name, width in widths.items())
        chained = zip(pairs, itertools.pairwise(widths.values()), strict=False)
        return 1 + own + sum(each * a * b for each, (a, b) in chained)

    path = greedy(options, loss, cost)
    return path, [cost(each) for each in path]


@settings(max_examples=60)
@given(cases())
def test_goes_from_the_whole_net_to_the_narrowest_by_widths_that_are_allowed(case: Case) -> None:
    path, costs = _path(case)
    options = case[0]
    assert path[0] == {name: widths[-1] for name, widths in options.items()}
    assert path[-1] == {name: widths[0] for name, widths in options.items()}
    for wide, narrow in itertools.pairwise(path):
        changed = [name for name in wide if wide[name] != narrow[name]]
        assert len(changed) == 1
        assert narrow[changed[0]] < wide[changed[0]]
        assert narrow[changed[0]] in options[changed[0]]
    assert costs == sorted(costs, reverse=True)


@settings(max_examples=60)
@given(cases(), st.floats(0.01, 1), st.floats(0.01, 1))
def test_what_is_found_is_within_the_budget_and_a_tighter_one_keeps_less(
    case: Case, one: float, other: float
) -> None:
    path, costs = _path(case)
    by_mark = {tuple(widths.items()): spent for widths, spent in zip(path, costs, strict=True)}
    found = []
    for share in sorted((one, other)):
        limit = share * costs[0]
        place, spent = within(path, lambda widths: by_mark[tuple(widths.items())], limit)
        assert spent <= limit or spent == min(costs)
        assert place == 0 or costs[place - 1] > limit
        found.append(path[place])
    assert all(found[0][name] <= found[1][name] for name in found[0])


def test_narrows_what_matters_least_first() -> None:
    options = {"worthless": [1, 2, 3], "precious": [1, 2, 3]}
    value = {"worthless": 0.1, "precious": 10.0}
    path = greedy(
        options,
        lambda name, width: value[name] * (3 - width),
        lambda widths: sum(widths.values()),
    )
    assert all(each["precious"] == 3 for each in path if each["worthless"] > 1)


def test_goes_over_a_width_that_saves_nothing() -> None:
    # As where a vector unit takes four channels at a time.
    cost = {1: 1.5, 2: 2.0, 3: 4.0, 4: 4.0}
    path = greedy(
        {"stairs": [1, 2, 3, 4]}, lambda _, width: 4.0 - width, lambda w: cost[w["stairs"]]
    )
    assert path[:2] == [{"stairs": 4}, {"stairs": 2}]
