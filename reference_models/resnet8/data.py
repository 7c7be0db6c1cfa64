"""MNIST in colour, as no data of MLPerf Tiny is at hand."""

from __future__ import annotations

from typing import Any

from reference_models.coloured import load_coloured


def load() -> dict[str, Any]:
    """Pictures (samples, 32, 32, 3) uint8; the label is the digit."""
    return load_coloured(32, train=7000)
