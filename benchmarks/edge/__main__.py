"""LiteRT artifacts of the reference models: `LEPTON_DATA=... python -m benchmarks.edge [MODEL...]`.

For each model float and int8 artifacts in both formats, made, verified and measured by the
pipeline itself: size beside float and beside ai-edge-quantizer's plain output, agreement of LiteRT
with ONNX Runtime, accuracy, latency on this CPU, the arena of TensorFlow Lite Micro, and what every
Ethos-U makes of them by Vela's estimates. Writes benchmarks/results/edge.json and .md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.edge.peer import plain_int8
from benchmarks.tasks import TASKS
from lepton_compress import provenance
from lepton_compress.artifacts import Profile, Progress, RunResult
from lepton_compress.library import compress
from lepton_compress.report.silent import Silent
from lepton_compress.verify import AGREEMENT

RESULTS = Path(__file__).resolve().parent.parent / "results"
TINY = ("mnist_cnn", "resnet8", "mobilenet_v1_025", "keyword_dscnn", "dense_autoencoder")
"""Those of MLPerf Tiny's shapes, which must fit every Ethos-U."""
NPUS = [f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)]
NPUS += [f"ethos-u65-{macs}" for macs in (256, 512)]
NPUS += [f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)]
FORMS: dict[str, dict[str, str]] = {
    **{key: {"borders": "int8"} for key in TINY},
    "keyword_gru": {"recurrent": "step", "weights": "dynamic"},
    "keyword_lstm": {"weights": "dynamic"},
}
"""Parameters of the exporter: a GRU leaves as a model of one frame, an LSTM as one operator."""
SHOWN = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")
CPUS = [
    {"name": "onnx", "runtime": "onnxruntime-cpu", "threads": 1},
    {"name": "litert", "runtime": "litert-cpu", "threads": 1},
]
ARENA = "tflite-micro"
PEER = ("int8", "litert")


def main() -> None:
    """Run all models, or those named."""
    logging.disable(logging.WARNING)
    held: dict[str, Any] = {}
    for name in sys.argv[1:] or list(TASKS):
        with tempfile.TemporaryDirectory() as folder:
            held[name] = figures(name, Path(folder))
        print("\n".join(rows(name, held[name])), flush=True)
    environment = provenance.environment()
    text = json.dumps({"environment": environment, "models": held}, indent=1)
    (RESULTS / "edge.json").write_text(text + "\n")
    (RESULTS / "edge.md").write_text(page(held, environment))


