"""Can the gates be trusted? `python -m benchmarks.measuring` writes benchmarks/results/measuring.*

alike     one artifact as baseline and as variant, a 5 % latency gate, a busy process beside
          it: how many of the gates fail though nothing is slower
slower    the same graph with a tenth more operators: how many of the gates catch it
loop      the median that is reported, over that of a bare loop in one process
accuracy  planted drops, judged strictly over 1,000 resamplings: how often the verdict is wrong
gate      seconds of `lepton-compress gate` on a result, and of `--help` beside it
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.subjects import chain, result_file
from lepton_compress import evaluate
from lepton_compress.artifacts import Score
from lepton_compress.budget import Gates
from lepton_compress.gate import judge_gates
from lepton_compress.profile.measure import Limits, Subject, measure
from lepton_compress.readings import Measured
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.silent import Silent

RESULTS = Path(__file__).parents[1] / "results"
LAYERS, SLOWER = 40, 44
LIMIT = 1.05
SAMPLES, RESAMPLINGS = 500, 1000


def main() -> None:
    """Run everything, print it, write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gates", type=int, default=100, help="Latency gates of each kind.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {"gates": asked.gates, "processor": _processor()}
        found["accuracy"] = accuracy()
        found["gate"] = gate_seconds(folder)
        base, slow = folder / "base.onnx", folder / "slow.onnx"
        chain(base, LAYERS)
        chain(slow, SLOWER)
        found["loop"] = loop(base)
        with _busy():
            found["alike"] = latency_gates(base, base, asked.gates)
            found["slower"] = latency_gates(base, slow, asked.gates)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "measuring.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "measuring.md").write_text(_page(found))
    print(_page(found))


def latency_gates(base: Path, other: Path, gates: int) -> dict[str, Any]:
    """How often a 5 % gate on `other` fails; each gate measures anew, in processes of its own."""
    seconds, ratios = [], []
    inputs = {"x": np.zeros((1, 256), np.float32)}
    for number in range(gates):
        start = time.perf_counter()
        subjects = [Subject("baseline", "onnx", base), Subject("variant", "onnx", other)]
        _, profile = measure(
            subjects,
            baseline="baseline",
            target=TargetSpec(name="here", runtime="onnxruntime-cpu"),
            inputs=inputs,
            limits=Limits(ratio=LIMIT),
            rounds=15,
            cap=20.0,
            seed=number,
            observer=Silent(),
        )
        seconds.append(time.perf_counter() - start)
        ratios.append(profile.ratio if profile.ratio is not None else float("nan"))
    return {
        "failed": sum(not ratio <= LIMIT for ratio in ratios),
        "gates": gates,
        "ratio_median": float(np.median(ratios)),
        "ratio_range": [min(ratios), max(ratios)],
        "seconds_median": float(np.median(seconds)),
    }


def loop(path: Path) -> dict[str, float]:
    """The reported median over that of a bare loop, taken before and after it."""
    before = _bare(path)
    (profile,) = measure(
        [Subject("baseline", "onnx", path)],
        baseline="baseline",
        target=TargetSpec(name="here", runtime="onnxruntime-cpu"),
        inputs={"x": np.zeros((1, 256), np.float32)},
        limits=Limits(),
        rounds=15,
        cap=20.0,
        seed=0,
        observer=Silent(),
    )
    bare = (before + _bare(path)) / 2
    return {
        "bare": bare,
        "reported": profile.latency["p50"],
        "ratio": profile.latency["p50"] / bare,
    }


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


def accuracy() -> list[dict[str, float]]:
    """Verdicts of a strict 2 % gate on planted drops, each over fresh samples."""
    rows = []
    for drop in (0.0, 0.02, 0.08):
        counts = {"PASS": 0, "FAIL": 0, "INCONCLUSIVE": 0}
        for seed in range(RESAMPLINGS):
            counts[_verdict(drop, seed)] += 1
        rows.append({"planted": drop, **{k: v / RESAMPLINGS for k, v in counts.items()}})
    return rows


