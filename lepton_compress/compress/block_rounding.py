"""Integers for one weight, by the algorithms of neural-compressor, each brought into the blocks of
`blocks.Blocks` without a second rounding.

A layer's output error on calibration data is (W - Q) M (W - Q)', where M is the sum over rows of
the outer product of its inputs; so M is all that is kept of the data.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lepton_compress.compress.blocks import Blocks, dequantize

if TYPE_CHECKING:
    from lepton_compress.compress.quantize_weights import QuantizeWeights

NEED_DATA = ("awq", "gptq")
"""The algorithms that look at the layer's inputs."""
_RATIOS = 20
_SHRINKS = 10
_DAMPING = 0.01
_TINY = 1e-12
_SYSTEMS = 2**26
_Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Integers (outputs, inputs), scales and zero points (outputs, blocks)."""


def round_blocks(
    weight: np.ndarray, algorithm: str, params: QuantizeWeights, moment: torch.Tensor | None = None
) -> Blocks:
    """The integers of a weight.

    Args:
        weight: (outputs, inputs) float32; of AWQ, already multiplied by its input scales.
        algorithm: "awq", "gptq", "hqq" or "rtn".
        moment: (inputs, inputs) float32 as above, for the algorithms of `NEED_DATA`.
    """
    held = torch.from_numpy(np.array(weight, np.float32, order="C"))
    if algorithm == "hqq":
        parts = _half_quadratic(held, params)
    elif algorithm == "rtn" or moment is None:
        parts = _nearest(held, params)
    elif algorithm == "awq":
        parts = _clipped(held, moment, params)
    else:
        parts = _gptq(held, moment, params)
    integers, scales, zeros = parts
    blocks = Blocks(
        integers.clamp(0, 2**params.bits - 1).to(torch.uint8).numpy(),
        scales.float().numpy(),
        zeros.to(torch.uint8).numpy(),
        params.bits,
    )
    return blocks if moment is None or algorithm == "rtn" else refit(blocks, weight, moment, params)


def error(
    weight: np.ndarray, blocks: Blocks, moment: torch.Tensor, block_size: int
) -> tuple[float, float]:
    """Energy of a layer's output over the calibration data, and that of its error."""
    wanted = torch.from_numpy(np.array(weight, np.float32, order="C"))
    apart = wanted - torch.from_numpy(dequantize(blocks, block_size))
    return float(((wanted @ moment) * wanted).sum()), float(((apart @ moment) * apart).sum())


def _spread(parts: torch.Tensor, params: QuantizeWeights, width: int) -> torch.Tensor:
    """One value a block, repeated for each weight of it."""
    return parts.repeat_interleave(params.block_size, 1)[:, :width]


def _gptq(weight: torch.Tensor, moment: torch.Tensor, params: QuantizeWeights) -> _Parts:
    """GPTQ: Frantar et al., 2022."""
    with _quiet():
        from neural_compressor.torch.algorithms.weight_only import gptq

    if "transformers" in sys.modules:
        # It names that module wherever it is loaded, but imports it only if it was loaded first.
        gptq.transformers = sys.modules["transformers"]
    width = weight.shape[1]
    engine = gptq.GPTQ(torch.nn.Linear(width, weight.shape[0], bias=False), weight)
    engine.quantizer.configure(
        {
            "dtype": "int",
            "bits": params.bits,
            "sym": params.symmetric,
            "perchannel": True,
            "mse": True,
            "group_size": params.block_size,
            "use_double_quant": False,
            "double_quant_sym": False,
        }
    )
    engine.H = moment.clone()
    # Steps of one block, or its ranges would be those of weights not made up for yet.
    scales, _, zeros, values = engine.fasterquant(
        weight, blocksize=params.block_size, groupsize=params.block_size, percdamp=_DAMPING
    )
    wide = [_spread(each, params, width) for each in (scales, zeros)]
    return torch.round(values / wide[0]) + wide[1], scales, zeros


def _nearest(weight: torch.Tensor, params: QuantizeWeights, quantile: float = 1.0) -> _Parts:
    """Each weight to the nearest integer, the range of a block shrunk to `quantile` of it."""
    with _quiet():
        from neural_compressor.torch.algorithms.weight_only.utility import quant_tensor

    scheme = "sym" if params.symmetric else "asym"
    integers, scales, zeros = quant_tensor(
        weight.clone(), params.bits, params.block_size, scheme, quantile, return_int=True
    )
    if zeros is None:
        # Its symmetric integers are signed; ours are stored with the middle as zero.
        zeros = torch.full_like(scales, 2 ** (params.bits - 1))
        integers = integers + zeros[0, 0]
    return integers, scales, zeros


def _half_quadratic(weight: torch.Tensor, params: QuantizeWeights) -> _Parts:
    """HQQ: Badri and Shaji, 2023. Its zero points are fractions, for which the runtime has no fast
    kernel; they are rounded to whole numbers and the integers found again."""
    with _quiet():
        from neural_compressor.torch.algorithms.weight_only.hqq.config import QTensorConfig
        from neural_compressor.torch.algorithms.weight_only.hqq.core import HQQTensorHandle

    size, most = params.block_size, 2**params.bits - 1
    whole = weight.shape[1] // size * size
    parts = []
    for part in (weight[:, :whole], weight[:, whole:]):
        if not part.shape[1]:
            continue
        # The library shares scales along the first axis: a block is a column of what it is given.
        columns = part.reshape(-1, min(size, part.shape[1])).T.contiguous()
        about = QTensorConfig(
            params.bits, group_size=columns.shape[0], optimize=True, round_zero=False, pack=False
        )
        made = HQQTensorHandle.quantize(columns, about)
        scales, zeros = made.scale, made.zero.round().clamp(0, most)
        integers = (columns / scales + zeros).round().clamp(0, most)
        rows = weight.shape[0]
        parts.append(
            [integers.T.reshape(rows, -1)] + [e.reshape(rows, -1) for e in (scales, zeros)]
        )
    integers, scales, zeros = (torch.cat(each, 1) for each in zip(*parts, strict=True))
    return integers, scales, zeros


