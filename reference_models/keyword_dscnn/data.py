"""Spoken digits as the network takes them: MFCCs, which a device computes before it."""

from __future__ import annotations

from typing import Any

from reference_models import spoken_digits


def load(seed: int = 0) -> dict[str, Any]:
    """Splits of features (samples, 1, 49, 10) float32 with labels, the dataset's own split.

    Raises:
        InputError: the recordings do not lie in `LEPTON_DATA`.
    """
    parts = spoken_digits.load(seed=seed)
    made = {
        split: {
            "inputs": {
                "features": spoken_digits.features(
                    spoken_digits.MFCCS, parts[split]["inputs"]["sound"]
                )
            },
            "targets": parts[split]["targets"],
        }
        for split in ("train", "calibration", "evaluation")
    }
    return {**made, "notes": parts["notes"]}
