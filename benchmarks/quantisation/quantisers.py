"""The contestants, each in a process of its own: `python -m benchmarks.quantisation.quantisers NAME
float.onnx calibration.npy out.onnx` prints one line of JSON with seconds and peak memory."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OPENVINO = "nncf on openvino"
METHODS = ("minmax", "percentile", "entropy", "mse")
TYPES = ("uint8", "int8")
PEER_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


def ours(parameters: dict[str, Any]) -> Callable[[Path, np.ndarray, Path], None]:
    """Our step `quantize`."""

    def run(source: Path, images: np.ndarray, out: Path) -> None:
        import onnx

        from lepton_compress import registry
        from lepton_compress.artifacts import Dataset, Model, Split, StepContext
        from lepton_compress.load import forms
        from lepton_compress.report.silent import Silent

        graph = onnx.load(source)
        model = Model("graph", graph, *forms.signature(graph))
        split = Split({model.inputs[0].name: images})
        data = Dataset(split, split, split, "")
        context = StepContext(data, lambda: model, seed=0, threads=2, observer=Silent())
        step = registry.get("step", "quantize")
        made = step.function(model, step.params.model_validate(parameters), context)
        out.write_bytes(made.model.value.SerializeToString())

    return run


def auto(source: Path, images: np.ndarray, out: Path) -> None:
    """Our step `quantize: auto`, for one thread, with the images that neither calibrate nor
    evaluate to judge by; they lie beside the calibration images."""
    import onnx

    from lepton_compress import registry
    from lepton_compress.artifacts import Dataset, Model, Place, Split, StepContext
    from lepton_compress.load import forms
    from lepton_compress.metrics import OnOutput, accuracy
    from lepton_compress.report.silent import Silent

    graph = onnx.load(source)
    model = Model("graph", graph, *forms.signature(graph))
    name = model.inputs[0].name
    free = np.load(source.parent / "free.npz")
    calibration = Split({name: images})
    train = Split({name: free["images"]}, free["labels"])
    step = registry.get("step", "quantize_auto")
    context = StepContext(
        Dataset(train, calibration, calibration, ""),
        lambda: model,
        seed=0,
        threads=2,
        observer=Silent(),
        targets=(Place("one-thread", "onnxruntime-cpu", 1, 1),),
        metric=lambda outputs, labels: accuracy(outputs, labels, OnOutput(), Path()),
    )
    made = step.function(model, step.params(), context)
    for each in made.statistics["tried"]:
        print(json.dumps(each), file=sys.stderr)
    print(made.notes[0], file=sys.stderr)
    out.write_bytes(made.model.value.SerializeToString())


def peer(method: str, activations: str) -> Callable[[Path, np.ndarray, Path], None]:
    """ONNX Runtime's own `quantize_static`, at its best: per channel."""

    def run(source: Path, images: np.ndarray, out: Path) -> None:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.rows = iter(range(len(images)))

            def get_next(self) -> dict[str, np.ndarray] | None:
                row = next(self.rows, None)
                return None if row is None else {"inputs": images[row : row + 1]}

        logging.disable(logging.WARNING)
        quantize_static(
            source,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=getattr(CalibrationMethod, PEER_METHODS[method]),
        )

    return run


def contestants() -> dict[str, Callable[[Path, np.ndarray, Path], None]]:
    """By name."""
    found = {
        f"ours {method} nearest": ours({"calibration": method, "rounding": "nearest"})
        for method in METHODS
    }
    found |= {"ours": ours({}), "ours auto": auto}
    found |= {
        f"onnxruntime {method} {kind}": peer(method, kind)
        for method in PEER_METHODS
        for kind in TYPES
    }
    from benchmarks.quantisation import openvino

    return found | {OPENVINO: openvino.quantize}


def main() -> None:
    """Run one."""
    name, source, images, out = sys.argv[1:]
    held = np.load(images, mmap_mode="r")
    before, start = peak(), time.perf_counter()
    contestants()[name](Path(source), held, Path(out))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mb": peak() / 1024, "start_mb": before / 1024}))


def peak() -> int:
    """The most memory held so far, in KB. Not ru_maxrss, which begins with the parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
