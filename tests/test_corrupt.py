"""Corruptions: stronger with severity, inside the range, repeatable; wrong inputs are refused."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from lepton_compress import corrupt, recipe
from lepton_compress.artifacts import Split
from lepton_compress.errors import RecipeError

DRAW = np.random.default_rng(0)
IMAGES = DRAW.random((6, 3, 16, 16)).astype(np.float32)
SPLIT = Split({"image": IMAGES, "ids": np.arange(6)}, np.arange(6), {"dark": np.arange(6) > 2})

every = pytest.mark.parametrize("name", corrupt.STRENGTHS)


def spoilt(name: str, severity: int, seed: int = 0) -> np.ndarray:
    made = corrupt.corrupted(SPLIT, "image", name, severity, seed).inputs["image"]
    assert isinstance(made, np.ndarray)
    return made


def test_the_recipe_names_every_one() -> None:
    assert set(get_args(recipe.Corruption)) == set(corrupt.STRENGTHS)


@every
def test_it_changes_more_with_severity(name: str) -> None:
    distances = [float(((spoilt(name, each) - IMAGES) ** 2).mean()) for each in range(1, 6)]
    assert distances[0] > 0
    assert distances == sorted(distances)


@every
def test_it_keeps_shape_type_and_range(name: str) -> None:
    made = spoilt(name, 3)
    assert (made.shape, made.dtype) == (IMAGES.shape, IMAGES.dtype)
    if name != "noise_snr":
        assert IMAGES.min() <= made.min()
        assert made.max() <= IMAGES.max()


@every
def test_it_is_the_same_each_time_and_leaves_the_samples_alone(name: str) -> None:
    kept = IMAGES.copy()
    np.testing.assert_array_equal(spoilt(name, 2), spoilt(name, 2))
    np.testing.assert_array_equal(IMAGES, kept)


def test_everything_else_of_the_split_stays() -> None:
    made = corrupt.corrupted(SPLIT, "image", "contrast", 1, 0)
    assert made.inputs["ids"] is SPLIT.inputs["ids"]
    assert made.targets is SPLIT.targets
    assert made.slices is SPLIT.slices


def test_noise_has_the_power_it_is_named_for() -> None:
    sound = np.sin(np.arange(40_000) / 7).reshape(1, -1)
    made = corrupt.corrupted(Split({"x": sound}), "x", "noise_snr", 4, 0).inputs["x"]
    ratio = 10 * np.log10((sound**2).mean() / ((made - sound) ** 2).mean())
    assert ratio == pytest.approx(10, abs=0.2)


def test_blur_leaves_channels_apart() -> None:
    image = np.zeros((1, 8, 8, 2), np.float32)
    image[..., 0] = DRAW.random((8, 8))
    made = corrupt.corrupted(Split({"x": image}), "x", "gaussian_blur", 5, 0).inputs["x"]
    assert made[..., 1].max() == 0


@pytest.mark.parametrize(
    ("split", "name", "kinds", "said"),
    [
        (SPLIT, "imagee", ["contrast"], "did you mean 'image'?"),
        (Split({"ids": np.arange(3)}), None, ["contrast"], "no input holds floats"),
        (
            Split({"x": np.ones((3, 9))}),
            None,
            ["gaussian_noise", "contrast"],
            "contrast is for images, but x has shape (9,) a sample",
        ),
    ],
)
def test_an_input_that_cannot_be_corrupted_is_refused(
    split: Split, name: str | None, kinds: list[str], said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        corrupt.pick_input(split, name, kinds, "r.yaml:3: robustness")
    assert said in str(caught.value)
    assert corrupt.pick_input(SPLIT, None, ["contrast"], "") == "image"


@every
@pytest.mark.parametrize("kind", ["uint8", "int16"])
def test_raw_pictures_and_sound_are_signals_too(name: str, kind: str) -> None:
    if kind == "uint8":
        raw = DRAW.integers(0, 256, (4, 16, 16, 3), np.uint8)
    else:
        raw = DRAW.integers(-32768, 32768, (4, 800), np.int16)
        if name in corrupt.IMAGES:
            pytest.skip("is for images")
    split = Split({"ids": np.arange(4), "raw": raw})
    assert corrupt.pick_input(split, None, [name], "here") == "raw"
    made = corrupt.corrupted(split, "raw", name, 5, 0).inputs["raw"]
    assert (made.shape, made.dtype) == (raw.shape, raw.dtype)
    apart = np.abs(made.astype(float) - raw)
    assert apart.mean() > 0.01 * np.ptp(raw.astype(float))
    if name != "gaussian_blur":  # of noise it leaves nothing
        # Nothing has run over the ends of the dtype to the other side.
        assert np.corrcoef(made.ravel(), raw.ravel())[0, 1] > 0.5
