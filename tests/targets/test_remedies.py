"""What is said to help against an operator that a device does not take."""

from __future__ import annotations

import pytest

from lepton_compress.targets.remedies import QUANTISE, remedy

FLOAT = "Operation has tensor with unsupported DataType Float32 (2)"


@pytest.mark.parametrize(
    ("operator", "mixed", "says"),
    [
        ("MEAN", False, QUANTISE),
        ("MEAN", True, "write it as a global average pooling"),
        ("QUANTIZE", True, "it goes when its neighbour"),
        ("SOFTMAX", True, "quantise it as the rest is"),
    ],
)
def test_what_stays_in_float(operator: str, mixed: bool, says: str) -> None:
    assert says in remedy(operator, FLOAT, mixed=mixed)


def test_a_conversion_at_the_border_is_the_exporter_s() -> None:
    assert "borders: int8" in remedy("DEQUANTIZE", FLOAT, edge=True, mixed=True)
