"""Random fleets of several sites that share a cloud with too few replicas for all of them.

Planned together, and beside that every combination of the sites' options is tried: depth first, by
what it costs at least, leaving out only what cannot be better than the best so far or cannot fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compress.artifacts import RunResult
from lepton_compress.place.fleet import Fleet, fleet_from_values
from lepton_compress.place.options import HOURS, Option, PoolKey
from lepton_compress.place.planning import Planner
from lepton_compress.place.program import Case
from lepton_compress.place.solving import Solution, checked
from lepton_compress.placements import Cut

NEAR = 0.05
ATTEMPTS = 20
"""Random fleets for each one that is asked for: some need no cloud, or cannot do with less."""


def fleets(result: RunResult, cuts: Sequence[Cut], count: int) -> list[dict[str, Any]]:
    """Fleets whose cloud is too small for what each site would choose alone."""
    rows: list[dict[str, Any]] = []
    for seed in range(1, ATTEMPTS * count + 1):
        if len(rows) == count:
            break
        planner = Planner(random_fleet(result, seed), [result], cuts)
        fleet = scarce(planner, seed)
        if fleet is None:
            continue
        clock = time.perf_counter()
        cases, solution = planner.solve(fleet)
        seconds = time.perf_counter() - clock
        best = cheapest(fleet, cases)
        if best is None and solution is None:
            continue
        rows.append(
            {
                "pair": result.recipe,
                "seed": seed,
                "sites": len(cases),
                "kinds": [option.kind for option in solution.taken] if solution else None,
                "replicas": sum(solution.replicas.values()) if solution else None,
                "seconds": seconds,
                "over": _over(solution, best),
            }
        )
        print(rows[-1], flush=True)
    return rows


def scarce(planner: Planner, seed: int) -> Fleet | None:
    """With fewer replicas than the best plan without a limit takes; None where it takes one at
    most."""
    _, free = planner.solve(planner.fleet)
    used = sum(free.replicas.values()) if free else 0
    if used < 2:
        return None
    left = int(np.random.default_rng([seed, 8]).integers(1, used))
    held = planner.fleet
    sites = [
        s.model_copy(update={"replicas": left} if s.kind == "cloud" else {}) for s in held.sites
    ]
    return held.model_copy(update={"sites": sites})


def _over(found: Solution | None, best: float | None) -> float | None:
    """How much dearer the plan is; None where there is none though there could be one."""
    if found is None:
        return None
    return max(0.0, found.cost - (best or 0.0)) / max(best or 0.0, 1e-9)


def random_fleet(result: RunResult, seed: int) -> Fleet:
    """Two or three sites, each with devices, a link and a rate of its own."""
    random = np.random.default_rng([seed, 7])

    def between(low: float, high: float) -> float:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    scores = [score.value for score in result.scores]
    target = result.profiles[0].target
    call = next(p for p in result.profiles if p.candidate == result.baseline).latency["p50"]
    names = [f"edge-{index}" for index in range(int(random.integers(2, 4)))]
    size = between(2e3, 3e4)
    busy = [between(0.5, 4) for _ in names]
    rates = [between(0.1, 5) for _ in names]
    sites: list[dict[str, Any]] = [
        {
            "name": name,
            "kind": "edge",
            "target": "device",
            "estimate_from": {"target": target, "factor": f"{between(3, 60):.3f}x"},
            "count": max(1, round(load / call / rate)),
            "power": f"{between(5, 100):.3f} W",
        }
        for name, load, rate in zip(names, busy, rates, strict=True)
    ]
    sites.append(
        {
            "name": "cloud",
            "kind": "cloud",
            "target": target,
            "price": f"{between(0.02, 0.2):.3f}/h",
        }
    )
    links, workloads = [], []
    for name, rate in zip(names, rates, strict=True):
        trip, up = between(2e-3, 0.1), between(2e6, 1e8)
        links.append(
            {
                "edge": name,
                "cloud": "cloud",
                "round_trip": f"{trip:.6f} s",
                "spread": f"{trip * between(0.02, 0.4):.6f} s",
                "up": f"{up:.0f} bit/s",
                "down": f"{2 * up:.0f} bit/s",
                "price": f"{between(0.0002, 0.01):.5f}/GB",
            }
        )
        limit = between(1.2, 3) * (trip + 8 * size / up + 4 * call)
        workloads.append(
            {
                "name": f"work-{name}",
                "sites": [name],
                "rate": f"{rate:.4f}/s",
                "payload": {"up": f"{size:.0f} B", "down": "100 B"},
                "demands": {
                    "latency": {"limit": f"{limit:.6f} s", "percentile": 95},
                    "accuracy": float(random.uniform(min(scores), max(scores))),
                },
            }
        )
    return fleet_from_values(
        {
            "version": 1,
            "name": f"{result.recipe}-shared-{seed}",
            "energy_price": f"{between(0.1, 0.5):.3f}/kWh",
            "prefer": "cheapest",
            "sites": sites,
            "links": links,
            "workloads": workloads,
        }
    ).fleet


def cheapest(fleet: Fleet, cases: Sequence[Case]) -> float | None:
    """The cost of the best of all combinations; None where none meets the demands.

    Nothing is left out but what costs at least as much as the best so far, replicas at their
    fullest, or needs more replicas than there are even at their fullest.
    """
    held = [sorted(case.possible(), key=lambda each: each.cost) for case in cases]
    if not all(held):
        return None
    rest = [sum(options[0].cost for options in held[index:]) for index in range(len(held) + 1)]
    best = math.inf

    def search(taken: tuple[Option, ...], cost: float) -> None:
        nonlocal best
        if len(taken) == len(held):
            made = checked(fleet, cases, taken)
            if made is not None:
                best = min(best, made.cost)
            return
        for option in held[len(taken)]:
            if cost + option.cost + rest[len(taken) + 1] >= best:
                return  # the others cost more still
            more = (*taken, option)
            fits, price = _least(fleet, more)
            if fits and cost + option.cost + price + rest[len(more)] < best:
                search(more, cost + option.cost)

    search((), 0.0)
    return best if best < math.inf else None


def _least(fleet: Fleet, taken: Sequence[Option]) -> tuple[bool, float]:
    """Whether replicas at their fullest are enough, and what they cost a month."""
    load: dict[PoolKey, float] = {}
    for option in taken:
        if option.pool is not None and option.served is not None:
            load[option.pool] = load.get(option.pool, 0.0) + option.rate * option.served.mean
    used: dict[str, int] = {}
    for pool, held in load.items():
        site = fleet.site(pool.site)
        number = max(1, math.ceil(held / site.busy / site.workers - 1e-9))
        used[pool.site] = used.get(pool.site, 0) + number
    sites = [(fleet.site(name), number) for name, number in used.items()]
    fits = all(site.replicas is None or number <= site.replicas for site, number in sites)
    return fits, sum(number * (site.price or 0.0) * HOURS for site, number in sites)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "Several sites whose shared cloud has fewer replicas than the best plan would take, beside",
        "every combination of their options:",
        "",
        "| models | fleets | sites | plans within 5 % of the best | worst | no plan found |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["pair"] for row in rows):
        held = [row for row in rows if row["pair"] == name]
        over = [row["over"] for row in held if row["over"] is not None]
        near = f"{sum(each <= NEAR for each in over)} of {len(held)}"
        sites = " or ".join(str(each) for each in sorted({row["sites"] for row in held}))
        worst = f"{100 * max(over, default=0.0):.1f} %"
        cells = [name, str(len(held)), sites, near, worst, str(len(held) - len(over))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
