"""Are the plans the best there are? `LEPTON_DATA=... python -m benchmarks.placement plans`

Two reference models, each with a small variant, are compressed, measured and cut in two; then
random fleets are planned, and every variant, threshold and cut is tried beside.

fleets     the plan's cost (or percentile) over that of the best that trying every option finds,
           with every threshold that the reported half allows, whatever the other half says
shared     the same for two or three sites that share a cloud with too few replicas for all of them,
           over every combination of their options
cascade    for each pair the least share sent up that keeps 99 % of the cloud's gain, as told of the
           other half of the samples
simulated  the percentiles of the plans over those of discrete events
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lepton_compress
from benchmarks.placement import shared
from benchmarks.tasks import SPLITS, Task, pictures, words
from lepton_compress import provenance, splitting
from lepton_compress.artifacts import RunResult
from lepton_compress.place import finding, simulation
from lepton_compress.place.cascade import Curve, Point, curve
from lepton_compress.place.fleet import Fleet, fleet_from_values
from lepton_compress.place.options import Option
from lepton_compress.place.planning import Planner, plan_of, wait_of
from lepton_compress.place.program import Case
from lepton_compress.place.solving import Solution, checked
from lepton_compress.placements import Cut
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.folder import read_result
from lepton_compress.report.silent import Silent

RESULTS = Path(__file__).parents[1] / "results"
HERE = "here"
SMALL = [
    {"prune": {"to": {"macs": "0.2x"}, "round_to": 2}},
    {"distil": {"epochs": 5, "learning_rate": 0.002}},
]
VARIANTS: dict[str, Any] = {
    "small": SMALL,
    "small-int8": [*SMALL, "quantize"],
    "int8": ["quantize"],
}
NEAR = 0.05
KEPT = 0.99
STEPS = 128
REQUESTS = 50_000


@dataclass(frozen=True)
class Pair:
    """A task's result, its artifacts cut in two, and the seconds of a call of its original."""

    name: str
    result: RunResult
    cuts: tuple[Cut, ...]
    seconds: float


