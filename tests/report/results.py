"""A result made by hand, with something of everything that a result may hold."""

from __future__ import annotations

import math
from typing import Any

from lepton_compress.artifacts import (
    Artifact,
    Behaviour,
    Callers,
    Candidate,
    Choice,
    Corrupted,
    Coverage,
    Front,
    Group,
    Load,
    OperatorTime,
    Parity,
    Profile,
    RunResult,
    Score,
    Status,
    StepRecord,
    TensorSpec,
    Trial,
    Tuning,
    Verdict,
)

FOUND = {"enable_cpu_mem_arena": False}
TUNING = Tuning(
    FOUND,
    0.9,
    (0.88, 0.92),
    (
        Trial(FOUND, 1, 0.91, (0.9, 0.92), 1.01, True),
        Trial({"intra_op_num_threads": 1}, 1, 1.2, (1.1, 1.3), 1.01, False),
        Trial(FOUND, 2, 0.9, (0.88, 0.92), 0.99, True),
    ),
    "faster both times it was measured",
)
SPEC = TensorSpec("image", "float32", ("batch", 1, 8, 8))


def profile(name: str, target: str, ratio: float | None, **changes: Any) -> Profile:
    held: dict[str, Any] = {
        "candidate": name,
        "format": "onnx",
        "target": target,
        "runtime": "onnxruntime-cpu",
        "status": "measured",
        "provenance": "measured",
        "batch": 1,
        "threads": 1,
        "rounds": 15,
        "samples": 3000,
        "latency": {"p50": 2e-3 * (ratio or 1.0), "p90": 3e-3},
        "interval": {"p50": (1e-3, 3e-3), "p90": (2e-3, 4e-3)},
        "ratio": ratio,
        "ratio_interval": None if ratio is None else (ratio - 0.01, ratio + 0.01),
        "noise": 1.002,
        "noise_interval": (0.99, 1.01),
        "cold_start": 0.25,
        "peak_memory": 12_000_000,
        "throughput": 500.0,
        "throughput_interval": (450.0, 550.0),
        "loads": (Load(50.0, 1000, {"p50": 3e-3, "p99": 9e-3}, {"p99": (8e-3, 10e-3)}),),
        "callers": (
            Callers(4, 2, 1000, 900.0, (880.0, 920.0), {"p50": 4e-3}, {"p50": (3e-3, 5e-3)}),
        ),
        "operators": (
            OperatorTime("Conv", "float32", 3, 9e-4, 0.75),
            OperatorTime("Gemm", "float32", 1, 3e-4, 0.25),
        ),
        "session": {"intra_op_num_threads": 1, "enable_cpu_mem_arena": True},
        "tuning": TUNING,
        **changes,
    }
    return Profile(**held)


def behaviour(name: str, drop: float) -> Behaviour:
    around = (drop - 0.05, drop + 0.05)
    return Behaviour(
        name,
        "onnx",
        4,
        flips=round(10 * drop),
        negative_flips=round(10 * drop),
        calibration_error=0.02 + drop,
        calibration_interval=(0.01, 0.2),
        groups=(
            Group("class", "7", "accuracy", 2, 0.9 - drop, drop, around),
            Group("slice", "night", "accuracy", 2, 0.8 - 2 * drop, 2 * drop, around),
        ),
        corrupted=tuple(
            Corrupted("gaussian_noise", severity, "accuracy", 4, 0.9 - drop, drop, around)
            for severity in (1, 3, 5)
        ),
    )


def result(targets: tuple[str, ...] = ("edge",), **changes: Any) -> RunResult:
    record = StepRecord(
        "quantize", {"samples": 16}, 1.25, True, True, {"output_sqnr_db": 31.5}, ("left | float",)
    )
    held: dict[str, Any] = {
        "recipe": "tiny",
        "recipe_digest": "a" * 64,
        "data_fingerprint": "b" * 64,
        "seed": 7,
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 12.5,
        "environment": {
            "python": "3.11.7",
            "system": "Linux 6",
            "cpu": {"name": "A CPU", "machine": "x86_64", "cores": 2, "extensions": ["avx2"]},
            "libraries": {"torch": "2.13.0", "onnx": "1.23.0"},
        },
        "baseline": "baseline",
        "candidates": (
            Candidate("baseline", "1" * 64, None, (), 12_345, None),
            Candidate("int8", "2" * 64, "baseline", (record,), 12_345, 1_000_000),
        ),
        "artifacts": tuple(
            Artifact(
                name,
                "onnx",
                f"artifacts/{name}.onnx",
                digit * 64,
                size,
                (SPEC,),
                (TensorSpec("scores", "float32", ("batch", 10)),),
                {"Conv": {"float32": 2}},
            )
            for name, digit, size in (("baseline", "c", 200_000), ("int8", "d", 60_000))
        ),
        "parities": (Parity("int8", "onnx", "graph", "m", math.inf, 1e-4, 7, 7),),
        "scores": (
            Score("baseline", "onnx", "accuracy", True, 0.98, (0.96, 0.99), 4, (1.0,) * 4, 0.0),
            Score(
                "int8",
                "onnx",
                "accuracy",
                True,
                0.97,
                (0.95, 0.99),
                4,
                (1.0, 1.0, 1.0, 0.0),
                0.01,
                (-0.005, 0.025),
            ),
        ),
        "profiles": tuple(
            profile(name, target, ratio)
            for target in targets
            for name, ratio in (("baseline", 1.0), ("int8", 0.5))
        ),
        "verdicts": (
            Verdict(
                "int8", "onnx", None, "drop", Status.PASS, 0.01, (0.0, 0.02), 0.02, True, "a | b"
            ),
            Verdict(
                "baseline", "onnx", None, "size", Status.FAIL, 2e5, None, 1e5, False, "too large"
            ),
        ),
        "chosen": tuple(
            Choice(target, "int8", "onnx", "0.50x the latency", True) for target in targets
        ),
        "passed": True,
        "notes": ("a note",),
        "fronts": tuple(
            Front(
                target,
                ("score", "latency", "size", "peak_memory"),
                (("baseline", "onnx"), ("int8", "onnx")),
            )
            for target in targets
        ),
        "labels": (0, 1, 1, 0),
        "behaviours": tuple(
            behaviour(name, drop) for name, drop in (("baseline", 0.0), ("int8", 0.1))
        ),
        "coverages": tuple(
            Coverage(name, "onnx", "onnxruntime-cpu", 4, done, 1000, 240 * done)
            for name, done in (("baseline", 0), ("int8", 3))
        ),
        **changes,
    }
    return RunResult(**held)
