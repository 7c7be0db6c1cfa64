"""Calibration against evaluation data."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compress.accounts import InputAccount
from lepton_compress.artifacts import Split
from lepton_compress.explain import data
from tests.explain import planting
from tests.explain.planting import Array

Digits = dict[str, tuple[Array, Array]]


def compared(calibration: Array, evaluation: Array) -> InputAccount:
    (found,) = data.compare(Split({"image": calibration}), Split({"image": evaluation}))
    return found


@pytest.mark.parametrize(("factor", "offset"), [(255.0, 0.0), (0.5, 0.1), (1.0, -0.5)])
def test_scale_and_shift_are_found(digits: Digits, factor: float, offset: float) -> None:
    had, has = digits["calibration"][0], digits["evaluation"][0]
    found = compared(had * factor + offset, has)
    assert found.factor == pytest.approx(factor, rel=0.05)
    assert found.offset == pytest.approx(offset, abs=0.05 * factor)
    assert found.shape_distance < 0.1
    assert found.certainty > 10


def test_alike_data_are_alike(digits: Digits) -> None:
    found = compared(digits["calibration"][0], digits["evaluation"][0])
    assert found.certainty < 4
    assert found.order is None


def test_another_kind_of_data_is_no_scale(digits: Digits) -> None:
    noise = np.random.default_rng(0).normal(5, 2, (100, 1, 8, 8))
    binary = (digits["evaluation"][0] > 0.5).astype(np.float32)
    assert compared(noise, binary).shape_distance > 0.15


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_order_of_channels(digits: Digits, order: tuple[int, ...]) -> None:
    had, has = (planting.coloured(digits[each][0]) for each in ("calibration", "evaluation"))
    found = compared(had[:, list(order)], has)
    assert found.order == order
    assert found.order_gain > 3


def test_order_of_channels_normalised_each_by_its_own_constants(digits: Digits) -> None:
    mean, deviation = (
        np.array(each).reshape(1, 3, 1, 1)
        for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    had, has = (planting.coloured(digits[each][0]) for each in ("calibration", "evaluation"))
    found = compared((had[:, ::-1] - mean) / deviation, (has - mean) / deviation)
    assert found.order == (2, 1, 0)


def test_grey_images_have_no_order(digits: Digits) -> None:
    had, has = (np.repeat(digits[each][0], 3, axis=1) for each in ("calibration", "evaluation"))
    assert compared(had, has).order is None


def test_two_samples_are_not_taken_for_another_order(digits: Digits) -> None:
    had, has = (planting.coloured(digits[each][0]) for each in ("calibration", "evaluation"))
    assert compared(had[:2], has).order is None


def test_inputs_of_other_names_are_left_out() -> None:
    ones = np.ones((2, 3), np.float32)
    both = Split({"a": ones, "b": ones})
    assert data.compare(Split({"a": ones, "c": ones}), both) == ()
