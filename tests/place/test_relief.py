"""What would have to give where nothing meets every demand, and that it is enough."""

from __future__ import annotations

from typing import Any

import pytest

from lepton_compress.artifacts import RunResult
from lepton_compress.place import relief
from lepton_compress.place.planning import Planner
from lepton_compress.placements import Relief
from lepton_compress.report.silent import Silent
from tests.place.fleets import demands, fleet, result


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return result(tmp_path_factory.mktemp("images"))


def reliefs(one: RunResult, **changes: Any) -> dict[str, Relief]:
    planner = Planner(fleet(**changes), [one])
    assert planner.solve(planner.fleet)[1] is None
    return {each.demand: each for each in relief.reliefs(planner, Silent())}


def feasible(one: RunResult, **changes: Any) -> bool:
    return Planner(fleet(**changes), [one]).place().feasible


def test_each_demand_is_loosened_alone(images: RunResult) -> None:
    found = reliefs(images, **demands(latency="60 ms", accuracy="96 %", only=["edge", "cloud"]))
    limit, value = found["p99"].to, found["accuracy"].to
    assert limit is not None
    assert value is not None
    assert 0.06 < limit < 0.0758
    assert value == pytest.approx(0.755, abs=1e-3)
    assert found["accuracy"].said == (
        "see at camera: possible with accuracy 75.50 % instead of 96.00 %"
    )
    assert found["replicas of region"].to is None
    assert "no other replicas of region alone is enough" in found["replicas of region"].said
    asked = {"accuracy": "96 %", "only": ["edge", "cloud"]}
    assert feasible(images, **demands(latency=f"{limit:.6f} s", **asked))
    assert not feasible(images, **demands(latency=f"{limit * 0.98:.6f} s", **asked))


def test_what_can_only_be_dropped_is_said_so(images: RunResult) -> None:
    asked = {"latency": "75 ms", "accuracy": "96 %"}
    found = reliefs(images, **demands(may_leave="nothing", **asked))
    assert found["privacy"].to is not None
    assert found["privacy"].said == "see at camera: possible without the demand on privacy"
    found = reliefs(images, **demands(offline=True, only=["cloud", "edge"], **asked))
    assert found["offline"].to is not None


def test_cost_and_replicas_are_told_as_numbers(images: RunResult) -> None:
    asked = demands(latency="75 ms", accuracy="96 %", only=["cloud"])
    found = reliefs(images, cost="10/month", **asked)
    cost = found["cost"].to
    assert cost is not None
    assert feasible(images, cost=f"{cost:.2f}/month", **asked)
    assert "a month instead of 10.00 EUR a month" in found["cost"].said
    found = reliefs(images, sites__0__count=3000, sites__1__replicas=2, **asked)
    replicas = found["replicas of region"].to
    assert replicas is not None
    assert 24 < replicas < 36


def test_memory_is_named_where_it_binds(images: RunResult) -> None:
    found = reliefs(images, sites__0__flash="90 KB", **demands(latency="20 ms", only=["edge"]))
    assert found["memory"].to is not None
    assert found["p99"].to is None
