"""Where the answer turns, and that it does turn there."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_compress.place import sensitivity
from lepton_compress.place.planning import Planner
from lepton_compress.report.silent import Silent
from tests.place.fleets import demands, fleet, result


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    """The edge's p99 is 76 ms, the cloud's about 40 ms and the round trip."""
    one = result(tmp_path_factory.mktemp("images"))
    asked = demands(latency="200 ms", accuracy="95 %", only=["edge", "cloud"])
    return Planner(fleet(prefer="fastest", links__0__round_trip="60 ms", **asked), [one])


def test_it_says_below_which_round_trip_the_cloud_wins(planner: Planner) -> None:
    found = sensitivity.changes(planner, Silent())
    (turn,) = [each for each in found if each.of == "round trip"]
    assert turn.direction == "below"
    assert turn.plan == "the cloud region with images:baseline"
    assert 0.02 < turn.at < 0.06
    assert turn.said == (
        "see at camera goes to the cloud region with images:baseline below "
        f"{1e3 * turn.at:.1f} ms round trip (now 60.0 ms)"
    )
    for factor, kind in ((1.03, "edge"), (0.97, "cloud")):
        value = turn.at * factor
        (number,) = [
            n
            for n in sensitivity.numbers(planner.fleet, planner.cases(planner.fleet)[0])
            if n.of == "round trip"
        ]
        _, solution = planner.solve(number.put(value))
        assert solution is not None
        assert solution.taken[0].kind == kind


def test_a_demand_that_cannot_be_met_has_no_plan(planner: Planner) -> None:
    found = sensitivity.changes(planner, Silent())
    above = [e for e in found if "accuracy" in e.of and e.direction == "above"]
    (turn,) = above
    assert turn.plan == ""
    assert turn.at == pytest.approx(0.97167, abs=5e-4)
    assert "has no plan that meets the demands above 97.1" in turn.said


def test_a_map_agrees_with_the_plan(planner: Planner) -> None:
    (made,) = sensitivity.maps(planner, Silent())
    middle = sensitivity.CELLS // 2
    assert made.now == (0.06, 10e6)
    assert made.round_trips[middle] == pytest.approx(0.06)
    assert made.names[made.cells[middle][middle]] == "the edge with images:baseline"
    # Near and wide, the cloud; far or narrow, the edge.
    assert "cloud" in made.names[made.cells[-1][0]]
    assert "edge" in made.names[made.cells[-1][-1]]
    assert "edge" in made.names[made.cells[0][0]]


def test_reading_changes_nothing(planner: Planner, tmp_path: Path) -> None:
    before = planner.fleet.model_dump()
    sensitivity.changes(planner, Silent())
    assert planner.fleet.model_dump() == before