def main() -> None:
    """Run everything, print it and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleets", type=int, default=30, help="Of each pair of models.")
    parser.add_argument("--shared", type=int, default=30, help="With several sites, of each pair.")
    parser.add_argument("--simulated", type=int, default=6, help="Of these, simulated too.")
    parser.add_argument("--keep", type=Path, help="Folder to keep the runs in, and to find them.")
    given = sys.argv[1:]
    parser.add_argument("--only", choices=["shared"], help="Measure this again, and keep the rest.")
    asked = parser.parse_args(given[1:] if given[:1] == ["plans"] else given)
    with tempfile.TemporaryDirectory() as name:
        folder = asked.keep or Path(name)
        pairs = [
            prepared("images", lambda: pictures("resnet8"), folder),
            prepared("speech", lambda: words("keyword_dscnn"), folder),
        ]
        if asked.only:
            kept = json.loads((RESULTS / "placement.json").read_text(encoding="utf-8"))
            write({**kept, "shared": _shared(pairs, asked.shared)})
            return
        found = {
            "environment": provenance.environment(),
            "load": os.getloadavg()[0],
            "pairs": [about(pair) for pair in pairs],
            "fleets": [row for pair in pairs for row in fleets(pair, asked.fleets)],
            "shared": _shared(pairs, asked.shared),
            "simulated": [row for pair in pairs for row in simulated(pair, asked.simulated)],
        }
    write(found)


def _shared(pairs: Sequence[Pair], count: int) -> list[dict[str, Any]]:
    return [row for pair in pairs for row in shared.fleets(pair.result, pair.cuts, count)]


def write(found: dict[str, Any]) -> None:
    """Print the figures and keep them."""
    text = table(found)
    print(text)
    (RESULTS / "placement.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "placement.md").write_text(text, encoding="utf-8")


def prepared(name: str, load: Any, folder: Path) -> Pair:
    """A pair of models with its result; found again in the folder if it was made before."""
    out = folder / "runs" / name
    if not (out / "result.json").is_file():
        task: Task = load()
        lepton_compress.compress(
            task.network,
            data={s: _pair(getattr(task.data, s)) for s in SPLITS},
            variants=VARIANTS,
            targets=[{"name": HERE, "runtime": "onnxruntime-cpu"}],
            outputs=task.outputs,
            name=name,
            threads=1,
            out=out,
            workspace=folder / "lepton",
        )
    result = read_result(out)
    profile = next(p for p in result.profiles if p.candidate == result.baseline)
    return Pair(name, result, tuple(_cuts(load, result)), profile.latency["p50"])


def _pair(split: Any) -> tuple[Any, Any]:
    return dict(split.inputs), split.targets


def _cuts(load: Any, result: RunResult) -> Iterator[Cut]:
    """Of the original and the int8, measured on this machine."""
    task: Task = load()
    for candidate in ("baseline", "int8"):
        path = (result.folder or Path()) / result.artifact(candidate).path
        target = TargetSpec(name=HERE, runtime="onnxruntime-cpu")
        made = splitting.cuts(path, task.data.evaluation, observer=Silent(), edge=target)
        yield from splitting.planned(made, candidate, result=result.recipe)


def curves(pair: Pair) -> Iterator[tuple[str, Curve]]:
    """Every cascade of a smaller variant and the original, over many thresholds."""
    result = pair.result
    scores = {score.candidate: score for score in result.scores}
    high = scores[result.baseline]
    for low in result.scores:
        if low.value >= high.value or low.outcomes is None or high.outcomes is None:
            continue
        held = next(each for each in result.answers if each.candidate == low.candidate)
        with np.load((result.folder or Path()) / held.path) as opened:
            made = curve(
                opened["scores"], opened["targets"], low.outcomes, high.outcomes, steps=STEPS
            )
        yield f"{low.candidate} and {result.baseline}", made


def about(pair: Pair) -> dict[str, Any]:
    """Accuracies, and what cascades keep."""
    rows = []
    for name, made in curves(pair):
        # Chosen on one half, told of the other.
        chosen = [p for p in made.points if _kept_where_chosen(made, p)]
        best = min(chosen, key=lambda p: p.share, default=made.points[-1])
        rows.append(
            {"pair": name, "share": best.share, "kept": best.gain_kept, "accuracy": best.accuracy}
        )
    return {
        "name": pair.name,
        "samples": pair.result.scores[0].samples,
        "accuracy": {score.candidate: score.value for score in pair.result.scores},
        "p50": {p.candidate: p.latency["p50"] for p in pair.result.profiles},
        "cuts": len(pair.cuts),
        "cascades": rows,
    }


def _kept_where_chosen(made: Curve, point: Point) -> bool:
    """By the half that it is chosen on: nearly all of what sending nearly everything up gains."""
    low, high = made.points[0].chosen_accuracy, max(p.chosen_accuracy for p in made.points)
    return point.chosen_accuracy >= low + KEPT * (high - low)


def random_fleet(pair: Pair, seed: int) -> Fleet:
    """A fleet whose numbers are drawn over what is found in the field."""
    random = np.random.default_rng(seed)

    def between(low: float, high: float) -> float:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    scores = [score.value for score in pair.result.scores]
    trip, slower = between(2e-3, 0.15), between(2, 100)
    size, up = between(2e3, 1e5), between(5e5, 1e8)
    there = trip + 8 * size / up + 2 * pair.seconds
    limit = between(0.7, 4) * min(max(there, 2e-3), 20 * slower * pair.seconds + 2e-3)
    return fleet_from_values(
        {
            "version": 1,
            "name": f"{pair.name}-{seed}",
            "energy_price": f"{between(0.1, 0.5):.3f}/kWh",
            "prefer": str(random.choice(["cheapest", "fastest"])),
            "sites": [
                {
                    "name": "edge",
                    "kind": "edge",
                    "target": "device",
                    "estimate_from": {"target": HERE, "factor": f"{slower:.3f}x"},
                    "count": int(between(10, 5000)),
                    "power": f"{between(0.5, 10):.3f} W",
                },
                {
                    "name": "cloud",
                    "kind": "cloud",
                    "target": HERE,
                    "price": f"{between(0.03, 1):.3f}/h",
                    "replicas": int(between(1, 40)),
                },
            ],
            "links": [
                {
                    "edge": "edge",
                    "cloud": "cloud",
                    "round_trip": f"{trip:.6f} s",
                    "spread": f"{trip * between(0.02, 0.5):.6f} s",
                    "up": f"{up:.0f} bit/s",
                    "down": f"{up * 2:.0f} bit/s",
                    "price": f"{between(0.005, 0.1):.4f}/GB",
                }
            ],
            "workloads": [
                {
                    "name": "work",
                    "rate": f"{between(0.01, 5):.4f}/s",
                    "payload": {"up": f"{size:.0f} B", "down": "100 B"},
                    "demands": {
                        "latency": {
                            "limit": f"{limit:.6f} s",
                            "percentile": int(random.choice([50, 90, 95])),
                        },
                        "accuracy": float(random.uniform(min(scores), max(scores))),
                        "may_leave": str(random.choice(["raw", "raw", "features"])),
                    },
                }
            ],
        }
    ).fleet


def fleets(pair: Pair, count: int) -> list[dict[str, Any]]:
    """Random fleets that can be planned, beside the best of trying everything."""
    rows: list[dict[str, Any]] = []
    seed = 0
    while len(rows) < count:
        seed += 1
        fleet = random_fleet(pair, seed)
        clock = time.perf_counter()
        planner = Planner(fleet, [pair.result], pair.cuts)
        cases, solution = planner.solve(fleet)
        seconds = time.perf_counter() - clock
        best = _best(fleet, pair)
        if best is None:
            continue
        rows.append(
            {
                "pair": pair.name,
                "seed": seed,
                "prefer": fleet.prefer,
                "kind": solution.taken[0].kind if solution else None,
                "seconds": seconds,
                "over": _over(_value(fleet, cases, solution), best) if solution else None,
            }
        )
        print(rows[-1], flush=True)
    return rows


def _over(value: float, best: float) -> float:
    """How much worse than the best."""
    return 0.0 if value <= best else (value - best) / max(best, 1e-9)


def _value(fleet: Fleet, cases: Sequence[Case], solution: Solution) -> float:
    """What is preferred, of a solution: its cost, or the percentile that is asked for."""
    if fleet.prefer == "cheapest":
        return solution.cost
    (case,), (option,) = cases, solution.taken
    plan = plan_of(case, option, wait_of(fleet, option, solution))
    return plan.latency[f"p{100 * case.share:g}"]


def _best(fleet: Fleet, pair: Pair) -> float | None:
    """The best of trying every option by itself, over every threshold."""
    held = finding._MOST, finding._worth
    finding._MOST, finding._worth = 10_000, _all
    try:
        planner = Planner(fleet, [pair.result], pair.cuts)
        cases = planner.cases(fleet)
    finally:
        finding._MOST, finding._worth = held
    (case,) = cases
    best = None
    for bound, option in sorted(
        ((_least(fleet, case, option), option) for option in case.possible()),
        key=lambda each: each[0],
    ):
        if best is not None and bound >= best:
            break  # with replicas and waiting it only gets worse
        made = checked(fleet, cases, (option,))
        if made is not None:
            value = _value(fleet, cases, made)
            best = value if best is None else min(best, value)
    return best


def _least(fleet: Fleet, case: Case, option: Option) -> float:
    """What an option costs or takes at least: without replicas, or without waiting for them."""
    if fleet.prefer == "cheapest":
        return option.cost
    return option.latency(None).quantile(case.share)


def _all(made: Curve, higher: bool, least: tuple[float, float] | None) -> list[Point]:
    return list(made.points)


def simulated(pair: Pair, count: int) -> list[dict[str, Any]]:
    """Percentiles of plans and of discrete events."""
    rows: list[dict[str, Any]] = []
    seed = 0
    while len(rows) < count and seed < 50 * count:
        seed += 1
        planner = Planner(random_fleet(pair, seed), [pair.result], pair.cuts)
        if planner.solve(planner.fleet)[1] is None:
            continue
        (made,) = simulation.confirm(planner, seed, Silent(), requests=REQUESTS)
        kind = planner.place().placed[0].plan
        rows.append(
            {
                "pair": pair.name,
                "seed": seed,
                "kind": kind.kind if kind else "",
                "computed": made.computed,
                "simulated": made.simulated,
                "worst": made.worst,
            }
        )
    return rows


def table(found: dict[str, Any]) -> str:
    """The figures in Markdown."""
    lines = ["# Placement: plans, cascades, discrete events", ""]
    where = f"{found['environment']['cpu']['name']}, beside a load of {found['load']:.1f}"
    lines += [
        f"`python -m benchmarks.placement plans` on {where}; times of calls are of that machine,",
        "and everything behind them is computed.",
        "",
        "| models | fleets | plans within 5 % of the best | worst | no plan found |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["pair"] for row in found["fleets"]):
        rows = [row for row in found["fleets"] if row["pair"] == name]
        over = [row["over"] for row in rows if row["over"] is not None]
        near = f"{sum(each <= NEAR for each in over)} of {len(rows)}"
        missed = str(len(rows) - len(over))
        cells = [name, str(len(rows)), near, f"{100 * max(over, default=0.0):.1f} %", missed]
        lines.append(f"| {' | '.join(cells)} |")
    kinds: dict[str, int] = {}
    for row in found["fleets"]:
        kinds[str(row["kind"])] = kinds.get(str(row["kind"]), 0) + 1
    slowest = max(row["seconds"] for row in found["fleets"])
    said = ", ".join(f"{name} {number}" for name, number in sorted(kinds.items()))
    lines += ["", f"Plans chosen: {said}. The slowest took {slowest:.2f} s.", ""]
    lines += ["| cascade | sent up | gain kept | accuracy |", "|---|---|---|---|"]
    for pair in found["pairs"]:
        for row in pair["cascades"]:
            kept = "none to keep" if row["kept"] is None else f"{100 * row['kept']:.1f} %"
            lines.append(
                f"| {pair['name']}: {row['pair']} | {100 * row['share']:.1f} % | {kept} | "
                f"{100 * row['accuracy']:.2f} % |"
            )
    lines += ["", *shared.table(found["shared"])]
    worst = max((row["worst"] for row in found["simulated"]), default=0.0)
    said = f"Discrete events of {len(found['simulated'])} plans: percentiles at most "
    said += f"{100 * worst:.1f} % apart from those computed."
    lines += [
        "",
        said,
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