class Clock:
    """An observer that adds up what each stage took, by the first word of its title."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def work(self, title: str, total: int | None = None) -> Iterator[Progress]:
        start = time.perf_counter()
        with Silent().work(title, total) as progress:
            yield progress
        stage = title.split()[0]
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def note(self, text: str) -> None:
        """Nothing: the result has it."""


def figures(name: str, folder: Path) -> dict[str, Any]:
    """What a run says of a model."""
    task, npus = TASKS[name](name), name in TINY
    targets: list[Any] = [*CPUS, *([ARENA, *NPUS] if npus else [])]
    clock = Clock()
    result = compress(
        task.network,
        data={
            part: (split.inputs, split.targets) if split.targets is not None else split.inputs
            for part, split in (
                ("train", task.data.train),
                ("calibration", task.data.calibration),
                ("evaluation", task.data.evaluation),
            )
        },
        metrics=[task.metric],
        variants={"int8": ["quantize"]},
        exports=["onnx", {"litert": FORMS.get(name, {})}],
        targets=targets,
        outputs=task.outputs,
        out=folder / "run",
        workspace=folder / "kept",
        observer=clock,
    )
    made = folder / "run" / result.artifact("baseline", "litert").path
    found: dict[str, Any] = {
        "peer_bytes": plain_int8(made, task.data.calibration) if npus else None,
        "seconds": {each: clock.seconds.get(each) for each in ("export", "verify")},
    }
    for candidate in ("baseline", "int8"):
        found[candidate] = {each: _of(result, candidate, each) for each in ("onnx", "litert")}
        found[candidate]["fits"] = {
            each.target: _fit(each)
            for each in result.profiles
            if each.candidate == candidate and each.provenance == "simulated"
        }
    return found


def _of(result: RunResult, candidate: str, format: str) -> dict[str, Any]:
    """Of one artifact."""
    key = (candidate, format)
    score = next(each for each in result.scores if (each.candidate, each.format) == key)
    profile = next(each for each in result.profiles if (each.candidate, each.format) == key)
    return {
        "bytes": result.artifact(candidate, format).bytes,
        "score": score.value,
        "drop": score.drop,
        "drop_interval": score.drop_interval,
        "p50_seconds": profile.latency.get("p50"),
        "ratio": profile.ratio,
        "ratio_interval": profile.ratio_interval,
        "parities": [
            {"metric": each.metric, "against": each.against, "value": each.value}
            for each in result.parities
            if (each.candidate, each.format) == key
        ],
    }


def _fit(profile: Profile) -> dict[str, Any]:
    fit = profile.fit
    return {
        "problem": profile.reason,
        "seconds": fit.seconds if fit else None,
        "ram": fit.ram if fit else None,
        "flash": fit.flash if fit else None,
        "operators": fit.operators if fit else None,
        "cpu_operators": len(fit.fallbacks) if fit else None,
    }


def rows(model: str, held: dict[str, Any]) -> Iterator[str]:
    """Of the first table."""
    for candidate in ("baseline", "int8"):
        for kind in ("onnx", "litert"):
            one = held[candidate][kind]
            whole = held["baseline"][kind]["bytes"] / one["bytes"]
            drop = "" if candidate == "baseline" else f"{100 * one['drop']:.2f}"
            apart = [p["value"] for p in one["parities"] if p["metric"] == AGREEMENT]
            alike = f"{100 * (1 - apart[0]):.2f}" if apart else ""
            beside = held["peer_bytes"] if (candidate, kind) == PEER else None
            peer = f"{beside / 1e3:.1f}" if beside else ""
            cells = [model, "float" if candidate == "baseline" else candidate, kind]
            cells += [
                f"{one['bytes'] / 1e3:.1f}",
                f"{whole:.2f}",
                peer,
                f"{100 * one['score']:.2f}",
            ]
            cells += [drop, alike, f"{1e6 * one['p50_seconds']:.1f}", f"{one['ratio']:.2f}"]
            yield f"| {' | '.join(cells)} |"


def fits(model: str, held: dict[str, Any]) -> Iterator[str]:
    """Of the second table."""
    arena = held["int8"]["fits"].get(ARENA, {})
    npus = {name: held["int8"]["fits"][name] for name in NPUS if name in held["int8"]["fits"]}
    if not npus:
        return
    left = max(each["cpu_operators"] for each in npus.values())
    cells = [model, f"{arena['ram']:,}" if arena.get("ram") else arena.get("problem", "")]
    cells += [f"{len(npus)}", str(left)]
    for name in SHOWN:
        one = npus[name]
        timed = f"{1e3 * one['seconds']:.3f} ms" if one["seconds"] else one["problem"]
        cells.append(f"{timed}, {one['ram'] / 1e3:.0f} KB" if one["ram"] else timed)
    yield f"| {' | '.join(cells)} |"


def page(held: dict[str, Any], environment: dict[str, Any]) -> str:
    """The text of benchmarks/results/edge.md."""
    versions = ", ".join(f"{name} {each}" for name, each in environment["libraries"].items())
    seconds = ", ".join(
        f"{model} {each['seconds']['export'] or 0:.1f} and {each['seconds']['verify'] or 0:.1f}"
        for model, each in held.items()
    )
    about = (
        f"`python -m benchmarks.edge` on {environment['cpu']['name']}, one thread; {versions}. "
        "`peer` is ai-edge-quantizer's plain static int8 output from our float file; `alike` is "
        "the share of evaluation samples that LiteRT and ONNX Runtime classify alike; the time is "
        "beside the float artifact of the same format."
    )
    devices = (
        "Microcontrollers and NPUs, int8. The arena is what TensorFlow Lite Micro allocates; times "
        "and SRAM are simulated: Vela's estimates for the device, not measurements."
    )
    spent = (
        "Seconds in all exports and verifications (float and int8, both formats; the links to the "
        f"torch model among them): {seconds}."
    )
    columns = ["model", "artifact", "format", "KB", "float / it", "peer, KB", "score %"]
    columns += ["drop, points", "alike %", "p50 us", "of float"]
    others = ["model", "arena, bytes", "Ethos-U compiled for", "most CPU operators", *SHOWN]
    lines = ["# LiteRT artifacts of the reference models", "", about, "", *_head(columns)]
    lines += [line for model, each in held.items() for line in rows(model, each)]
    lines += ["", devices, "", *_head(others)]
    lines += [line for model, each in held.items() for line in fits(model, each)]
    return "\n".join([*lines, "", spent, ""])


def _head(columns: list[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]


if __name__ == "__main__":
    main()
