"""Which plan is chosen, what is told of it, and why the others lost."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from lepton_compress.artifacts import Idle, RunResult
from lepton_compress.place.fleet import HEADER
from lepton_compress.place.planning import Planner
from lepton_compress.placements import Cut, Placed, Placement
from tests.place.fleets import demands, fleet, quantiles, result

ACCURATE = {"accuracy": "95 %"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return result(tmp_path_factory.mktemp("images"))


def place(one: RunResult, cuts: tuple[Cut, ...] = (), **changes: Any) -> Placement:
    return Planner(fleet(**changes), [one], cuts).place()


def only(placement: Placement) -> Placed:
    (placed,) = placement.placed
    return placed


def kind(placement: Placement) -> str:
    plan = only(placement).plan
    return plan.kind if plan else ""


def losers(placement: Placement) -> dict[str, str]:
    """Plan to the demand that it breaks."""
    return {each.plan.name: each.binds for each in only(placement).runners_up}


def test_the_edge_wins_where_it_can(images: RunResult) -> None:
    made = place(images, **demands(latency="200 ms"))
    plan = only(made).plan
    assert plan is not None
    assert (plan.kind, plan.edge and plan.edge.candidate) == ("edge", "small")
    # Hardly anything waits: 1 % busy.
    assert plan.latency["p50"] == pytest.approx(quantiles(10e-3)[10], rel=0.02)
    assert (plan.up, plan.leaves, plan.availability) == (0, "nothing", 1.0)
    assert made.pools == ()
    # A watt for ten milliseconds a second on a hundred cameras costs nothing here.
    assert made.cost == 0


def test_energy_is_counted(images: RunResult) -> None:
    made = place(images, energy_price="0.30/kWh", **demands(latency="200 ms"))
    mean = 10e-3 * (0.9 + 0.1 + 0.9 / 41)
    assert made.cost == pytest.approx(100 * mean * 730.5 / 1000 * 0.30, rel=0.02)


def test_the_cloud_wins_where_the_edge_is_too_slow(images: RunResult) -> None:
    made = place(images, **demands(latency="75 ms", **ACCURATE))
    plan, (pool,) = only(made).plan, made.pools
    assert plan is not None
    assert (plan.kind, plan.leaves, plan.accuracy_down) == ("cloud", "raw", None)
    assert plan.latency["p99"] <= 0.075
    # Transfer, round trip, service: more than their means, less than their sum at p99.
    assert plan.latency["p50"] == pytest.approx(0.016 + 0.03 + 0.0081, rel=0.05)
    assert pool.rate == pytest.approx(100)
    month = 730.5 * 3600 * 100
    link = month * (20_200 + 2 * HEADER) / 1e9 * 0.05
    assert plan.cost_link == pytest.approx(link)
    assert made.cost == pytest.approx(link + pool.replicas * 0.10 * 730.5)
    assert losers(made)["edge: images:baseline"] == "latency"
    assert losers(made)["edge: images:small"] == "accuracy"


def test_replicas_are_the_fewest_that_meet_the_percentile(images: RunResult) -> None:
    slack, tight = (
        place(images, **demands(latency=limit, only=["cloud"], **ACCURATE)).pools[0]
        for limit in ("200 ms", "70 ms")
    )
    assert slack.replicas < tight.replicas
    assert slack.utilization <= 0.9
    assert slack.wait["p99"] > tight.wait["p99"]


def test_a_cascade_wins_where_most_is_easy(images: RunResult) -> None:
    made = place(
        images,
        **demands(latency="150 ms", accuracy="90 %", offline=True),
        sites__0__flash="200 KB",
    )
    plan = only(made).plan
    assert plan is not None
    assert plan.cascade is not None
    assert 0 < plan.cascade.share < 0.5
    assert plan.accuracy >= 0.9
    assert plan.accuracy_interval[0] < plan.accuracy < plan.accuracy_interval[1]
    assert plan.accuracy_down == pytest.approx(0.755)
    assert plan.up == pytest.approx(plan.cascade.share * 730.5 * 3600 * (20_000 + HEADER))
    # What goes up has taken the edge's time too; what does not has not taken the link's.
    assert plan.latency["p50"] < 0.02 < 0.05 < plan.latency["p99"]
    assert made.pools[0].rate == pytest.approx(100 * plan.cascade.share)
    assert "offline" in losers(made).values()


def test_a_cascade_needs_scores_and_says_so(images: RunResult) -> None:
    bare = replace(images, answers=())
    made = place(bare, **demands(latency="150 ms", accuracy="90 %"))
    assert any("no cascade: the result of images" in each for each in only(made).left_out)
    assert kind(made) != "cascade"


def cut(**changes: Any) -> Cut:
    held: dict[str, Any] = {
        "candidate": "baseline",
        "format": "onnx",
        "name": "pool",
        "bytes": 2_000,
        "edge_target": "device",
        "cloud_target": "server",
        "edge_seconds": quantiles(6e-3),
        "cloud_seconds": quantiles(5e-3),
        "edge_bytes": 50_000,
        "edge_memory": 1_000_000,
        "result": "images",
    }
    return Cut(**{**held, **changes})


def test_a_split_wins_where_features_are_small(images: RunResult) -> None:
    asked = demands(latency="70 ms", may_leave="features", **ACCURATE)
    assert kind(place(images, **asked)) == ""
    made = place(images, (cut(),), **asked)
    plan = only(made).plan
    assert plan is not None
    assert (plan.kind, plan.leaves) == ("split", "features")
    assert plan.up == pytest.approx(730.5 * 3600 * (2_000 + HEADER))
    assert plan.latency["p50"] == pytest.approx(0.006 + 0.03 + 0.0018 + 0.0002 + 0.005, rel=0.06)
    assert made.pools[0].part == "pool"
    assert losers(made)["cloud region: images:baseline"] == "privacy"
    # Another target's times say nothing here.
    assert kind(place(images, (cut(edge_target="other"),), **asked)) == ""
    # What crosses before the first layer with weights is raw input in another form.
    assert kind(place(images, (cut(features=False),), **asked)) == ""
    assert kind(place(images, (cut(edge_memory=9_000_000),), sites__0__ram="5 MB", **asked)) == ""


def test_privacy_and_the_link_bind(images: RunResult) -> None:
    made = place(images, **demands(latency="75 ms", may_leave="nothing", **ACCURATE))
    assert not made.feasible
    assert made.cost is None
    assert losers(made)["cloud region: images:baseline"] == "privacy"
    made = place(images, links__0__up="100 kbit/s", **demands(only=["cloud"]))
    assert set(losers(made).values()) == {"bandwidth"}
    made = place(images, **demands(availability="99.9 %", only=["cloud"]))
    assert set(losers(made).values()) == {"availability"}


def test_too_few_replicas_bind(images: RunResult) -> None:
    made = place(images, sites__1__replicas=1, **demands(only=["cloud"], latency="60 ms"))
    assert not made.feasible
    made = place(images, sites__0__count=5000, sites__1__replicas=2, **demands(only=["cloud"]))
    assert "capacity" in losers(made).values()


def test_the_cost_of_everything_binds(images: RunResult) -> None:
    asked = demands(latency="75 ms", **ACCURATE)
    cost = place(images, **asked).cost
    assert cost is not None
    assert place(images, cost=f"{cost + 1:.2f}/month", **asked).feasible
    made = place(images, cost=f"{cost - 1:.2f}/month", **asked)
    assert not made.feasible
    assert losers(made)["cloud region: images:baseline"] == "cost"


@pytest.mark.parametrize(
    ("prefer", "candidate"), [("cheapest", "small"), ("most_accurate", "baseline")]
)
def test_what_is_preferred_decides(images: RunResult, prefer: str, candidate: str) -> None:
    made = place(images, prefer=prefer, **demands(latency="200 ms"))
    plan = only(made).plan
    assert plan is not None
    assert plan.edge is not None
    assert plan.edge.candidate == candidate


TWO_SITES: dict[str, Any] = {
    "sites": [
        {"name": "a", "kind": "edge", "target": "device", "count": 60},
        {"name": "b", "kind": "edge", "target": "device", "count": 60},
        {"name": "region", "kind": "cloud", "target": "server", "price": "0.10/h", "replicas": 2},
    ],
    "links": [
        {
            "edge": e,
            "cloud": "region",
            "round_trip": "10 ms",
            "up": "50 Mbit/s",
            "down": "50 Mbit/s",
        }
        for e in ("a", "b")
    ],
}


def test_sites_share_a_pool(images: RunResult) -> None:
    asked = demands(latency="70 ms", only=["cloud"], **ACCURATE)
    made = place(images, **TWO_SITES, **asked)
    (pool,) = made.pools
    assert pool.rate == pytest.approx(120)
    # Alone each would need one replica at half its load and a half that is lost.
    assert pool.replicas == 2
    shares = [each.replicas_cost for each in made.placed]
    assert sum(shares) == pytest.approx(pool.cost)


def test_scarce_replicas_go_where_they_are_needed(images: RunResult) -> None:
    """Site b cannot answer in time itself; a can, if dearly: the cloud is too small for both."""
    sites = [dict(each) for each in TWO_SITES["sites"]]
    sites[0] |= {"power": "400 W"}
    sites[1] |= {"target": "slow", "estimate_from": {"target": "device", "factor": "4x"}}
    sites[2] |= {"replicas": 1}
    asked = demands(latency="90 ms", **ACCURATE, only=["edge", "cloud"])
    changes = {"links": TWO_SITES["links"], "energy_price": "5/kWh", **asked}
    roomy = [*sites[:2], {**sites[2], "replicas": 9}]
    both = place(images, sites=roomy, **changes)
    assert [each.plan and each.plan.kind for each in both.placed] == ["cloud", "cloud"]
    made = place(images, sites=sites, **changes)
    assert [each.plan and each.plan.kind for each in made.placed] == ["edge", "cloud"]
    (note,) = [each for each in made.notes if each.startswith("b:")]
    assert note == "b: times are estimated, 4x those on device"


def test_the_program_finds_what_trying_everything_finds(images: RunResult) -> None:
    sites = [*TWO_SITES["sites"][:2], {**TWO_SITES["sites"][2], "replicas": 3}]
    changes = {"sites": sites, "links": TWO_SITES["links"], "energy_price": "2/kWh"}
    sites[0] = {**sites[0], "power": "30 W"}
    planner = Planner(fleet(**changes, **demands(latency="110 ms", accuracy="93 %")), [images])
    cases, found = planner.solve(planner.fleet)
    assert found is not None
    from lepton_compress.place.solving import checked

    tried = (
        checked(planner.fleet, cases, taken)
        for taken in itertools.product(*(case.possible() for case in cases))
    )
    best = min(each.cost for each in tried if each is not None)
    assert found.cost == pytest.approx(best, rel=1e-6)


def test_a_hundred_thousand_devices_are_a_matter_of_seconds(images: RunResult) -> None:
    classes = [
        {"name": f"class{i}", "kind": "edge", "target": "device", "count": 10_000}
        for i in range(10)
    ]
    cloud = {**TWO_SITES["sites"][2], "replicas": 5000}
    links = [
        {
            "edge": each["name"],
            "cloud": "region",
            "round_trip": f"{10 + 4 * i} ms",
            "spread": "3 ms",
            "up": "20 Mbit/s",
            "down": "20 Mbit/s",
        }
        for i, each in enumerate(classes)
    ]
    made = place(
        images,
        sites=[*classes, cloud],
        links=links,
        **demands(latency="90 ms", accuracy="96 %"),
    )
    assert made.feasible
    assert sum(each.devices for each in made.placed) == 100_000
    assert made.seconds < 60  # 10 s on an idle machine; several share this one


def rested(one: RunResult, factor: float) -> RunResult:
    """Whose calls take so many times as long after a rest of 10 ms or more."""
    made = (
        replace(each, idle=(Idle(0.01, 40, tuple(factor * q for q in each.quantiles)),))
        for each in one.profiles
    )
    return replace(one, profiles=tuple(made))


def test_seldom_calls_take_what_calls_after_rests_do(images: RunResult) -> None:
    asked = demands(latency="200 ms", only=["edge"])
    made = place(rested(images, 3.0), **asked)
    plan, before = only(made).plan, only(place(images, **asked)).plan
    assert plan is not None
    assert before is not None
    assert plan.latency["p50"] == pytest.approx(3 * before.latency["p50"], rel=0.05)
    assert plan.edge_utilization == pytest.approx(3 * before.edge_utilization, rel=0.05)
    assert not [each for each in made.notes if "back to back" in each]


@pytest.mark.parametrize(
    ("kind", "sites"),
    [("edge", ["camera"]), ("cloud", []), ("cascade", ["camera", "region"])],
)
def test_a_plan_says_that_rests_were_not_measured(
    images: RunResult, kind: str, sites: list[str]
) -> None:
    made = place(images, **demands(latency="2 s", only=[kind]), workloads__0__rate="12/s")
    told = [each for each in made.notes if "back to back" in each]
    assert [
        each.split(":")[0] for each in told
    ] == sites  # all requests of a hundred cameras keep the cloud busy


def test_what_the_program_around_the_model_takes_is_added(images: RunResult) -> None:
    asked = demands(latency="200 ms", only=["edge"])
    plan = only(place(images, sites__0__overhead="5 ms", **asked)).plan
    before = only(place(images, **asked)).plan
    assert plan is not None
    assert before is not None
    assert plan.latency["p50"] == pytest.approx(before.latency["p50"] + 5e-3, rel=0.01)
