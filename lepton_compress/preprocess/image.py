"""The preprocessing `image`: bytes of a picture to what a network was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.preprocess.form import Preprocessing
from lepton_compress.registry import Params, plugin

if TYPE_CHECKING:
    import numpy as np

    from lepton_compress.preprocess.nodes import Nodes

Side = Annotated[int, Field(strict=True, ge=1, le=16384)]
Sides = Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
"""Of a square, or height and width."""


class Image(Params):
    """A picture of unsigned bytes, (height, width, channels), in the order red, green, blue."""

    input: str | None = Field(None, description="Of the model; its only one by default.")
    size: Sides | None = Field(
        None,
        description="Resize to this, `[height, width]` or the side of a square; pictures of any "
        "size are taken then. Bilinear, with antialiasing where it shrinks.",
    )
    crop: Sides | None = Field(None, description="Take this much of the middle, after resizing.")
    channels: Literal["rgb", "bgr"] = Field("rgb", description="The order the model wants.")
    scale: float = Field(1 / 255, gt=0, description="Values are multiplied by this first.")
    mean: list[float] = Field([0.0], min_length=1, description="Subtracted then; one a channel.")
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0], min_length=1, description="Divided by at last; one a channel."
    )
    layout: Literal["channels_first", "channels_last"] = Field(
        "channels_first", description="What the model takes."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size and self.crop:
            size, crop = pair(self.size), pair(self.crop)
            if crop[0] > size[0] or crop[1] > size[1]:
                raise ValueError(f"the crop {list(crop)} is larger than the size {list(size)}")
        return self


@plugin("preprocessing", "image", Image)
def image(params: Image, raw: TensorSpec, folder: Path) -> Preprocessing:
    """Resizes, crops, orders the channels, normalises and lays out pictures."""
    from lepton_compress.preprocess import pixels

    height, width, channels = _checked(params, raw)
    size = pair(params.size) if params.size else None
    first = size or (height, width)
    crop = pair(params.crop) if params.crop else first
    if crop[0] > first[0] or crop[1] > first[1]:
        raise InputError(
            f"the crop {list(crop)} is larger than the pictures, {list(first)}",
            where="preprocess: image",
            mend="make it smaller, or give a `size` to resize to first",
        )
    plan = pixels.Plan(
        sides=crop,
        size=size,
        crop=None if crop == first else crop,
        start=((first[0] - crop[0]) // 2, (first[1] - crop[1]) // 2),
        flip=params.channels == "bgr" and channels == 3,
        # Multiplied and added to, which is one step where dividing would be three.
        factor=tuple(params.scale / each for each in _each(params.std, channels)),
        offset=tuple(
            -mean / std
            for mean, std in zip(
                _each(params.mean, channels), _each(params.std, channels), strict=True
            )
        ),
        channels_first=params.layout == "channels_first",
    )

    def apply(array: np.ndarray) -> np.ndarray:
        return pixels.apply(plan, array)

    def build(nodes: Nodes, name: str) -> str:
        return pixels.build(plan, nodes, name)

    sides = ("height", "width") if size else (height, width)
    about = {
        "kind": "image",
        "channels": channels,
        "size": None if size else [height, width],
    }
    return Preprocessing(
        apply, build, TensorSpec(raw.name, "uint8", ("batch", *sides, channels)), about
    )


def pair(sides: int | list[int]) -> tuple[int, int]:
    """Height and width."""
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


def _checked(params: Image, raw: TensorSpec) -> tuple[int, int, int]:
    """Height, width and channels of the raw pictures."""
    where = "preprocess: image"
    sides = raw.shape[1:]
    if raw.dtype != "uint8" or len(sides) != 3 or not all(isinstance(each, int) for each in sides):
        raise InputError(
            f"takes unsigned bytes (height, width, channels), but the data has {raw.dtype}"
            f"{list(sides)}",
            where=where,
            mend="let the loader give the pictures as they are, not scaled",
        )
    height, width, channels = (int(each) for each in sides)
    if channels not in (1, 3):
        raise InputError(f"the pictures have {channels} channels, not 1 or 3", where=where)
    for name in ("mean", "std"):
        given = len(getattr(params, name))
        if given not in (1, channels):
            raise InputError(
                f"`{name}` has {given} numbers for {channels} channels",
                where=where,
                mend=f"give one, or {channels}",
            )
    return height, width, channels


def _each(values: list[float], channels: int) -> list[float]:
    return values * channels if len(values) == 1 else values
