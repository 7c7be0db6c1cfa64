"""Pruning of the reference models: `LEPTON_DATA=... python -m benchmarks.pruning [MODEL...]`.

Against torch-pruning's recipe at its latency, then pruned, distilled and in int8 against float;
writes benchmarks/results/pruning.json and .md. `--seeds N` and `--ratios` ask for fewer trainings,
`--kept FOLDER` keeps finished cells, so that a run that was broken off goes on there.

`latency [MODEL...]` instead prunes each to a share of its time and compares what was predicted with
what was measured, by the step and by the run; writes benchmarks/results/pruning_latency.json and
.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pruning import against, latency, small
from benchmarks.pruning.page import page
from benchmarks.tasks import TASKS
from lepton_compress import provenance

RESULTS = Path(__file__).resolve().parent.parent / "results"
MODELS = ("mnist_cnn", "resnet8", "keyword_dscnn", "sentiment_transformer")


def main() -> None:
    """Run one of the two."""
    logging.disable(logging.WARNING)
    if sys.argv[1:2] == ["latency"]:
        latency.main(sys.argv[2:])
        return
    given = arguments(sys.argv[1:])
    with tempfile.TemporaryDirectory() as scratch:
        found = figures(given.models, given.seeds, given.ratios, given.kept or Path(scratch))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "pruning.json").write_text(json.dumps(found, indent=1) + "\n")
    (given.out / "pruning.md").write_text(page(found))
    print(page(found))


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each net")
    parser.add_argument("--ratios", type=float, nargs="+", default=against.RATIOS)
    parser.add_argument("--kept", type=Path, help="a folder that keeps finished cells")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(given)
    asked.models = asked.models or list(MODELS)
    if unknown := set(asked.models) - set(MODELS):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    if asked.seeds < 1:
        parser.error("--seeds must be at least 1")
    return asked


def figures(
    models: Sequence[str], seeds: int, ratios: Sequence[float], kept: Path
) -> dict[str, Any]:
    """Both tables' cells by model."""
    tasks = {name: TASKS[name](name) for name in models}
    memories: dict[str, dict[str, Any]] = {name: {} for name in models}
    numbers = range(seeds)

    def beside(name: str, ratio: float) -> dict[str, Any]:
        def build() -> dict[str, Any]:
            return against.cell(name, tasks[name], ratio, numbers, memories[name])

        return once(kept / f"{name}-{ratio:g}-{seeds}.json", build)

    def little(name: str) -> dict[str, Any]:
        path = kept / f"{name}-small-{seeds}.json"
        return once(path, lambda: small.cell(name, tasks[name], numbers))

    return {
        "environment": provenance.environment(),
        "peer": importlib.metadata.version("torch-pruning"),
        "training": {**against.TRAINING, "learning_rate": against.RATE, "others": against.RATES},
        "samples": against.SAMPLES,
        "seeds": seeds,
        "models": {
            name: {f"{ratio:g}": beside(name, ratio) for ratio in ratios} for name in models
        },
        "small": {name: little(name) for name in models},
        "small_by": {
            "budget": small.BUDGET,
            "training": small.TRAINING,
            "samples": small.SAMPLES,
        },
    }


def once(path: Path, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A cell, from its file where it was finished before."""
    if path.is_file():
        held: dict[str, Any] = json.loads(path.read_text())
        return held
    found = build()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(found))
    unfinished.replace(path)
    print(f"{path.stem}: done", flush=True)
    return found


if __name__ == "__main__":
    main()
