"""What a plan predicts beside what its deployment really does across a shaped link.

    LEPTON_DATA=... python -m benchmarks.placement link --requests 600

For each kind of plan (edge, cloud, cascade, split) the planner is told what was measured of both
artifacts (after rests, too), of an empty request and of the edge's program around a model, and
predicts percentiles; the plan is exported, its cloud started
as a process of its own, and a device sends requests through a proxy that delays them. On a machine
that others use, too, the tails are theirs as well: the lateness of timers is told beside the
figures.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_compress import deploying, pipeline, placing, splitting
from lepton_compress.artifacts import RunResult, Split
from lepton_compress.place import exporting
from lepton_compress.place.runners.link import Link
from lepton_compress.placements import Cut
from lepton_compress.report.folder import read_result
from lepton_compress.report.silent import Silent

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
KINDS = ("edge", "cloud", "cascade", "split")
WITHIN = 0.15
PINGS = 60
CLASSES = 10


@dataclass(frozen=True)
class Shape:
    """A link: seconds, and bits a second."""

    round_trip: float
    spread: float
    up: float
    down: float


@dataclass(frozen=True)
class Pair:
    """A network, whose pruned variant is for the edge, and a link."""

    name: str
    network: str
    shape: Shape
    rate: float


PAIRS = (
    Pair("pictures", "resnet8:ResNet8", Shape(0.06, 0.012, 4e6, 20e6), 10.0),
    Pair("speech", "keyword_dscnn:KeywordDsCnn", Shape(0.1, 0.02, 2e6, 10e6), 10.0),
)
RECIPE = """\
version: 1
name: {name}
model:
  factory: {root}/reference_models/{folder}/model.py:{network}
  weights: {root}/reference_models/{folder}/weights.safetensors
  outputs: [scores]
data: {{python: {{function: "{root}/reference_models/{folder}/data.py:load"}}}}
preprocess: {preprocess}
metrics: [accuracy]
variants:
  int8: [quantize]
  small: [prune: {{to: {{macs: 0.2x}}}}, finetune: {{epochs: 1}}, quantize]
targets: [{{name: edge, runtime: onnxruntime-cpu, threads: 1, batch: 1}}]
gates: {{drop: 100 %}}
measure: {{cap: 3 s, idle: [2 ms, 20 ms, 100 ms]}}
"""
BEFORE = {"pictures": "[image: {mean: [0.5], std: [0.5]}]", "speech": "[]"}


def main() -> None:
    """Measure every pair, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.placement link")
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--runs", type=Path, help="where runs of the recipes are, or will be")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[pair.name for pair in PAIRS])
    given = parser.parse_args(sys.argv[2:])
    taken = [pair for pair in PAIRS if given.only in (None, pair.name)]
    with tempfile.TemporaryDirectory() as scratch:
        runs = given.runs or Path(scratch) / "runs"
        for pair in taken:
            held = Path(scratch) / f"try-{pair.name}"
            keep(pair, list(compared(pair, runs, held, given.requests, given.seed)))
    print((RESULTS / "link.md").read_text(encoding="utf-8"))


def keep(pair: Pair, rows: list[dict[str, Any]]) -> None:
    """Write the page with a pair's rows in place of its earlier ones."""
    file = RESULTS / "link.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    held = [row for row in before if row["pair"] != pair.name] + rows
    file.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(page(held), encoding="utf-8")


def compared(
    pair: Pair, runs: Path, scratch: Path, requests: int, seed: int
) -> Iterator[dict[str, Any]]:
    """A row for each kind of plan."""
    run = run_of(runs, pair)
    trip = pinged(pair, run, scratch / "pinged", seed)
    around = overhead(pair, run, scratch / "overhead", seed)
    split = best_cuts(run)
    for kind in KINDS:
        fleet = fleet_of(pair, kind, trip, payload(run), around)
        placed = placing.place(run, fleet, cuts=split, sensitivity=False, seed=seed)
        if not placed.feasible:
            yield {"pair": pair.name, "kind": kind, "problem": "the planner found no plan"}
            continue
        folder = scratch / kind
        made = deploying.deployment(placed.placed[0], placed, [run], scratch / f"{kind}-halves")
        exporting.export(made, folder)
        seen = tried(folder, pair.shape, evaluation(run), pair.rate, requests, seed)
        plan = placed.placed[0].plan
        assert plan is not None
        if "latency" not in seen:
            yield {"pair": pair.name, "kind": kind, "problem": f"no answers: {seen['problems']}"}
            continue
        measured = seen["latency"]
        yield {
            "pair": pair.name,
            "kind": kind,
            "plan": plan.name,
            "predicted": {name: plan.latency[name] for name in measured if name in plan.latency},
            "measured": measured,
            "share_up": [plan.cascade.share if plan.cascade else None, seen.get("share_up")],
            "accuracy": [plan.accuracy, seen.get("accuracy")],
            "answered": seen["answered"],
            "requests": seen["requests"],
            "lateness": seen["lateness"],
            "edge_call": seen["edge_seconds"],
            "overhead": [around, seen["overhead"]],
            "shape": vars(pair.shape),
            "rate": pair.rate,
            "load": os.getloadavg()[0],
        }


