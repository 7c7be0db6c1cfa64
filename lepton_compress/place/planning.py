"""The placement of a fleet from results: the plan of each case, and why the others lost."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lepton_compress.artifacts import RunResult
from lepton_compress.place.distribution import Distribution
from lepton_compress.place.finding import Options
from lepton_compress.place.fleet import Fleet, Site, Workload
from lepton_compress.place.options import HOURS, Option
from lepton_compress.place.program import Case
from lepton_compress.place.queueing import utilization, waiting
from lepton_compress.place.solving import Solution, Solver, fewest
from lepton_compress.placements import Cut, Placed, Placement, Plan, Pool, RunnerUp
from lepton_compress.units import show_percent, show_seconds

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
MOST_SHOWN = 8
"""Runners-up of one case."""
_SOME = 10_000
_MOST_CASES = 512


@dataclass
class Planner:
    """Plans a fleet, and changes of it: what was measured is read once."""

    fleet: Fleet
    results: Sequence[RunResult]
    cuts: Sequence[Cut] = ()
    seed: int = 0
    solver: Solver = field(default_factory=Solver)
    _cases: dict[tuple[object, ...], tuple[object, Case]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.options = Options(self.fleet, self.results, self.cuts, self.seed)

    def cases(self, fleet: Fleet) -> list[Case]:
        """Each workload at each of its sites, with every option."""
        return [
            self._case(fleet, workload, site)
            for workload in fleet.workloads
            for site in fleet.sites_of(workload)
        ]

    def _case(self, fleet: Fleet, workload: Workload, site: Site) -> Case:
        """Kept while nothing that it depends on is another object: a change copies the rest."""
        links = fleet.links_of(site.name)
        about = (workload, site, *links, *(fleet.site(link.cloud) for link in links))
        key = (fleet.energy_price, *map(id, about))
        if key not in self._cases:
            if len(self._cases) > _MOST_CASES:
                self._cases.clear()
            made = Case(workload, site, self.options.of(fleet, workload, site))
            self._cases[key] = (about, made)
        return self._cases[key][1]

    def solve(self, fleet: Fleet) -> tuple[list[Case], Solution | None]:
        """The best choice for a fleet, which may be a change of this one."""
        cases = self.cases(fleet)
        return cases, self.solver.solve(fleet, cases)

    def place(self) -> Placement:
        """The placement, without its sensitivity."""
        clock = time.perf_counter()
        cases, solution = self.solve(self.fleet)
        metric = {case.workload.name: _metric(self.results, case) for case in cases}
        placed = []
        for index, case in enumerate(cases):
            chosen = solution.taken[index] if solution else None
            placed.append(self._placed(case, chosen, solution, metric[case.workload.name]))
        notes = dict.fromkeys(_notes(self.fleet, cases, solution))
        return Placement(
            fleet=self.fleet.name,
            prefer=self.fleet.prefer,
            currency=self.fleet.currency,
            feasible=solution is not None,
            cost=solution.cost if solution else None,
            placed=tuple(placed),
            pools=tuple(_pools(self.fleet, solution)) if solution else (),
            seconds=time.perf_counter() - clock,
            notes=tuple(notes),
        )

    def _placed(
        self, case: Case, chosen: Option | None, solution: Solution | None, metric: str
    ) -> Placed:
        workload, site = case.workload, case.site
        wait = wait_of(self.fleet, chosen, solution) if chosen else None
        runners = _some(sorted(self._runners(case, chosen, solution), key=_rank))
        left_out = self.options.left_out.get((workload.name, ""), [])
        return Placed(
            workload=workload.name,
            site=site.name,
            devices=site.count,
            rate=workload.rate,
            percentile=f"p{100 * case.share:g}",
            limit=case.latency.limit if case.latency else None,
            metric=metric,
            plan=plan_of(case, chosen, wait) if chosen else None,
            replicas_cost=_replicas_share(self.fleet, chosen, solution) if chosen else 0.0,
            runners_up=tuple(runners),
            left_out=tuple(left_out),
        )

    def _runners(
        self, case: Case, chosen: Option | None, solution: Solution | None
    ) -> Iterator[RunnerUp]:
        """The best of each kind and pair of artifacts that was not chosen, and why."""
        groups: dict[tuple[object, ...], list[Option]] = {}
        for option in case.options:
            key = (option.kind, option.edge, option.cloud, option.cloud_site, option.cut)
            groups.setdefault(key, []).append(option)
        for held in groups.values():
            if chosen is not None and any(option is chosen for option in held):
                continue
            best = min(held, key=lambda o: (len(o.problems), o.share))
            yield self._runner(case, best, chosen, solution)

    def _runner(
        self, case: Case, option: Option, chosen: Option | None, solution: Solution | None
    ) -> RunnerUp:
        alone: int | None = 0
        wait = None
        if option.pool is not None and not option.problems:
            site = self.fleet.site(option.pool.site)
            most = site.replicas or _SOME
            alone = fewest([(case, option)], option.rate, site, most)
            if alone is not None and option.served is not None:
                wait = waiting(option.rate, option.served, alone * site.workers)
        plan = plan_of(case, option, wait)
        if option.problems:
            return RunnerUp(
                plan, option.problems[0][0], "; ".join(w for _, w in option.problems), None
            )
        if alone is None:
            said = f"{option.cloud_site} has too few replicas for {case.workload.name}"
            return RunnerUp(plan, "capacity", said, None)
        price = self.fleet.site(option.pool.site).price if option.pool else 0.0
        cost = option.cost + alone * (price or 0.0) * HOURS
        if self.fleet.cost is not None and cost > self.fleet.cost:
            said = f"{money(cost, self.fleet)} is over {money(self.fleet.cost, self.fleet)}"
            return RunnerUp(plan, "cost", said, cost)
        if chosen is None or solution is None:
            return RunnerUp(
                plan, "together", "meets the demands alone, not beside the others", cost
            )
        theirs = chosen.cost + _replicas_share(self.fleet, chosen, solution)
        ours = plan_of(case, chosen, wait_of(self.fleet, chosen, solution))
        return RunnerUp(plan, "", _beaten(self.fleet, case, plan, cost, ours, theirs), cost)


def _beaten(fleet: Fleet, case: Case, plan: Plan, cost: float, chosen: Plan, theirs: float) -> str:
    """Why a plan that meets every demand is not the one."""
    named = f"p{100 * case.share:g}"
    slower = plan.latency[named] - chosen.latency[named]
    worse = chosen.accuracy - plan.accuracy
    dearer = cost - theirs
    said = {
        "cheapest": f"costs {money(dearer, fleet)} more" if dearer > 0.005 else "",
        "fastest": f"{named} is {show_seconds(slower)} longer" if slower > 0 else "",
        "most_accurate": f"accuracy is {show_percent(abs(worse))} off" if worse != 0 else "",
    }
    others = [each for name, each in said.items() if each and name != fleet.prefer]
    first = said[fleet.prefer]
    if first:
        return first
    return f"no better, and {others[0]}" if others else "no better"


def money(amount: float, fleet: Fleet) -> str:
    """An amount a month in the fleet's currency."""
    digits = 2 if abs(amount) < 100 else 0
    return f"{amount:,.{digits}f} {fleet.currency}".strip() + " a month"


