"""The reference models side by side: `LEPTON_DATA=... python -m benchmarks.quantisation.reference`.

Float, our `quantize: auto`, and ONNX Runtime's own quantisers: static in both activation types,
after its own pre-processing, and dynamic. Accuracy is on each model's evaluation split, latency in
turns on one thread. Writes benchmarks/results/reference.json and .md.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tasks import TASKS, Task
from lepton_compress import provenance, registry
from lepton_compress.artifacts import Model, Place, Split, StepContext
from lepton_compress.evaluate import predict
from lepton_compress.export.lower import lower
from lepton_compress.load.forms import input_specs
from lepton_compress.metrics import OnOutput, accuracy
from lepton_compress.profile.measure import Limits, Subject, measure
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.silent import Silent
from lepton_compress.statistics import mean_interval, paired_drop_interval
from lepton_compress.targets.onnxruntime_cpu import onnxruntime_cpu

RESULTS = Path(__file__).resolve().parent.parent / "results"
TARGET = TargetSpec(name="one-thread", runtime="onnxruntime-cpu", threads=1, batch=1)
NAMES = ["resnet8", "mobilenet_v1_025", "keyword_dscnn", "keyword_gru", "keyword_lstm"]
NAMES += ["sentiment_transformer", "text_cnn"]
TOLERATED = 0.01
"""Drop beyond which a setting is not the best, however fast."""


def ours(model: Model, task: Task, source: Path, out: Path) -> str:
    """Our `quantize: auto`; what it found."""
    step = registry.get("step", "quantize_auto")
    context = StepContext(
        task.data,
        lambda: model,
        seed=0,
        threads=2,
        observer=Silent(),
        targets=(Place(TARGET.name, TARGET.runtime, 1, 1),),
        metric=lambda outputs, labels: accuracy(outputs, labels, OnOutput(), Path()),
    )
    made = step.function(model, step.params(), context)
    out.write_bytes(made.model.value.SerializeToString())
    return str(made.declined or made.notes[0])


def static(kind: str) -> Callable[[Model, Task, Path, Path], str]:
    """ONNX Runtime's `quantize_static`, per channel, min-max."""

    def run(model: Model, task: Task, source: Path, out: Path) -> str:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        rows = iter(task.data.calibration.batches(1, 128))

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(rows, None)

        activations = QuantType.QUInt8 if kind == "uint8" else QuantType.QInt8
        quantize_static(source, out, Reader(), per_channel=True, activation_type=activations)
        return ""

    return run


def dynamic(model: Model, task: Task, source: Path, out: Path) -> str:
    """ONNX Runtime's `quantize_dynamic`, per channel."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, out, per_channel=True)
    return ""


CONTESTANTS: dict[str, Callable[[Model, Task, Path, Path], str]] = {
    "ours auto": ours,
    "onnxruntime static uint8": static("uint8"),
    "onnxruntime static int8": static("int8"),
    "onnxruntime dynamic": dynamic,
}


def main() -> None:
    """Run all models, or those named."""
    logging.disable(logging.WARNING)
    names = sys.argv[1:] or NAMES
    held: dict[str, Any] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            held[name] = compared(TASKS[name](name), Path(folder))
        for line in lines(name, held[name]):
            print(line, flush=True)
    environment = provenance.environment()
    text = json.dumps({"environment": environment, "models": held}, indent=1)
    (RESULTS / "reference.json").write_text(text + "\n")
    (RESULTS / "reference.md").write_text(page(held, environment))


def compared(task: Task, folder: Path) -> dict[str, Any]:
    """Rows by artifact."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = list(task.data.calibration.inputs)
    samples = Split({name: task.data.calibration.inputs[name][:2] for name in names})
    specs = input_specs(samples.inputs, names)
    model = lower(Model("module", task.network, specs, ("scores",)), samples)
    files = {"float": folder / "float.onnx"}
    files["float"].write_bytes(model.value.SerializeToString())
    ready = folder / "ready.onnx"
    quant_pre_process(files["float"], ready)
    rows: dict[str, Any] = {"float": {}}
    for number, (name, quantise) in enumerate(CONTESTANTS.items()):
        out, start = folder / f"{number}.onnx", time.perf_counter()
        try:
            said = quantise(model, task, ready, out)
            onnxruntime_cpu(out, 1)
        except Exception as error:  # what a peer's quantiser raises is a result, too
            rows[name] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            continue
        rows[name] = {"seconds": time.perf_counter() - start, "said": said}
        files[name] = out
    _accuracies(task, files, rows)
    _latencies(task, files, rows)
    return rows