def run_of(runs: Path, pair: Pair) -> RunResult:
    """The result of a pair's recipe, run now where it was not."""
    folder, _, network = pair.network.partition(":")
    if not (runs / pair.name / "result.json").is_file():
        runs.mkdir(parents=True, exist_ok=True)
        recipe = runs / f"{pair.name}.yaml"
        text = RECIPE.format(
            name=pair.name, root=ROOT, folder=folder, network=network, preprocess=BEFORE[pair.name]
        )
        recipe.write_text(text, encoding="utf-8")
        pipeline.run(recipe, out=runs / pair.name, workspace=runs / ".lepton")
    return read_result(runs / pair.name)


def evaluation(result: RunResult) -> Split:
    """The evaluation samples of a run, as its artifacts take them."""
    from lepton_compress.job import artifact_data
    from lepton_compress.report.folder import kept_recipe

    source = kept_recipe(result)
    assert source is not None
    names = [spec.name for spec in result.artifacts[0].inputs]
    return artifact_data(source).evaluation.named(names)


def payload(result: RunResult) -> int:
    """Bytes of a sample."""
    return sum(array[:1].nbytes for array in evaluation(result).inputs.values())


def best_cuts(result: RunResult) -> tuple[Cut, ...]:
    """The measured cuts of the whole network in int8."""
    artifact = result.artifact("int8")
    assert result.folder is not None
    found = splitting.cuts(
        result.folder / artifact.path, evaluation(result), observer=Silent(), edge=edge_of(result)
    )
    made = splitting.planned(found, artifact.candidate, result=result.recipe)
    return tuple(each for each in made if each.provenance == "measured")


def edge_of(result: RunResult) -> Any:
    """The recipe's first target."""
    from lepton_compress.report.folder import kept_recipe

    source = kept_recipe(result)
    assert source is not None
    return source.recipe.targets[0]


def deployed(pair: Pair, run: RunResult, kind: str, scratch: Path, seed: int) -> Path:
    """The folder of a deployment, planned for a link that is not measured yet."""
    fleet = fleet_of(pair, kind, {"round_trip": 0.05, "spread": 0.001}, payload(run))
    placed = placing.place(run, fleet, sensitivity=False, seed=seed)
    made = deploying.deployment(placed.placed[0], placed, [run], scratch / "halves")
    return exporting.export(made, scratch / kind)


def pinged(pair: Pair, run: RunResult, scratch: Path, seed: int) -> dict[str, float]:
    """What an empty request takes across the link."""
    folder = deployed(pair, run, "cloud", scratch, seed)
    with cloud(folder) as port, link(port, pair.shape, seed) as shaped:
        edge, measure = (program(folder, name) for name in ("edge", "measure"))
        with edge.Edge(folder / "edge", shaped.url) as device:
            taken: dict[str, float] = measure.ping(device, PINGS)
    return taken


def overhead(pair: Pair, run: RunResult, scratch: Path, seed: int) -> float:
    """Seconds that the edge's program takes of a request, beside the model."""
    folder = deployed(pair, run, "edge", scratch, seed)
    told = tried(folder, pair.shape, evaluation(run), pair.rate, PINGS, seed + 1)
    return float(told["overhead"])


