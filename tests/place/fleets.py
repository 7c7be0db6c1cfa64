"""Results and fleets made by hand, small enough to work out what must come of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from lepton_compress.artifacts import (
    QUANTILES,
    Answered,
    Artifact,
    Callers,
    Candidate,
    Choice,
    Profile,
    RunResult,
    Score,
    TensorSpec,
)
from lepton_compress.place.fleet import Fleet, fleet_from_values
from lepton_compress.provenance import file_digest
from lepton_compress.statistics import mean_interval

SAMPLES, CLASSES = 600, 5
SPEC = TensorSpec("image", "float32", ("batch", 1, 8, 8))
MODELS = {"baseline": (8e-3, 6.0, 800_000), "small": (2e-3, 2.5, 100_000)}
"""Candidate to seconds of a call on the server, strength, and bytes."""
SLOWER = {"server": 1.0, "device": 5.0}
"""Target to how many times as long a call takes there."""


def quantiles(seconds: float) -> tuple[float, ...]:
    """Of calls that take about so long: a tenth less at least, twice as long at most."""
    shares = np.array(QUANTILES)
    return tuple(float(each) for each in seconds * (0.9 + 0.2 * shares + 0.9 * shares**40))


def result(folder: Path, name: str = "images", **changes: Any) -> RunResult:
    """A result of two models on two targets, with class scores in files."""
    models: dict[str, tuple[float, float, int]] = changes.pop("models", MODELS)
    slower: dict[str, float] = changes.pop("slower", SLOWER)
    seed: int = changes.pop("seed", 0)
    truth, scores = _answers(models, seed)
    answers, held = [], []
    for candidate in models:
        made = scores[candidate]
        path = Path("answers") / f"{candidate}.npz"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / path, scores=made, targets=truth)
        mark = file_digest(folder / path)
        answers.append(Answered(candidate, "onnx", str(path), mark, SAMPLES, CLASSES))
        outcomes = (made.argmax(axis=1) == truth).astype(float)
        value, interval = mean_interval(outcomes)
        held.append(
            Score(candidate, "onnx", "accuracy", True, value, interval, SAMPLES, tuple(outcomes))
        )
    given: dict[str, Any] = {
        "recipe": name,
        "recipe_digest": "a" * 64,
        "data_fingerprint": "b" * 64,
        "seed": 0,
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 1.0,
        "environment": {},
        "baseline": "baseline",
        "candidates": tuple(Candidate(each, "1" * 64, None, (), 1, 1) for each in models),
        "artifacts": tuple(
            Artifact(each, "onnx", f"artifacts/{each}.onnx", "c" * 64, size, (SPEC,), (SPEC,), {})
            for each, (_, _, size) in models.items()
        ),
        "parities": (),
        "scores": tuple(held),
        "profiles": tuple(
            profile(each, target, seconds * factor)
            for target, factor in slower.items()
            for each, (seconds, _, _) in models.items()
        ),
        "verdicts": (),
        "chosen": tuple(Choice(target, "small", "onnx", "", True) for target in slower),
        "passed": True,
        "answers": tuple(answers),
        "folder": folder,
        **changes,
    }
    return RunResult(**given)


def profile(candidate: str, target: str, seconds: float, **changes: Any) -> Profile:
    """Of calls that take about so many seconds."""
    held = quantiles(seconds)
    at = {name: held[QUANTILES.index(share)] for name, share in (("p50", 0.5), ("p90", 0.9))}
    at["p99"] = held[QUANTILES.index(0.99)]
    beside = {name: 1.25 * value for name, value in at.items()}
    given: dict[str, Any] = {
        "candidate": candidate,
        "format": "onnx",
        "target": target,
        "runtime": "onnxruntime-cpu",
        "status": "measured",
        "provenance": "measured",
        "batch": 1,
        "threads": 1,
        "samples": 3000,
        "latency": at,
        "quantiles": held,
        "peak_memory": 10_000_000,
        "throughput": 1 / seconds,
        "callers": (Callers(2, 2, 1000, 1.6 / seconds, (1.0, 2.0), beside, {}),),
        **changes,
    }
    return Profile(**given)


def _answers(models: dict[str, tuple[float, float, int]], seed: int) -> tuple[Any, dict[str, Any]]:
    """True classes, and class scores of each model: what is hard for one is hard for all."""
    random = np.random.default_rng(seed)
    truth = random.integers(CLASSES, size=SAMPLES)
    ease = random.random(SAMPLES)
    made = {}
    for candidate, (_, strength, _) in models.items():
        scores = random.normal(size=(SAMPLES, CLASSES))
        scores[np.arange(SAMPLES), truth] += strength * (0.3 + ease)
        made[candidate] = (2 * scores).astype(np.float32)
    return truth.astype(np.int64), made


FLEET: dict[str, Any] = {
    "version": 1,
    "energy_price": "0/kWh",
    "name": "tests",
    "currency": "EUR",
    "sites": [
        {"name": "camera", "kind": "edge", "target": "device", "count": 100, "power": "1 W"},
        {"name": "region", "kind": "cloud", "target": "server", "price": "0.10/h", "replicas": 20},
    ],
    "links": [
        {
            "edge": "camera",
            "cloud": "region",
            "round_trip": "30 ms",
            "spread": "5 ms",
            "up": "10 Mbit/s",
            "down": "20 Mbit/s",
            "price": "0.05/GB",
            "availability": "99 %",
        }
    ],
    "workloads": [
        {
            "name": "see",
            "rate": "1/s",
            "payload": {"up": "20 KB", "down": "200 B"},
            "demands": {"latency": "200 ms"},
        }
    ],
}


def values(**changes: Any) -> dict[str, Any]:
    """A fleet in plain values; keys such as `sites__0__count` reach inside."""
    made = copy.deepcopy(FLEET)
    for path, value in changes.items():
        place: Any = made
        *parts, last = [int(p) if p.isdecimal() else p for p in path.split("__")]
        for part in parts:
            place = place[part]
        place[last] = value
    return made


def fleet(**changes: Any) -> Fleet:
    """The same, checked."""
    return fleet_from_values(values(**changes)).fleet


def demands(**asked: Any) -> dict[str, Any]:
    """A change of what is asked, for `fleet`."""
    return {"workloads__0__demands": asked}
