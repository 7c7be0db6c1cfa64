"""Latency gates on artifacts alike or slower; the reported median beside a bare loop."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.subjects import WIDTH
from lepton_compress.artifacts import Profile
from lepton_compress.budget import Gates
from lepton_compress.gate import judge_gates
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.measure import measure
from lepton_compress.profile.session import Limits
from lepton_compress.readings import Measured
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.silent import Silent
from tests.measured import artifact

LIMIT = 1.05
HERE = TargetSpec(name="here", runtime="onnxruntime-cpu")


def gates(base: Path, other: Path, count: int, *, first: int = 0) -> list[dict[str, Any]]:
    """A 5 % gate on `other` beside `base`, `count` times; each measures anew, in processes of its
    own. `first` is the first seed."""
    rows = []
    for seed in range(first, first + count):
        start = time.perf_counter()
        subjects = [Subject("baseline", "onnx", base), Subject("variant", "onnx", other)]
        _, profile = _measure(subjects, Limits(ratio=LIMIT), seed)
        taken = time.perf_counter() - start
        rows.append(
            {
                "ratio": profile.ratio,
                "interval": profile.ratio_interval,
                "noise": profile.noise,
                "rounds": profile.rounds,
                "seconds": taken,
                "point": _verdict(profile, strict=False),
                "strict": _verdict(profile, strict=True),
            }
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of verdicts by point and strictly, and what one gate took."""
    ratios = [row["ratio"] for row in rows]
    return {
        "gates": len(rows),
        "point": dict(Counter(row["point"] for row in rows)),
        "strict": dict(Counter(row["strict"] for row in rows)),
        "ratio_median": float(np.median(ratios)),
        "ratio_range": [min(ratios), max(ratios)],
        "rounds_median": float(np.median([row["rounds"] for row in rows])),
        "seconds_median": float(np.median([row["seconds"] for row in rows])),
        "seconds_most": max(row["seconds"] for row in rows),
    }


def loop(path: Path, repeats: int) -> dict[str, Any]:
    """The reported median over the mean of the bare loops just before and after it."""
    bare, reported = [_bare(path)], []
    for seed in range(repeats):
        (profile,) = _measure([Subject("baseline", "onnx", path)], Limits(), seed)
        reported.append(profile.latency["p50"])
        bare.append(_bare(path))
    ratios = [
        each / ((before + after) / 2)
        for each, (before, after) in zip(reported, itertools.pairwise(bare), strict=True)
    ]
    drawn = np.random.default_rng(0).choice(ratios, (2_000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    beside = [after / before for before, after in itertools.pairwise(bare)]
    return {
        "repeats": repeats,
        "bare": float(np.median(bare)),
        "reported": float(np.median(reported)),
        "ratio": float(np.median(ratios)),
        "ratio_interval": [float(low), float(high)],
        "ratio_range": [min(ratios), max(ratios)],
        "bare_to_bare_range": [min(beside), max(beside)],
    }


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """A process computes on the first CPU while the block runs."""
    code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    process = subprocess.Popen([sys.executable, "-c", code + "while True:\n    pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _measure(subjects: list[Subject], limits: Limits, seed: int) -> list[Profile]:
    return measure(
        subjects,
        baseline="baseline",
        target=HERE,
        inputs={"x": np.zeros((1, WIDTH), np.float32)},
        limits=limits,
        rounds=15,
        cap=20.0,
        seed=seed,
        observer=Silent(),
    )


def _verdict(profile: Profile, *, strict: bool) -> str:
    asked = Gates.model_validate({"latency_ratio": {"limit": f"{LIMIT}x", "strict": strict}})
    found = Measured("baseline", [artifact("variant")], [], [], [profile])
    made = judge_gates(asked, found, metric="accuracy", targets=[HERE.name])
    return str(next(each.status for each in made if each.gate == "latency_ratio"))


def _bare(path: Path) -> float:
    """Median seconds of a call, in a process of its own on the CPU that is measured on."""
    code = (
        "import os, sys, time, numpy, onnxruntime as o\n"
        "os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
        "s = o.SessionOptions(); s.intra_op_num_threads = s.inter_op_num_threads = 1\n"
        "r = o.InferenceSession(sys.argv[1], s, providers=['CPUExecutionProvider'])\n"
        "x = {'x': numpy.zeros((1, 256), numpy.float32)}; t = []\n"
        "for _ in range(3000):\n"
        "    a = time.perf_counter(); r.run(None, x); t.append(time.perf_counter() - a)\n"
        "print(numpy.median(t[500:]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)
    return float(done.stdout)
