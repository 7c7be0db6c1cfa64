"""Can the gates be trusted? `python -m benchmarks.measuring` writes benchmarks/results/measuring.*

alike     one artifact as baseline and as variant under a 5 % latency gate, on a quiet machine and
          with a busy process beside it: how many of the gates fail though nothing is slower
slower    the same graph with a tenth more operators: how many of the gates catch it
loop      the median that is reported, over that of a bare loop in a process of its own
accuracy  planted drops, judged strictly and by point over 1,000 resamplings: wrong verdicts
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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import latency
from benchmarks.measuring.accuracy import RESAMPLINGS, SAMPLES, accuracy
from benchmarks.measuring.subjects import chain, result_file
from lepton_compress import provenance

RESULTS = Path(__file__).parents[1] / "results"
LAYERS, SLOWER = 40, 44
WAYS = {"quiet": contextlib.nullcontext, "busy": latency.busy}
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")
BLOCK = 5
"""Gates in a row of one kind, so that what changes on the machine meanwhile hits all kinds."""


def main() -> None:
    """Run everything, print it, write it after every block."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gates", type=int, default=100, help="Latency gates of each kind.")
    parser.add_argument("--loops", type=int, default=10, help="Comparisons with the bare loop.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, slow = folder / "base.onnx", folder / "slow.onnx"
        chain(base, LAYERS)
        chain(slow, SLOWER)
        found: dict[str, Any] = {
            "environment": provenance.environment(),
            "load_before": os.getloadavg()[0],
            "accuracy": accuracy(),
            "gate": gate_seconds(folder),
            "loop": latency.loop(base, asked.loops),
        }
        rows: dict[str, dict[str, list[dict[str, Any]]]] = {
            kind: {way: [] for way in WAYS} for kind in ("alike", "slower")
        }
        for first in range(0, asked.gates, BLOCK):
            for way, beside in WAYS.items():
                for kind, other in (("alike", base), ("slower", slow)):
                    with beside():
                        count = min(BLOCK, asked.gates - first)
                        rows[kind][way] += latency.gates(base, other, count, first=first)
            found["latency"] = {
                kind: {way: latency.summary(held) for way, held in ways.items()}
                for kind, ways in rows.items()
            }
            _write(found | {"rows": rows})
    print(_page(found))


def gate_seconds(folder: Path, runs: int = 5) -> dict[str, float]:
    """Medians over a few runs, the two commands in turns: by the clock, and processor time, which
    leaves other work on the machine out. Bytecode is kept, as an installed package has it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    around = kept | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    result_file(folder / "result.json")
    (folder / "budget.yaml").write_text("drop: 2 %\nsize: 100 KB\nlatency_ratio: 0.9x\n")
    commands = {
        "gate": ["gate", str(folder / "result.json"), "--budget", str(folder / "budget.yaml")],
        "help": ["--help"],
    }
    taken: dict[str, list[float]] = {}
    for _ in range(runs + 1):
        for name, command in commands.items():
            before, start = os.times(), time.perf_counter()
            program = [sys.executable, "-m", "lepton_compress.cli", *command]
            done = subprocess.run(program, capture_output=True, check=False, env=around)
            if done.returncode not in (0, 1):
                raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr.decode()}")
            after = os.times()
            spent = after.children_user + after.children_system
            used = spent - before.children_user - before.children_system
            taken.setdefault(f"{name}_clock", []).append(time.perf_counter() - start)
            taken.setdefault(name, []).append(used)
    return {name: float(np.median(each[1:])) for name, each in taken.items()}


def _write(found: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "measuring.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "measuring.md").write_text(_page(found))


def _page(found: dict[str, Any]) -> str:
    about, took = found["environment"], found["gate"]
    libraries = ", ".join(f"{name} {held}" for name, held in about["libraries"].items())
    count = found["latency"]["alike"]["quiet"]["gates"]
    lines = [
        "# Can the gates be trusted?",
        "",
        (
            f"`python -m benchmarks.measuring --gates {count}` on {about['cpu']['name']}, "
            f"{about['cpu']['cores']} cores, one thread measured; load before "
            f"{found['load_before']:.1f}. Python {about['python']}, {libraries}."
        ),
        "",
        (
            "Latency gates at 1.05x; `slower` has a tenth more operators. `busy`: another process "
            "computes all the time on the other core; `quiet`: none of ours does, beside the load "
            "that the machine had before. `strictly`: PASS, FAIL and INCONCLUSIVE of the same "
            "measurement where the whole interval must meet the limit."
        ),
        "",
        "| artifacts | machine | PASS | FAIL | INCONCLUSIVE | strictly | ratio | one gate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, ways in found["latency"].items():
        for way, each in ways.items():
            low, high = each["ratio_range"]
            counts = [each["point"].get(name, 0) for name in VERDICTS]
            strictly = ", ".join(str(each["strict"].get(name, 0)) for name in VERDICTS)
            cells = [kind, way, *map(str, counts), strictly]
            cells.append(f"{each['ratio_median']:.3f} ({low:.3f} to {high:.3f})")
            cells.append(f"{each['seconds_median']:.1f} s")
            lines.append("| " + " | ".join(cells) + " |")
    loop = found["loop"]
    lines += [
        "",
        (
            f"The reported median over that of a bare loop in a process of its own, "
            f"{loop['repeats']} times: {loop['ratio']:.3f}x in the middle (95 % interval "
            f"{loop['ratio_interval'][0]:.3f} to {loop['ratio_interval'][1]:.3f}), each "
            f"{loop['ratio_range'][0]:.3f} to {loop['ratio_range'][1]:.3f}; one bare loop over the "
            f"one before it: {loop['bare_to_bare_range'][0]:.3f} to "
            f"{loop['bare_to_bare_range'][1]:.3f}."
        ),
        "",
        (
            f"`lepton-compress gate` on a result takes {took['gate']:.2f} s of processor time "
            f"({took['gate_clock']:.2f} s by the clock), `--help` {took['help']:.2f} s "
            f"({took['help_clock']:.2f} s)."
        ),
        "",
        (
            f"Drops planted in {SAMPLES} samples, judged by a 2 % gate, {RESAMPLINGS:,} "
            "resamplings. `covered`: the 95 % interval of the drop holds what was planted."
        ),
        "",
        "| planted | strict PASS | strict FAIL | undecided | point PASS | point FAIL | covered |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["accuracy"]:
        shares = " | ".join(f"{100 * row[key]:.1f} %" for key in row if key != "planted")
        lines.append(f"| {100 * row['planted']:.0f} % | {shares} |")
    lines += [
        "",
        (
            "At the limit itself (2 %) a strict PASS or FAIL is the error that a 95 % interval "
            "allows: about 2.5 % to each side; by point it is a coin."
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