def _accuracies(task: Task, files: dict[str, Path], rows: dict[str, Any]) -> None:
    held = task.data.evaluation
    base: np.ndarray | None = None
    for name, file in files.items():
        outputs = predict(onnxruntime_cpu(file, 2), held, Silent())
        hits = (next(iter(outputs.values())).argmax(1) == held.targets).astype(float)
        base = hits if base is None else base
        drop, interval = paired_drop_interval(base, hits, higher_is_better=True)
        value, _ = mean_interval(hits)
        rows[name] |= {"accuracy": value, "drop": drop, "drop_interval": interval}
        rows[name]["bytes"] = file.stat().st_size


def _latencies(task: Task, files: dict[str, Path], rows: dict[str, Any]) -> None:
    profiles = measure(
        [Subject(name, "onnx", file) for name, file in files.items()],
        baseline="float",
        target=TARGET,
        inputs={name: array[:1] for name, array in task.data.evaluation.inputs.items()},
        limits=Limits(),
        rounds=30,
        cap=30.0,
        seed=0,
        observer=Silent(),
    )
    for each in profiles:
        ratio = {"ratio": each.ratio, "ratio_interval": each.ratio_interval}
        rows[each.candidate] |= {"p50_seconds": each.latency["p50"], **ratio}


def best(rows: dict[str, Any]) -> str:
    """ONNX Runtime's setting that is fastest within a point of accuracy, else the most accurate."""
    peers = {
        name: row
        for name, row in rows.items()
        if name not in ("float", "ours auto")
        if "drop" in row
    }
    fine = {name: row for name, row in peers.items() if row["drop"] <= TOLERATED}
    if fine:
        return min(fine, key=lambda name: fine[name]["p50_seconds"])
    return max(peers, key=lambda name: peers[name]["accuracy"], default="")


def lines(model: str, rows: dict[str, Any]) -> Iterator[str]:
    """Of the table."""
    chosen = best(rows)
    for name, row in rows.items():
        title = f"**{name}**" if name in ("ours auto", chosen) else name
        if "failed" in row:
            yield f"| {model} | {title} | failed: {row['failed'][:80]} |  |  |  |  |  |"
            continue
        low, high = (100 * end for end in row["drop_interval"])
        drop = f"{100 * row['drop']:.2f} ({low:.2f} to {high:.2f})" if name != "float" else ""
        near, far = row["ratio_interval"] or (1.0, 1.0)
        cells = [
            model,
            title,
            f"{100 * row['accuracy']:.2f}",
            drop,
            f"{1e6 * row['p50_seconds']:.1f}",
            f"{row['ratio']:.2f} ({near:.2f} to {far:.2f})",
            f"{row['bytes'] / 1e3:.0f}",
            f"{row['seconds']:.1f}" if "seconds" in row else "",
        ]
        yield f"| {' | '.join(cells)} |"


def page(held: dict[str, Any], environment: dict[str, Any]) -> str:
    """The text of benchmarks/results/reference.md."""
    versions = ", ".join(f"{name} {each}" for name, each in environment["libraries"].items())
    head = [
        "# Quantisation of the reference models",
        "",
        (
            f"`python -m benchmarks.quantisation.reference` on {environment['cpu']['name']}, one "
            f"thread; {versions}. In bold ours, and the best setting of ONNX Runtime's own "
            "quantisers: the fastest that loses at most a point of accuracy, else the most "
            "accurate."
        ),
        "",
        (
            "| model | artifact | accuracy % | drop, points (95 %) | p50 us | of float (95 %) "
            "| KB | quantise s |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    said = [
        f"- {model}: {rows['ours auto']['said']}"
        for model, rows in held.items()
        if rows.get("ours auto", {}).get("said")
    ]
    rows = [line for model, each in held.items() for line in lines(model, each)]
    return "\n".join([*head, *rows, "", "What `auto` says:", "", *said]) + "\n"


if __name__ == "__main__":
    main()
