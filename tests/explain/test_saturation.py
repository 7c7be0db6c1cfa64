"""Pairs of products beyond 16 bits, against sums done one by one."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compress.explain.saturation import saturating_share
from lepton_compress.explain.weights import Held
from lepton_compress.explain.wiring import Pair
from tests.explain import planting
from tests.explain.planting import Array

PAIR = Pair("x", "x_after", "uint8", scale=1.0, zero_point=0, lowest=0, highest=255)


def held(integers: Array) -> Held:
    return Held("w", "int8", integers.astype(np.float32), integers, 0, False)


@pytest.mark.parametrize(("weight", "share"), [(64, 0.0), (65, 1.0), (127, 1.0), (-127, 1.0)])
def test_the_limit_of_seven_bits(weight: int, share: float) -> None:
    node = planting.node("MatMul", ["x", "w"], "y")
    values = np.full((3, 4), 255.0)
    found = saturating_share(node, held(np.full((4, 2), weight, np.int8)), PAIR, values)
    assert found == share


def test_matrix_product_pair_by_pair() -> None:
    draw = np.random.default_rng(0)
    values = draw.integers(0, 256, (5, 7)).astype(np.float32)
    integers = draw.integers(-127, 128, (7, 3)).astype(np.int8)
    beyond = [
        abs(int(a[k]) * int(w[k]) + int(a[k + 1]) * int(w[k + 1])) > 32767
        for a in values
        for w in integers.T
        for k in (0, 2, 4)
    ]
    node = planting.node("MatMul", ["x", "w"], "y")
    assert saturating_share(node, held(integers), PAIR, values) == pytest.approx(np.mean(beyond))
    turned = planting.node("Gemm", ["x", "w"], "y", transB=1)
    assert saturating_share(turned, held(integers.T), PAIR, values) == pytest.approx(
        np.mean(beyond)
    )


def test_convolution_channels_are_neighbours() -> None:
    # Channel 0 and 1 saturate together at the kernel's middle; a tap away there is nothing.
    values = np.zeros((1, 2, 3, 3), np.float32)
    values[:, :, 1, 1] = 255
    integers = np.zeros((1, 2, 3, 3), np.int8)
    integers[:, :, 1, 1] = 127
    node = planting.node("Conv", ["x", "w"], "y", pads=[1] * 4)
    # 9 places, 9 taps each; one of them meets the values.
    assert saturating_share(node, held(integers), PAIR, values) == pytest.approx(1 / 81)


def test_what_does_not_pair_is_left_out() -> None:
    node = planting.node("Conv", ["x", "w"], "y", group=2)
    weight = held(np.ones((2, 1, 3, 3), np.int8))
    assert saturating_share(node, weight, PAIR, np.ones((1, 2, 5, 5), np.float32)) is None
    signed = Pair("x", "x_after", "int8", 1.0, 0, -128, 127)
    product = planting.node("MatMul", ["x", "w"], "y")
    ones = held(np.ones((2, 2), np.int8))
    assert saturating_share(product, ones, signed, np.ones((1, 2))) is None
