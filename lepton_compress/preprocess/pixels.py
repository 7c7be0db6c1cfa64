"""What the preprocessing `image` computes: by torch, and as nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lepton_compress.preprocess.nodes import Nodes

_FLOAT = 1
"""FLOAT in onnx's TensorProto."""
_BATCH = 64
"""Pictures that are computed at once, so that memory does not grow with their number."""


@dataclass(frozen=True)
class Plan:
    """What to do with pictures (samples, height, width, channels) of unsigned bytes.

    Attributes:
        sides: height and width of the result.
        size: to resize to, height and width, or None.
        crop: height and width to take out of the result, or None.
        start: the first row and column of the crop.
        flip: turn the order of the channels round.
        factor, offset: by channel as the pictures have them: value * factor + offset.
        channels_first: of the result.
    """

    sides: tuple[int, int]
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    start: tuple[int, int]
    flip: bool
    factor: tuple[float, ...]
    offset: tuple[float, ...]
    channels_first: bool


def apply(plan: Plan, raw: np.ndarray) -> np.ndarray:
    """The original: float32 (samples, channels, height, width), or with the channels last."""
    parts = [_apply(plan, raw[start : start + _BATCH]) for start in range(0, len(raw), _BATCH)]
    return np.concatenate(parts)


def _apply(plan: Plan, raw: np.ndarray) -> np.ndarray:
    made = raw.astype(np.float32)
    if plan.size is not None and plan.size != made.shape[1:3]:
        made = _resize(made, plan.size)
    if plan.crop is not None:
        (top, left), (height, width) = plan.start, plan.crop
        made = made[:, top : top + height, left : left + width]
    factor, offset = (np.asarray(each, np.float32) for each in (plan.factor, plan.offset))
    made = made * factor + offset
    if plan.flip:
        made = made[..., ::-1]
    if plan.channels_first:
        made = made.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(made)


def _resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import torch
    from torch.nn import functional

    given = torch.from_numpy(array).permute(0, 3, 1, 2)
    made = functional.interpolate(given, size, mode="bilinear", align_corners=False, antialias=True)
    back: np.ndarray = made.permute(0, 2, 3, 1).numpy()
    return back


def build(plan: Plan, nodes: Nodes, name: str) -> str:
    """The same as nodes: float32, from the input `name`."""
    made = name
    if plan.size is not None:
        made = _resized(plan.size, nodes, nodes.add("Cast", [made], to=_FLOAT))
    if plan.crop is not None:
        made = _crop(plan, nodes, made)
    factor, offset = (np.asarray(each, np.float32) for each in (plan.factor, plan.offset))
    if plan.flip:
        made = nodes.add("Gather", [made, nodes.constant([2, 1, 0], np.int64)], axis=3)
        factor, offset = factor[::-1], offset[::-1]
    if plan.channels_first:
        made = nodes.add("Transpose", [made], perm=[0, 3, 1, 2])
    if plan.size is None:
        made = nodes.add("Cast", [made], to=_FLOAT)  # bytes as long as it may be
    # The arithmetic runs along memory, over rows of many values; and a runtime that computes
    # integers with the channels last would move the transposing behind it, to where rows are three
    # values long, were it not for the reshaping.
    (height, width), channels = plan.sides, len(factor)
    flat = [0, channels, height * width]
    shape = [0, channels, height, width]
    if plan.channels_first:
        factor, offset = factor[:, None], offset[:, None]
    else:
        factor, offset = np.tile(factor, width), np.tile(offset, width)
        flat, shape = [0, height, width * channels], [0, height, width, channels]
    made = nodes.add("Reshape", [made, nodes.constant(flat, np.int64)])
    made = nodes.add("Mul", [made, nodes.constant(factor, np.float32)])
    made = nodes.add("Add", [made, nodes.constant(offset, np.float32)])
    return nodes.add("Reshape", [made, nodes.constant(shape, np.int64)])


def _crop(plan: Plan, nodes: Nodes, name: str) -> str:
    ends = [first + side for first, side in zip(plan.start, plan.crop or (), strict=True)]
    wanted = [nodes.constant(each, np.int64) for each in (list(plan.start), ends, [1, 2])]
    return nodes.add("Slice", [name, *wanted])


def _resized(size: tuple[int, int], nodes: Nodes, name: str) -> str:
    # ONNX Runtime fails to load a Resize of the last two axes between two Transpose.
    return nodes.add(
        "Resize",
        [name, "", "", nodes.constant(size, np.int64)],
        mode="linear",
        antialias=1,
        exclude_outside=1,  # without it the borders are weighted too much
        axes=[1, 2],
        coordinate_transformation_mode="half_pixel",
    )
