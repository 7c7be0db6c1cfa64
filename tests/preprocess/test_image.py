"""Pictures: what is refused, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.preprocess.form import Preprocessing
from lepton_compress.preprocess.image import Image, image


def made(shape: tuple[Any, ...] = (8, 10, 3), dtype: str = "uint8", **given: Any) -> Preprocessing:
    return image(Image(**given), TensorSpec("x", dtype, ("batch", *shape)), Path())


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)


def test_values_are_scaled_and_normalised_channel_by_channel() -> None:
    raw = picture(8, 10, 3)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    wanted = (raw / 255 - mean) / std
    found = made(mean=mean, std=std).apply(raw)
    assert found.dtype == np.float32
    assert found.shape == (1, 3, 8, 10)
    np.testing.assert_allclose(found, wanted.transpose(0, 3, 1, 2), atol=1e-5)


def test_bgr_turns_the_channels_round_after_normalising() -> None:
    raw = picture(4, 4, 3)
    plain = made((4, 4, 3), mean=[0.1, 0.2, 0.3]).apply(raw)
    turned = made((4, 4, 3), mean=[0.1, 0.2, 0.3], channels="bgr").apply(raw)
    np.testing.assert_array_equal(turned, plain[:, ::-1])


def test_the_crop_is_the_middle() -> None:
    raw = picture(8, 10, 1)
    found = made((8, 10, 1), crop=[4, 6], scale=1.0, layout="channels_last").apply(raw)
    np.testing.assert_array_equal(found, raw[:, 2:6, 2:8].astype(np.float32))


def test_resizing_averages_what_it_shrinks() -> None:
    board = np.indices((16, 16)).sum(0) % 2 * 255  # every other pixel white
    raw = board.astype(np.uint8)[None, :, :, None]
    found = made((16, 16, 1), size=4).apply(raw)
    np.testing.assert_allclose(found, 0.5, atol=0.06)


def test_pictures_of_any_size_are_taken_where_they_are_resized() -> None:
    assert made(size=[4, 6]).raw.shape == ("batch", "height", "width", 3)
    assert made(size=[4, 6]).about["size"] is None
    assert made().raw.shape == ("batch", 8, 10, 3)
    assert made().about["size"] == [8, 10]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dtype": "float32"}, "float32"),
        ({"shape": (8, 10)}, r"\[8, 10\]"),
        ({"shape": (8, 10, 4)}, "4 channels"),
        ({"mean": [0.1, 0.2]}, "`mean` has 2 numbers for 3 channels"),
        ({"crop": 9}, r"\[9, 9\] is larger than the pictures, \[8, 10\]"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(**given)


@pytest.mark.parametrize(
    "given",
    [{"std": [0.0]}, {"scale": 0}, {"size": 4, "crop": 5}, {"size": [1, 2, 3]}, {"mean": []}],
)
def test_what_can_never_be_right_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Image(**given)
