"""What ai-edge-quantizer makes of our float file by its plain static recipe."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lepton_compress.artifacts import Split

SAMPLES = 16


def plain_int8(file: Path, calibration: Split) -> int:
    """Bytes of the int8 file that it writes.

    Args:
        file: a float .tflite file of ours.
        calibration: inputs as the host gives them.
    """
    from ai_edge_quantizer import quantizer, recipe

    from lepton_compress.targets import litert_session

    made = quantizer.Quantizer(str(file), recipe.static_wi8_ai8())
    session = litert_session.opened(file, 1)
    rows: list[dict[str, Any]] = []
    for index in range(min(SAMPLES, len(calibration))):
        given = zip(session.inputs, calibration.inputs.values(), strict=True)
        rows.append(
            {
                tensor.name: tensor.inward(np.asarray(array[index : index + 1]))
                for tensor, array in given
            }
        )
    found = made.calibrate({"serving_default": rows})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.tflite"
        made.quantize(found).export_model(str(path))
        return path.stat().st_size