def fleet_of(
    pair: Pair, kind: str, trip: dict[str, float], up: int, around: float = 1e-9
) -> dict[str, Any]:
    """A device and a cloud, with plans of one kind."""
    shape = pair.shape
    return {
        "version": 1,
        "name": f"{pair.name}-{kind}",
        "sites": [
            {"name": "device", "kind": "edge", "target": "edge", "overhead": f"{around * 1e3} ms"},
            {"name": "region", "kind": "cloud", "target": "edge", "price": "1/h", "replicas": 1},
        ],
        "links": [
            {
                "edge": "device",
                "cloud": "region",
                "round_trip": f"{trip['round_trip'] * 1e3:.4f} ms",
                "spread": f"{trip['spread'] * 1e3:.4f} ms",
                "up": f"{shape.up / 1e6:g} Mbit/s",
                "down": f"{shape.down / 1e6:g} Mbit/s",
            }
        ],
        "workloads": [
            {
                "name": pair.name,
                "rate": f"{pair.rate:g}/s",
                "payload": {"up": f"{up} B", "down": f"{4 * CLASSES} B"},
                "demands": {"only": [kind]},
            }
        ],
        "prefer": "most_accurate" if kind in ("cloud", "cascade") else "fastest",
    }


def tried(
    folder: Path, shape: Shape, samples: Split, rate: float, requests: int, seed: int
) -> dict[str, Any]:
    """What a deployment does across a shaped link."""
    held = {**samples.inputs, "labels": np.asarray(samples.targets)}
    edge, measure = (program(folder, name) for name in ("edge", "measure"))

    def run(url: str) -> dict[str, Any]:
        with edge.Edge(folder / "edge", url) as device:
            load = measure.Load(device, held, seed)
            load.warm_up()
            told: dict[str, Any] = measure.summary(load.run(rate, requests), labelled=True)
            return told

    if not (folder / "cloud").is_dir():
        return run("")
    with cloud(folder) as port, link(port, shape, seed) as shaped:
        return run(shaped.url)


def link(port: int, shape: Shape, seed: int) -> Link:
    """In front of a port of this machine."""
    return Link(("127.0.0.1", port), **vars(shape), seed=seed)


@contextlib.contextmanager
def cloud(folder: Path) -> Iterator[int]:
    """The cloud's program, as its README starts it; the port that it listens on."""
    command = [sys.executable, str(folder / "cloud" / "cloud.py"), "--port", "0"]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(command, env=kept, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            found = next(filter(None, (re.search(r":(\d+)/v1/infer", line) for line in lines)))
            yield int(found[1])
        finally:
            process.terminate()


def program(folder: Path, name: str) -> Any:
    """A program of the edge's folder."""
    spec = importlib.util.spec_from_file_location(f"tried_{name}", folder / "edge" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


ABOUT = (
    "the plan's predicted percentiles against a real run of the exported programs, the cloud in a "
    "process of its own behind a proxy that delays what passes. Asked for is agreement within "
    f"{WITHIN:.0%}. From one run on one machine; `lateness` (p90) is how late its timers were "
    "meanwhile, and `load` how many processes wanted its processors. "
    "Pairs of figures are predicted and measured."
)
COLUMNS = ("pair", "plan", "percentile", "predicted", "measured", "difference", "share up")
COLUMNS += ("accuracy", "lateness", "load")


def page(rows: list[dict[str, Any]]) -> str:
    """The results for people."""
    lines = [
        "# Plans beside their deployments",
        "",
        f"`LEPTON_DATA=... python -m benchmarks.placement link`: {ABOUT}",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for row in rows:
        if "problem" in row:
            lines.append(f"| {row['pair']} | {row['kind']} | {row['problem']} | | | | | | | |")
            continue
        for name, predicted in row["predicted"].items():
            measured = row["measured"][name]
            apart = measured / predicted - 1
            mark = "" if abs(apart) <= WITHIN else " (beyond)"
            lines.append(
                f"| {row['pair']} | {row['plan']} | {name} | {predicted * 1e3:.3g} ms | "
                f"{measured * 1e3:.3g} ms | {apart:+.1%}{mark} | {_two(row['share_up'])} | "
                f"{_two(row['accuracy'])} | {row['lateness'] * 1e3:.2g} ms | "
                f"{row['load']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def _two(values: list[float | None]) -> str:
    """Predicted and measured."""
    shown = ["-" if each is None else f"{each:.3f}" for each in values]
    return f"{shown[0]}, {shown[1]}"


if __name__ == "__main__":
    main()