def _some(runners: Sequence[RunnerUp]) -> list[RunnerUp]:
    """The best of each kind, and the next ones, in their order."""
    best = {id(next(r for r in runners if r.plan.kind == kind)) for kind in _kinds(runners)}
    rest = [id(r) for r in runners if id(r) not in best]
    held = best | set(rest[: MOST_SHOWN - len(best)])
    return [r for r in runners if id(r) in held]


def _kinds(runners: Sequence[RunnerUp]) -> set[str]:
    return {runner.plan.kind for runner in runners}


def _rank(runner: RunnerUp) -> tuple[bool, int, float, float]:
    cost = runner.cost if runner.cost is not None else math.inf
    return bool(runner.binds), runner.reason.count(";"), cost, runner.plan.latency["p50"]


def plan_of(case: Case, option: Option, wait: Distribution | None) -> Plan:
    """An option with what is expected of it, with that wait in the cloud."""
    spent = option.latency(wait)
    shares = {**SHARES, f"p{100 * case.share:g}": case.share}
    return Plan(
        kind=option.kind,
        edge=option.edge,
        cloud=option.cloud,
        cloud_site=option.cloud_site,
        cascade=option.cascade,
        cut=option.cut,
        latency={name: spent.quantile(share) for name, share in sorted(shares.items())},
        edge_utilization=option.edge_utilization,
        link_utilization=option.link_utilization,
        accuracy=option.accuracy,
        accuracy_interval=option.accuracy_interval,
        accuracy_down=option.accuracy_down,
        up=option.up,
        down=option.down,
        cost_link=option.cost_link,
        cost_energy=option.cost_energy,
        leaves=option.leaves,
        availability=option.availability,
        provenance=option.provenance,
    )


