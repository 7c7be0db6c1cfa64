"""Side by side in one run: `LEPTON_DATA=... python -m benchmarks.quantisation [NAME...]`.

Float, ONNX Runtime's own static quantisation in its settings, NNCF on OpenVINO, and ours, on
EfficientNet-Lite0: accuracy on 800 images with the drop's paired interval, latency in turns on one
thread, and what quantising cost. Writes benchmarks/results/quantisation.json and .md. Needs
`pip install 'lepton-compress[benchmarks]'`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quantisation import openvino, subject
from benchmarks.quantisation.quantisers import OPENVINO, contestants
from lepton_compress import provenance
from lepton_compress.artifacts import Model, Profile, Split
from lepton_compress.evaluate import predict
from lepton_compress.export.lower import lower
from lepton_compress.load.forms import input_specs
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.measure import measure
from lepton_compress.profile.session import Limits
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.silent import Silent
from lepton_compress.statistics import (
    bootstrap_median_ratio,
    mean_interval,
    paired_drop_interval,
)
from lepton_compress.targets.onnxruntime_cpu import onnxruntime_cpu

RESULTS = Path(__file__).resolve().parent.parent / "results"


def main() -> None:
    """Run all contestants, or those named."""
    names = sys.argv[1:] or list(contestants())
    splits = subject.load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, costs = _quantise(names, splits, folder)
        rows = _accuracy(files, splits["evaluation"])
        _latency(files, splits["evaluation"][0][:1], rows)
    for each in names:
        rows[each] |= costs[each]
    RESULTS.mkdir(exist_ok=True)
    about = {"environment": provenance.environment(), "samples": len(splits["evaluation"][1])}
    text = json.dumps(about | {"rows": rows}, indent=1)
    (RESULTS / "quantisation.json").write_text(text + "\n")
    page = _page(rows, about["environment"])
    (RESULTS / "quantisation.md").write_text(page)
    print(page)


def _quantise(
    names: list[str], splits: dict[str, Any], folder: Path
) -> tuple[dict[str, Path], dict[str, Any]]:
    images = splits["calibration"][0]
    feeds = {"inputs": images[:2]}
    module = Model("module", subject.network(), input_specs(feeds, ["inputs"]), ("scores",))
    source = folder / "float.onnx"
    source.write_bytes(lower(module, Split(feeds)).value.SerializeToString())
    np.save(folder / "calibration.npy", images)
    free, labels = splits["train"]
    np.savez(folder / "free.npz", images=free, labels=labels)
    files, costs = {"float": source}, {}
    for number, name in enumerate(names):
        out = folder / f"{number}.{'xml' if name == OPENVINO else 'onnx'}"
        words = [name, str(source), str(folder / "calibration.npy"), str(out)]
        command = [sys.executable, "-m", "benchmarks.quantisation.quantisers", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
        files[name], costs[name] = out, json.loads(done.stdout.splitlines()[-1])
        if name == "ours auto":
            print(done.stderr, flush=True)
        print(
            f"{name}: {costs[name]['seconds']:.1f} s, {costs[name]['peak_mb']:.0f} MB", flush=True
        )
    return files, costs


def _accuracy(files: dict[str, Path], split: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    images, labels = split
    rows: dict[str, Any] = {}
    hits: dict[str, np.ndarray] = {}
    answers: dict[str, np.ndarray] = {}
    for name, file in files.items():
        answers[name] = _answers(file, images)
        hits[name] = (answers[name] == labels).astype(float)
        accuracy, interval = mean_interval(hits[name])
        drop, drop_interval = paired_drop_interval(hits["float"], hits[name], higher_is_better=True)
        rows[name] = {
            "accuracy": accuracy,
            "accuracy_interval": interval,
            "drop": drop,
            "drop_interval": drop_interval,
            "flips": float((answers[name] != answers["float"]).mean()),
            "bytes": sum(each.stat().st_size for each in file.parent.glob(f"{file.stem}.*")),
        }
    return rows


def _answers(file: Path, images: np.ndarray) -> np.ndarray:
    """The class of each image."""
    if file.suffix != ".xml":
        outputs = predict(onnxruntime_cpu(file, 2), Split({"inputs": images}), Silent())
        return next(iter(outputs.values())).argmax(1)
    runner = openvino.Runner(file, 2)
    each = [runner.run({"inputs": images[row : row + 1]})[0] for row in range(len(images))]
    return np.concatenate(each).argmax(1)


def _in_turns(
    files: dict[str, Path], image: np.ndarray, names: list[str]
) -> tuple[float, tuple[float, float], float]:
    """NNCF's latency to float's with its interval, and its median seconds. It needs another
    runtime, so they take turns in this process."""
    runners = [
        onnxruntime_cpu(files["float"], 1) if name == "float" else openvino.Runner(files[name], 1)
        for name in names
    ]
    medians: list[list[float]] = [[] for _ in names]
    for turn in range(60):
        for held, runner in zip(medians, runners, strict=True):
            taken = []
            for _ in range(5):
                start = time.perf_counter()
                runner.run({"inputs": image})
                taken.append(time.perf_counter() - start)
            if turn >= 10:
                held.append(float(np.median(taken)))
    ratio, interval = bootstrap_median_ratio(medians[1], medians[0])
    return ratio, interval, float(np.median(medians[1]))


def _latency(files: dict[str, Path], image: np.ndarray, rows: dict[str, Any]) -> None:
    ours = {name: file for name, file in files.items() if file.suffix == ".onnx"}
    profiles: list[Profile] = measure(
        [Subject(name, "onnx", file) for name, file in ours.items()],
        baseline="float",
        target=TargetSpec(name="one-thread", runtime="onnxruntime-cpu", threads=1, batch=1),
        inputs={"inputs": image},
        limits=Limits(),
        rounds=40,
        cap=120.0,
        seed=0,
        observer=Silent(),
    )
    for each in profiles:
        rows[each.candidate] |= {
            "p50_seconds": each.latency["p50"],
            "ratio": each.ratio,
            "ratio_interval": each.ratio_interval,
            "noise": each.noise,
        }
    for name in files.keys() - ours.keys():
        ratio, interval, seconds = _in_turns(files, image, ["float", name])
        rows[name] |= {"p50_seconds": seconds, "ratio": ratio, "ratio_interval": interval}


def _page(rows: dict[str, Any], environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {held}" for name, held in environment["libraries"].items())
    lines = [
        "# Quantisation of EfficientNet-Lite0",
        "",
        f"{environment['cpu']['name']}, one thread; {versions}",
        "",
        (
            "| artifact | top-1 % | drop, points (95 %) | flips % | p50 ms | of float (95 %) "
            "| MB | quantise s | peak MB |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        low, high = (100 * end for end in row["drop_interval"])
        near, far = row["ratio_interval"] or (1.0, 1.0)
        cost = [f"{row[key]:.1f}" if key in row else "" for key in ("seconds", "peak_mb")]
        cells = [
            name,
            f"{100 * row['accuracy']:.2f}",
            "" if name == "float" else f"{100 * row['drop']:.2f} ({low:.2f} to {high:.2f})",
            f"{100 * row['flips']:.2f}",
            f"{1000 * row['p50_seconds']:.2f}",
            f"{row['ratio']:.2f} ({near:.2f} to {far:.2f})",
            f"{row['bytes'] / 1e6:.2f}",
            *cost,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    noise = next(iter(rows.values()))["noise"]
    return "\n".join([*lines, "", f"Float against itself: {noise:.3f}."]) + "\n"


if __name__ == "__main__":
    main()
