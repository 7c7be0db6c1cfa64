"""MNIST in colour, as no data of MLPerf Tiny is at hand."""

from __future__ import annotations

from typing import Any

from reference_models.coloured import load_coloured


def load() -> dict[str, Any]:
    """Pictures (samples, 96, 96, 3) uint8; the label is whether the digit is even."""
    return load_coloured(96, train=3000, even=True)