def wait_of(fleet: Fleet, option: Option, solution: Solution | None) -> Distribution | None:
    """The wait in front of an option's pool as it was solved; None where it has none."""
    if solution is None or option.pool is None or option.served is None:
        return None
    servers = solution.replicas[option.pool] * fleet.site(option.pool.site).workers
    return waiting(solution.rates[option.pool], option.served, servers)


def _replicas_share(fleet: Fleet, option: Option, solution: Solution | None) -> float:
    """Its part of what its pool costs, by its requests."""
    pool = option.pool
    if solution is None or pool is None or not solution.rates.get(pool):
        return 0.0
    price = (fleet.site(pool.site).price or 0.0) * HOURS
    return solution.replicas[pool] * price * option.rate / solution.rates[pool]


def _pools(fleet: Fleet, solution: Solution) -> Iterator[Pool]:
    served = {option.pool: option.served for option in solution.taken if option.pool}
    for pool, replicas in solution.replicas.items():
        site, service = fleet.site(pool.site), served[pool]
        if service is None:
            continue
        servers, rate = replicas * site.workers, solution.rates[pool]
        wait = waiting(rate, service, servers)
        yield Pool(
            site=site.name,
            variant=pool.variant,
            part=pool.part,
            rate=rate,
            replicas=replicas,
            servers=servers,
            utilization=utilization(rate, service, servers),
            wait={name: wait.quantile(share) for name, share in SHARES.items()} if wait else {},
            cost=replicas * (site.price or 0.0) * HOURS,
        )


def _metric(results: Sequence[RunResult], case: Case) -> str:
    if case.workload.metric:
        return case.workload.metric
    wanted = case.workload.results
    held = [r for r in results if (not wanted or r.recipe in wanted) and r.scores]
    return held[0].scores[0].metric if held else ""


def _notes(fleet: Fleet, cases: Sequence[Case], solution: Solution | None) -> Iterator[str]:
    for case in cases:
        for site in (case.site, *(fleet.site(k.cloud) for k in fleet.links_of(case.site.name))):
            held = {
                v.target: v.provenance
                for o in case.options
                for v, where in ((o.edge, case.site.name), (o.cloud, o.cloud_site))
                if v and where == site.name
            }
            for target, provenance in held.items():
                if provenance == "estimated" and site.estimate_from:
                    factor = site.estimate_from.factor
                    yield f"{site.name}: times are estimated, {factor:g}x those on {target}"
                elif provenance == "simulated":
                    yield f"{site.name}: times are simulated on {target}"
    taken = solution.taken if solution else ()
    for name in dict.fromkeys(n for o in taken if o.provenance != "simulated" for n in o.unrested):
        yield (
            f"{name}: times are those of calls back to back, and a call after a rest takes longer; "
            "measure that with `measure: {idle: [10 ms, 100 ms]}` in the recipe"
        )
    if solution is not None and any(option.pool for option in solution.taken):
        yield "replicas of one artifact are taken to share one queue"
