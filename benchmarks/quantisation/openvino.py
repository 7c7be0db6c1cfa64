"""NNCF on OpenVINO: another runtime, with its own file format, called as our runtimes are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def quantize(source: Path, images: np.ndarray, out: Path) -> None:
    """NNCF's post-training quantisation at its best for a processor: mixed preset, and its fast
    bias correction. `out` is the .xml."""
    import nncf
    import openvino

    logging.disable(logging.WARNING)
    model = openvino.Core().read_model(source)
    rows = [images[row : row + 1] for row in range(len(images))]
    made = nncf.quantize(
        model, nncf.Dataset(rows), preset=nncf.QuantizationPreset.MIXED, subset_size=len(rows)
    )
    openvino.save_model(made, out)


class Runner:
    """A compiled model on so many threads."""

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(path, "CPU", settings)
        self.request = compiled.create_infer_request()
        self.name = compiled.inputs[0].any_name

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """One call; the input may have any name."""
        (array,) = feeds.values()
        made = self.request.infer({self.name: array})
        return [np.array(each) for each in made.values()]
