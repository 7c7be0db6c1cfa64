"""Measured values as a run gathers them, made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_compress.artifacts import Artifact, Choice, Load, Parity, Profile, Score
from lepton_compress.gate import Measured, judge, select
from lepton_compress.recipe import Recipe, from_values


def recipe(**changes: Any) -> Recipe:
    """A recipe with two variants; only what gates look at matters."""
    values: dict[str, Any] = {
        "version": 1,
        "name": "gates",
        "model": {"onnx": "model.onnx"},
        "data": {"python": {"function": "data.py:load"}},
        "metrics": ["accuracy"],
        "variants": {"a": ["quantize"], "b": ["quantize"]},
    }
    return from_values(values | changes, Path()).recipe


def parity(candidate: str, value: float = 0.0, batch: int = 1, format: str = "onnx") -> Parity:
    return Parity(candidate, format, "graph", "difference", value, 1e-4, batch, 1)


def artifact(candidate: str, size: int = 1000, format: str = "onnx") -> Artifact:
    return Artifact(candidate, format, f"{candidate}.onnx", "0" * 64, size, (), (), {})


def score(candidate: str, value: float = 0.9, drop: float | None = 0.0, **more: Any) -> Score:
    held: dict[str, Any] = {
        "format": "onnx",
        "metric": "accuracy",
        "higher_is_better": True,
        "interval": (value - 0.02, value + 0.02),
        "samples": 100,
        "drop_interval": None if drop is None else (drop - 0.01, drop + 0.01),
    }
    return Score(candidate=candidate, value=value, drop=drop, **held | more)


def load(rate: float, ratio: float = 1.0) -> Load:
    p99 = ratio * 5e-3
    return Load(rate, 1000, {"p99": p99}, {"p99": (0.9 * p99, 1.1 * p99)})


def profile(candidate: str, ratio: float | None = 1.0, **more: Any) -> Profile:
    held: dict[str, Any] = {
        "format": "onnx",
        "target": "onnxruntime-cpu",
        "runtime": "onnxruntime-cpu",
        "status": "measured",
        "provenance": "measured",
        "batch": 1,
        "threads": 1,
        "samples": 100,
        "latency": {} if ratio is None else {"p50": ratio * 1e-3, "p90": ratio * 2e-3},
        "interval": {} if ratio is None else {"p50": (ratio * 0.9e-3, ratio * 1.1e-3)},
        "ratio_interval": None if ratio is None else (ratio - 0.02, ratio + 0.02),
        "noise": 1.0,
        "noise_interval": (0.99, 1.01),
        "cold_start": 0.2,
        "peak_memory": 5_000_000,
        "throughput": None if ratio is None else 1000.0 / ratio,
        "throughput_interval": None if ratio is None else (900.0 / ratio, 1100.0 / ratio),
        "loads": () if ratio is None else (load(50.0, ratio),),
    }
    return Profile(candidate=candidate, ratio=ratio, **held | more)


def measured(
    *candidates: str,
    artifacts: list[Artifact] | None = None,
    parities: list[Parity] | None = None,
    scores: list[Score] | None = None,
    profiles: list[Profile] | None = None,
) -> Measured:
    """The candidates, all alike but for what is given."""
    return Measured(
        baseline="baseline",
        artifacts=artifacts or [artifact(name) for name in candidates],
        parities=[parity(name) for name in candidates] if parities is None else parities,
        scores=[score(name) for name in candidates] if scores is None else scores,
        profiles=[profile(name) for name in candidates] if profiles is None else profiles,
    )


def choose(found: Measured, **changes: Any) -> Choice:
    """The choice for the only target."""
    asked = recipe(**changes)
    (made,) = select(asked, found, judge(asked, found))
    return made
