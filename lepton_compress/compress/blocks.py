"""Weights in blocks: integers that share a scale and a zero point, and how ONNX Runtime's
com.microsoft.MatMulNBits packs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Blocks:
    """A quantised weight: weight = scales * (integers - zeros), block by block.

    `integers` is (outputs, inputs) uint8; `scales` float32 and `zeros` uint8 are (outputs, blocks).
    `bits` is 4 or 8.
    """

    integers: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    bits: int


def dequantize(blocks: Blocks, block_size: int) -> np.ndarray:
    """The weight (outputs, inputs) float32 that the integers stand for."""
    width = blocks.integers.shape[1]
    scales, zeros = (
        np.repeat(each.astype(np.float32), block_size, axis=1)[:, :width]
        for each in (blocks.scales, blocks.zeros)
    )
    made: np.ndarray = (blocks.integers.astype(np.float32) - zeros) * scales
    return made


def pack(blocks: Blocks, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers as (outputs, blocks, bytes of a block) uint8 and zero points as (bytes,) uint8, the
    first of two 4-bit values in the lower half of a byte; the last block is padded with zeros."""
    outputs, count = blocks.zeros.shape
    padded = np.zeros((outputs, count * block_size), np.uint8)
    padded[:, : blocks.integers.shape[1]] = blocks.integers
    packed = padded.reshape(outputs, count, block_size)
    zeros = blocks.zeros
    if blocks.bits == 4:
        packed = packed[..., ::2] | packed[..., 1::2] << 4
        even = np.zeros((outputs, count + count % 2), np.uint8)
        even[:, :count] = zeros
        zeros = even[:, ::2] | even[:, 1::2] << 4
    return np.ascontiguousarray(packed), np.ascontiguousarray(zeros.reshape(-1))