def _clipped(weight: torch.Tensor, moment: torch.Tensor, params: QuantizeWeights) -> _Parts:
    """AWQ's second half: each output with the range, up to a tenth narrower, that errs least."""
    best = _nearest(weight, params)
    least = _row_errors(weight, best, moment, params)
    for shrink in range(1, _SHRINKS):
        parts = _nearest(weight, params, 1 - shrink / 100)
        errors = _row_errors(weight, parts, moment, params)
        better = (errors < least)[:, None]
        least = torch.minimum(errors, least)
        integers, scales, zeros = (
            torch.where(better, new, old) for new, old in zip(parts, best, strict=True)
        )
        best = integers, scales, zeros
    return best


def _row_errors(
    weight: torch.Tensor, parts: _Parts, moment: torch.Tensor, params: QuantizeWeights
) -> torch.Tensor:
    """The energy of each output's error, (outputs,)."""
    integers, scales, zeros = parts
    wide = [_spread(each, params, weight.shape[1]) for each in (scales, zeros)]
    apart = weight - (integers - wide[1]) * wide[0]
    return ((apart @ moment) * apart).sum(1)


def input_scales(
    weights: Sequence[np.ndarray],
    magnitude: torch.Tensor,
    moment: torch.Tensor,
    params: QuantizeWeights,
) -> torch.Tensor:
    """What AWQ multiplies the weights of layers with one input by, and divides that input by:
    (inputs,) float32. Lin et al., 2023.

    The grid is neural-compressor's; its own search takes torch blocks alone and rounds to 4 bits
    whatever is asked, so the error is measured here.

    Args:
        weights: each (outputs, inputs) float32.
        magnitude: mean absolute value of each input, (inputs,).
    """
    whole = torch.from_numpy(np.concatenate(weights))
    width, size = whole.shape[1], params.block_size
    peaks = torch.cat([part.abs().amax(1, keepdim=True) for part in torch.split(whole, size, 1)], 1)
    share = (whole.abs() / _spread(peaks, params, width).clamp(min=_TINY)).mean(0)
    best, least = torch.ones(width), float("inf")
    for step in range(_RATIOS):
        ratio = step / _RATIOS
        scales = magnitude.pow(ratio) / share.clamp(min=_TINY).pow(1 - ratio)
        scales = scales.clamp(min=1e-4)
        scales = scales / (scales.max() * scales.min()).sqrt()
        inside = moment / scales[:, None] / scales[None]
        scaled = whole * scales
        found = float(_row_errors(scaled, _nearest(scaled, params), inside, params).sum())
        if found < least:
            best, least = scales, found
    return best


def refit(
    blocks: Blocks, weight: np.ndarray, moment: torch.Tensor, params: QuantizeWeights
) -> Blocks:
    """The same integers with the scales that err least: for each output a least-squares problem in
    the scales of its blocks. An output that this does not help keeps its scales."""
    width, count = weight.shape[1], blocks.scales.shape[1]
    made = blocks.scales.copy()
    rows = max(1, _SYSTEMS // (4 * count * width))
    block_of = torch.arange(width) // params.block_size
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        zeros = _spread(torch.from_numpy(blocks.zeros[part].astype(np.float32)), params, width)
        steps = torch.from_numpy(blocks.integers[part].astype(np.float32)) - zeros
        wanted = torch.from_numpy(np.array(weight[part], np.float32))
        before = torch.from_numpy(blocks.scales[part])
        by_block = torch.zeros(len(steps), count, width)
        by_block[:, block_of, torch.arange(width)] = steps
        moved = by_block @ moment
        systems = moved @ by_block.transpose(1, 2)
        goals = (moved @ wanted[:, :, None])[..., 0]
        # Held towards the former scales: calibration data do not determine every one.
        held = _DAMPING * systems.diagonal(dim1=1, dim2=2) + _TINY
        systems = systems + torch.diag_embed(held)
        after = torch.linalg.solve(systems, goals + held * before)
        kept = _fit_errors(steps, before, wanted, moment, params)
        tried = _fit_errors(steps, after, wanted, moment, params)
        made[part] = torch.where((tried < kept)[:, None], after, before).numpy()
    return Blocks(blocks.integers, made, blocks.zeros, blocks.bits)


def _fit_errors(
    steps: torch.Tensor,
    scales: torch.Tensor,
    wanted: torch.Tensor,
    moment: torch.Tensor,
    params: QuantizeWeights,
) -> torch.Tensor:
    apart = wanted - steps * _spread(scales, params, steps.shape[1])
    return ((apart @ moment) * apart).sum(1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """neural-compressor reads its log level from the environment, once, when it is imported."""
    before = os.environ.get("LOGLEVEL")
    os.environ["LOGLEVEL"] = "ERROR"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.pop("LOGLEVEL")
        if before is not None:
            os.environ["LOGLEVEL"] = before
