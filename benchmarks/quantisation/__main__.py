"""Side by side in one run: `LEPTON_DATA=... python -m benchmarks.quantisation [NAME...]`.

Float, ONNX Runtime's own static quantisation in its settings, and ours, on EfficientNet-Lite0:
accuracy on 800 images with the drop's paired interval, latency in turns on one thread, and what
quantising cost. Writes benchmarks/results/quantisation.json and .md. Needs
`pip install 'lepton-compress[benchmarks]'`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quantisation import subject
from benchmarks.quantisation.quantisers import contestants
from lepton_compress import provenance
from lepton_compress.artifacts import Model, Profile, Split
from lepton_compress.evaluate import predict
from lepton_compress.export.lower import lower
from lepton_compress.load.forms import input_specs
from lepton_compress.profile.measure import Limits, Subject, measure
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.silent import Silent
from lepton_compress.statistics import mean_interval, paired_drop_interval
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
    files, costs = {"float": source}, {}
    for number, name in enumerate(names):
        out = folder / f"{number}.onnx"
        words = [name, str(source), str(folder / "calibration.npy"), str(out)]
        command = [sys.executable, "-m", "benchmarks.quantisation.quantisers", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
        files[name], costs[name] = out, json.loads(done.stdout.splitlines()[-1])
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
        outputs = predict(onnxruntime_cpu(file, 2), Split({"inputs": images}), Silent())
        answers[name] = next(iter(outputs.values())).argmax(1)
        hits[name] = (answers[name] == labels).astype(float)
        accuracy, interval = mean_interval(hits[name])
        drop, drop_interval = paired_drop_interval(hits["float"], hits[name], higher_is_better=True)
        rows[name] = {
            "accuracy": accuracy,
            "accuracy_interval": interval,
            "drop": drop,
            "drop_interval": drop_interval,
            "flips": float((answers[name] != answers["float"]).mean()),
            "bytes": file.stat().st_size,
        }
    return rows


def _latency(files: dict[str, Path], image: np.ndarray, rows: dict[str, Any]) -> None:
    profiles: list[Profile] = measure(
        [Subject(name, "onnx", file) for name, file in files.items()],
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