def _verdict(drop: float, seed: int) -> str:
    """A baseline right on nine of ten; the variant loses `drop` more than it wins, and flips."""
    draw = np.random.default_rng([seed, int(1e6 * drop)])
    before = draw.random(SAMPLES) < 0.9
    lost = before & (draw.random(SAMPLES) < (drop + 0.02) / 0.9)
    won = ~before & (draw.random(SAMPLES) < 0.02 / 0.1)
    base = _score("baseline", before.astype(float))
    now = evaluate.compare(base, _score("variant", ((before & ~lost) | won).astype(float)))
    gates = Gates.model_validate({"drop": {"limit": "2 %", "strict": True}})
    from tests.measured import artifact

    found = Measured("baseline", [artifact("variant")], [], [now], [])
    made = judge_gates(gates, found, metric="accuracy", targets=["here"])
    return str(next(each.status for each in made if each.gate == "drop"))


def _score(candidate: str, outcomes: np.ndarray) -> Score:
    value, held = float(outcomes.mean()), tuple(outcomes.tolist())
    return Score(candidate, "onnx", "accuracy", True, value, (0, 1), len(held), held)


def gate_seconds(folder: Path, runs: int = 5) -> dict[str, float]:
    """Medians over a few runs, the two commands in turns; processor time, other work left out."""
    result_file(folder / "result.json")
    (folder / "budget.yaml").write_text("drop: 2 %\nsize: 100 KB\nlatency_ratio: 0.9x\n")
    commands = {
        "gate": ["gate", str(folder / "result.json"), "--budget", str(folder / "budget.yaml")],
        "help": ["--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs + 1):
        for name, command in commands.items():
            before = os.times()
            program = [sys.executable, "-m", "lepton_compress.cli", *command]
            subprocess.run(program, capture_output=True, check=False)
            after = os.times()
            spent = after.children_user + after.children_system
            taken[name].append(spent - before.children_user - before.children_system)
    return {name: float(np.median(each[1:])) for name, each in taken.items()}


def _processor() -> str:
    from lepton_compress.provenance import cpu

    return str(cpu()["name"])


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """A process computes on the first CPU while the block runs."""
    code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    process = subprocess.Popen([sys.executable, "-c", code + "while True:\n    pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _page(found: dict[str, Any]) -> str:
    alike, slower, loop_ = found["alike"], found["slower"], found["loop"]
    lines = [
        "# Can the gates be trusted?",
        "",
        (
            f"`python -m benchmarks.measuring --gates {found['gates']}` on {found['processor']}, "
            "one thread, with a busy process on another core."
        ),
        "",
        "| what | measured |",
        "|---|---|",
        (
            f"| one artifact against itself, gates at 5 % that fail | {alike['failed']} of "
            f"{alike['gates']} (ratios {alike['ratio_range'][0]:.3f} to "
            f"{alike['ratio_range'][1]:.3f}) |"
        ),
        (
            f"| a tenth more operators, gates at 5 % that fail | {slower['failed']} of "
            f"{slower['gates']} (median ratio {slower['ratio_median']:.3f}) |"
        ),
        f"| one such gate, starting its processes included | {alike['seconds_median']:.1f} s |",
        f"| reported median over that of a bare loop | {loop_['ratio']:.3f}x |",
        (
            f"| `gate` on a result, processor time (`--help`: {found['gate']['help']:.2f} s) | "
            f"{found['gate']['gate']:.2f} s |"
        ),
        "",
        (
            f"Drops planted in {SAMPLES} samples, judged by a strict 2 % gate, {RESAMPLINGS:,} "
            "resamplings:"
        ),
        "",
        "| planted drop | PASS | FAIL | INCONCLUSIVE |",
        "|---|---|---|---|",
    ]
    for row in found["accuracy"]:
        shares = " | ".join(f"{100 * row[k]:.1f} %" for k in ("PASS", "FAIL", "INCONCLUSIVE"))
        lines.append(f"| {100 * row['planted']:.0f} % | {shares} |")
    lines += [
        "",
        (
            "At the limit itself (2 %) a PASS or a FAIL is the error that a 95 % interval allows: "
            "about 2.5 % to each side."
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
