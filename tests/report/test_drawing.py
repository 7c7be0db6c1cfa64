"""Pictures: everything within the frame, whatever was measured."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.report.chart import Budget, Chart, Point
from lepton_compress.report.drawing import Drawing, draw
from lepton_compress.units import show_percent, show_seconds


def point(name: str, x: float, y: float, half: float = 0.0) -> Point:
    around = (y - half, y + half)
    return Point(name, x, y, (x * 0.9, x * 1.1), around, False, False, True, True, "measured")


def chart(*points: Point, budgets: tuple[Budget, ...] = (), line: tuple[int, ...] = ()) -> Chart:
    return Chart(
        target="edge",
        axis="latency",
        x_title="latency",
        y_title="accuracy",
        points=points,
        line=line or tuple(range(len(points))),
        budgets=budgets,
        missing=(),
        higher_is_better=True,
        show_x=show_seconds,
        show_y=show_percent,
    )


def check_inside(made: Drawing) -> None:
    left, top, wide, high = made.frame
    for mark in made.marks:
        assert left <= mark.x <= left + wide
        assert top <= mark.y <= top + high
        assert mark.across is None or left <= mark.across[0] <= mark.across[1] <= left + wide
        assert mark.along is None or top <= mark.along[1] <= mark.along[0] <= top + high
    for tick in made.x_ticks:
        assert left <= tick.at <= left + wide
    for limit in made.limits:
        x, y, width, height = limit.outside
        assert width >= 0
        assert height >= 0
        assert left <= x
        assert x + width <= left + wide + 0.2
        assert top <= y
        assert y + height <= top + high + 0.2


values = st.floats(1e-7, 1e3)
shares = st.floats(-1, 1)


@given(
    st.lists(st.tuples(values, shares, st.floats(0, 0.5)), min_size=1, max_size=8),
    st.lists(st.tuples(st.sampled_from("xy"), values, st.booleans()), max_size=4),
    st.sampled_from([(860.0, 440.0), (400.0, 380.0)]),
)
def test_everything_lies_within_the_frame(
    points: list[tuple[float, float, float]],
    limits: list[tuple[str, float, bool]],
    size: tuple[float, float],
) -> None:
    made = chart(
        *(point(f"variant-{i}", *each) for i, each in enumerate(points)),
        budgets=tuple(Budget(axis, value, "at most", most) for axis, value, most in limits),
    )
    drawing = draw(made, *size)
    check_inside(drawing)
    assert len(drawing.marks) == len(points)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-9, 1e12])
def test_one_point_alone_has_ticks(value: float) -> None:
    made = draw(chart(point("a", abs(value) or 1.0, value)), 860, 440)
    check_inside(made)
    assert len(made.x_ticks) >= 2
    assert len(made.y_ticks) >= 2


def test_more_is_to_the_right_and_better_is_above() -> None:
    made = draw(chart(point("a", 1e-3, 0.9), point("b", 2e-3, 0.95)), 860, 440)
    a, b = made.marks
    assert a.x < b.x
    assert a.y > b.y
    assert [tick.label for tick in made.x_ticks[:2]] == ["1.00 ms", "1.50 ms"]


def test_far_costs_are_logarithmic() -> None:
    near = draw(chart(point("a", 1e-3, 0.9), point("b", 5e-3, 0.9)), 860, 440)
    far = draw(chart(point("a", 1e-5, 0.9), point("b", 1e-1, 0.9)), 860, 440)
    assert not near.logarithmic
    assert far.logarithmic
    assert [tick.label for tick in far.x_ticks] == [
        "10.0 us", "100 us", "1.00 ms", "10.0 ms", "100 ms"
    ]  # fmt: skip


def test_names_do_not_cover_each_other_where_there_is_room() -> None:
    points = [point(f"variant-{i}", 1e-3 + i * 2e-5, 0.9 + (i % 2) * 1e-3) for i in range(5)]
    made = draw(chart(*points, point("far", 3e-3, 0.5)), 860, 440)
    boxes = []
    for mark in made.marks:
        wide = 7 * len(mark.name)
        left = mark.name_x if mark.anchor == "start" else mark.name_x - wide
        boxes.append((left, mark.name_y - 10, left + wide, mark.name_y))
    for one, other in combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart


def test_limits_that_lie_close_keep_their_labels_apart() -> None:
    close = (Budget("y", 0.900, "one", False), Budget("y", 0.901, "other", False))
    made = draw(chart(point("a", 1.0, 0.5), point("b", 2.0, 1.0), budgets=close), 860, 440)
    heights = [limit.label_y for limit in made.limits]
    assert abs(heights[0] - heights[1]) >= 14


def test_details_name_what_a_point_is() -> None:
    held = replace(point("a", 1e-3, 0.9, 0.01), chosen=True, provenance="simulated")
    (mark,) = draw(chart(held), 860, 440).marks
    assert mark.details == (
        "accuracy 90.00 % (95 %: 89.00 % to 91.00 %)",
        "latency 1.00 ms (95 %: 900 us to 1.10 ms)",
        "passes the gates",
        "on the Pareto front",
        "chosen",
        "simulated",
    )
    assert mark.kind == "variant chosen passed front"


def test_the_front_goes_in_steps() -> None:
    made = draw(chart(point("a", 1.0, 0.5), point("b", 2.0, 1.0)), 860, 440)
    a, b = made.marks
    assert made.front == f"{a.x},{a.y} {b.x},{a.y} {b.x},{b.y}"
