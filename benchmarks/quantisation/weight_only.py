"""Weights in blocks, side by side in one run: `LEPTON_DATA=... python -m
benchmarks.quantisation.weight_only`.

A small transformer is trained on film reviews and quantised: nearest rounding, each algorithm of
`quantize_weights`, its default, its default with a mean of 4.5 and 5 bits, larger blocks, and
dynamic int8, float16 and bfloat16 beside them. Tells accuracy, the error of the logits, size, and
latency at 1 and 128 rows (tokens) on one thread. Writes benchmarks/results/weight_only.json and
.md. WEIGHTS is a file to keep the trained network in, which takes minutes to make.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quantisation import reviews
from lepton_compress import provenance, registry
from lepton_compress.artifacts import Dataset, Model, Split, StepContext
from lepton_compress.compress.account import signal_to_noise
from lepton_compress.evaluate import predict
from lepton_compress.export.lower import OPSET, clean
from lepton_compress.load import forms
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.measure import measure
from lepton_compress.profile.session import Limits
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.silent import Silent
from lepton_compress.targets.onnxruntime_cpu import onnxruntime_cpu

RESULTS = Path(__file__).resolve().parent.parent / "results"
ROWS = {"1 row": (1, 1), "128 rows": (4, 32)}
"""Tokens in one call: sentences by their length."""
NEAREST = "4 bits, nearest"
CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    NEAREST: ("quantize_weights", {"algorithm": "rtn"}),
    "4 bits, HQQ": ("quantize_weights", {"algorithm": "hqq"}),
    "4 bits, AWQ": ("quantize_weights", {"algorithm": "awq"}),
    "4 bits, GPTQ": ("quantize_weights", {"algorithm": "gptq"}),
    "4 bits, auto": ("quantize_weights", {}),
    "4 bits, auto, mean 4.5": ("quantize_weights", {"mean_bits": 4.5}),
    "4 bits, auto, mean 5": ("quantize_weights", {"mean_bits": 5}),
    "4 bits, nearest, blocks of 128": ("quantize_weights", {"algorithm": "rtn", "block_size": 128}),
    "4 bits, auto, mean 5, blocks of 128": (
        "quantize_weights",
        {"mean_bits": 5, "block_size": 128},
    ),
    "4 bits, auto, mean 5, blocks of 256": (
        "quantize_weights",
        {"mean_bits": 5, "block_size": 256},
    ),
    "4 bits, auto, in float32": ("quantize_weights", {"compute": "float32"}),
    "8 bits, auto": ("quantize_weights", {"bits": 8}),
    "dynamic int8": ("quantize_dynamic", {}),
    "float16": ("float16", {}),
    "bfloat16": ("bfloat16", {}),
}


def main() -> None:
    """Run all contestants."""
    splits = reviews.load()
    net = reviews.trained(splits, Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    float_model = _lowered(net)
    rows: dict[str, dict[str, Any]] = {"float": {"seconds": 0.0}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"float": folder / "0.onnx"}
        files["float"].write_bytes(float_model.value.SerializeToString())
        for number, (title, (step, parameters)) in enumerate(CONTESTANTS.items(), 1):
            files[title] = folder / f"{number}.onnx"
            rows[title] = _quantise(step, parameters, float_model, splits, files[title])
            print(f"{title}: {rows[title]['seconds']:.1f} s", flush=True)
        _accuracy(files, splits["evaluation"], rows)
        for title, (sentences, length) in ROWS.items():
            _latency(files, splits["evaluation"][0][:sentences, :length], title, rows)
    environment = provenance.environment()
    RESULTS.mkdir(exist_ok=True)
    about = {"environment": environment, "samples": len(splits["evaluation"][1])}
    about |= {"rows": rows}
    (RESULTS / "weight_only.json").write_text(json.dumps(about, indent=1) + "\n")
    page = _page(rows, environment)
    (RESULTS / "weight_only.md").write_text(page)
    print(page)


def _lowered(net: torch.nn.Module) -> Model:
    """The graph, of any number of sentences of any one length."""
    sizes = {"tokens": {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=64)}}
    program = torch.onnx.export(
        net,
        kwargs={"tokens": torch.ones(2, 8, dtype=torch.int64)},
        dynamic_shapes=sizes,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        external_data=False,
        input_names=["tokens"],
        output_names=["scores"],
    )
    assert program is not None
    graph = clean(program.model_proto)
    return Model("graph", graph, *forms.signature(graph))


def _quantise(
    step: str, parameters: dict[str, Any], model: Model, splits: reviews.Splits, file: Path
) -> dict[str, Any]:
    parts = {name: Split({"tokens": tokens}, labels) for name, (tokens, labels) in splits.items()}
    data = Dataset(parts["train"], parts["calibration"], parts["evaluation"], "")
    context = StepContext(data, lambda: model, seed=0, threads=1, observer=Silent())
    plugin = registry.get("step", step)
    start = time.perf_counter()
    made = plugin.function(model, plugin.params.model_validate(parameters), context)
    seconds = time.perf_counter() - start
    file.write_bytes(made.model.value.SerializeToString())
    told = {each: made.statistics.get(each) for each in ("algorithms", "bits")}
    return {"step": step, "parameters": parameters, "seconds": seconds} | told


def _accuracy(
    files: dict[str, Path], split: tuple[np.ndarray, np.ndarray], rows: dict[str, Any]
) -> None:
    tokens, labels = split
    reference = None
    for title, file in files.items():
        scores = predict(onnxruntime_cpu(file, 2), Split({"tokens": tokens}), Silent())["scores"]
        reference = scores if reference is None else reference
        rows[title] |= {
            "accuracy": float((scores.argmax(1) == labels).mean()),
            "flips": float((scores.argmax(1) != reference.argmax(1)).mean()),
            "logit_error": float(np.square(scores - reference, dtype=np.float64).mean()),
            "sqnr_db": signal_to_noise(reference, scores),
            "bytes": file.stat().st_size,
        }
    for row in rows.values():
        row["of_nearest"] = row["logit_error"] / rows[NEAREST]["logit_error"]


def _latency(files: dict[str, Path], tokens: np.ndarray, title: str, rows: dict[str, Any]) -> None:
    profiles = measure(
        [Subject(name, "onnx", file) for name, file in files.items()],
        baseline="float",
        target=TargetSpec(
            name="one-thread", runtime="onnxruntime-cpu", threads=1, batch=len(tokens)
        ),
        inputs={"tokens": np.ascontiguousarray(tokens)},
        limits=Limits(),
        rounds=30,
        cap=60.0,
        seed=0,
        observer=Silent(),
    )
    for each in profiles:
        rows[each.candidate][title] = {
            "p50_seconds": each.latency["p50"],
            "ratio": each.ratio,
            "ratio_interval": each.ratio_interval,
            "noise": each.noise,
        }


def _page(rows: dict[str, Any], environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {held}" for name, held in environment["libraries"].items())
    about = f"Encoder of {reviews.LAYERS} layers, hidden {reviews.HIDDEN}, feed-forward "
    about += f"{reviews.WIDE}, trained on film reviews; {reviews.CALIBRATION} sentences calibrate, "
    about += f"{reviews.EVALUATION} evaluate; blocks of 32, multiplied in int8, but where said."
    head = "| artifact | accuracy % | flips % | logit error (mean square) | of nearest 4 bits | MB "
    head += "| 1 row, of float (95 %) | 128 rows, of float (95 %) | quantise s |"
    lines = [
        "# Weights of a transformer in blocks",
        "",
        about,
        "",
        f"{environment['cpu']['name']}, one thread; {versions}",
        "",
        head,
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for title, row in rows.items():
        ratios = []
        for place in ROWS:
            low, high = row[place]["ratio_interval"] or (1.0, 1.0)
            ratios.append(f"{row[place]['ratio']:.2f} ({low:.2f} to {high:.2f})")
        cells = [
            title,
            f"{100 * row['accuracy']:.2f}",
            f"{100 * row['flips']:.2f}",
            f"{row['logit_error']:.1e}",
            f"{row['of_nearest']:.2f}",
            f"{row['bytes'] / 1e6:.2f}",
            *ratios,
            f"{row['seconds']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    noise = {place: rows["float"][place]["noise"] for place in ROWS}
    told = ", ".join(f"{value:.3f} at {place}" for place, value in noise.items())
    return "\n".join([*lines, "", f"Float against itself: {told}."]) + "\n"


if __name__ == "__main__":
    main()
