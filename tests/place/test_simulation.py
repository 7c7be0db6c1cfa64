"""Discrete events confirm what was computed."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from lepton_compress.artifacts import RunResult
from lepton_compress.errors import MissingExtraError
from lepton_compress.place import simulation
from lepton_compress.place.planning import Planner
from lepton_compress.report.silent import Silent
from tests.place.fleets import demands, fleet, result
from tests.place.test_planning import TWO_SITES, cut, rested

NEAR = 0.1


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return result(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize(
    "changes",
    [
        {"workloads__0__rate": "50/s", **demands(only=["edge"])},
        {"sites__0__count": 1000, **demands(latency="90 ms", accuracy="95 %", only=["cloud"])},
        {"sites__0__count": 1000, **demands(latency="120 ms", accuracy="93 %", only=["cascade"])},
        {"sites__0__count": 1000, **demands(latency="90 ms", only=["split"])},
        {**TWO_SITES, **demands(latency="90 ms", accuracy="95 %", only=["cloud"])},
    ],
    ids=["edge", "cloud", "cascade", "split", "shared"],
)
def test_it_agrees_within_a_tenth(images: RunResult, changes: dict[str, Any]) -> None:
    planner = Planner(fleet(**changes), [images], (cut(),))
    placed = planner.place().placed
    found = simulation.confirm(planner, 0, Silent(), requests=15_000)
    assert [each.site for each in found] == [each.site for each in placed]
    for each in found:
        assert each.requests > 5000
        assert set(each.simulated) == {"p50", "p90", "p99"}
        assert each.worst < NEAR, each
        assert each.worst > 0  # two roads never end on the same spot


def test_it_agrees_where_calls_after_rests_take_longer(images: RunResult) -> None:
    one = rested(images, 3.0)
    for asked in (demands(only=["edge"]), demands(latency="120 ms", only=["cloud"])):
        planner = Planner(fleet(workloads__0__rate="8/s", **asked), [one])
        (found,) = simulation.confirm(planner, 0, Silent(), requests=15_000)
        assert found.worst < NEAR, found


def test_the_same_seed_gives_the_same_times(images: RunResult) -> None:
    planner = Planner(fleet(**demands(only=["cloud"])), [images])
    first, second = (simulation.confirm(planner, 3, Silent(), requests=500) for _ in range(2))
    assert first == second


def test_without_simpy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simpy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lepton-compress\[placement\]'"):
        simulation.check()
