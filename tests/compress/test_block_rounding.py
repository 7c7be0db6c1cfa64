"""Each algorithm against what its paper promises, and against the library that it comes from."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from lepton_compress.compress.block_rounding import error, input_scales, refit, round_blocks
from lepton_compress.compress.blocks import dequantize
from lepton_compress.compress.quantize_weights import QuantizeWeights

WIDTH, COLUMNS, SIZE = 64, 48, 16
PARAMS = QuantizeWeights(block_size=SIZE)


def weight() -> np.ndarray:
    made: np.ndarray = np.random.default_rng(0).normal(size=(COLUMNS, WIDTH)).astype(np.float32)
    return made


def rows() -> torch.Tensor:
    """Inputs that depend on each other, a few of them large, as activations are."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 8)) @ rng.normal(size=(8, WIDTH)) + 0.2 * rng.normal(
        size=(400, WIDTH)
    )
    x[:, ::13] *= 8
    return torch.from_numpy(x.astype(np.float32))


def noise(algorithm: str, params: QuantizeWeights = PARAMS) -> float:
    moment = rows().T @ rows()
    made = round_blocks(weight(), algorithm, params, moment)
    return error(weight(), made, moment, SIZE)[1]


def test_those_that_see_the_inputs_err_less() -> None:
    nearest = noise("rtn")
    assert noise("gptq") < 0.5 * nearest
    assert noise("awq") < nearest


def test_the_error_is_that_of_the_outputs() -> None:
    moment = rows().T @ rows()
    made = round_blocks(weight(), "rtn", PARAMS, moment)
    apart = rows() @ torch.from_numpy(weight() - dequantize(made, SIZE)).T
    signal, found = error(weight(), made, moment, SIZE)
    assert found == pytest.approx(float(apart.square().sum()), rel=1e-3)
    assert signal == pytest.approx(
        float((rows() @ torch.from_numpy(weight()).T).square().sum()), rel=1e-3
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_hqq_is_the_librarys_with_whole_zero_points(bits: int) -> None:
    from neural_compressor.torch.algorithms.weight_only.hqq.config import QTensorConfig
    from neural_compressor.torch.algorithms.weight_only.hqq.core import HQQTensorHandle

    params = QuantizeWeights.model_validate({"bits": bits, "block_size": SIZE})
    made = round_blocks(weight(), "hqq", params)
    columns = torch.from_numpy(weight()).reshape(-1, SIZE).T.contiguous()
    theirs = HQQTensorHandle.quantize(columns, QTensorConfig(bits, group_size=SIZE, pack=False))
    assert np.array_equal(made.scales.reshape(-1), theirs.scale.reshape(-1).numpy())
    zeros = theirs.zero.round().clamp(0, 2**bits - 1).reshape(-1).numpy()
    assert np.array_equal(made.zeros.reshape(-1), zeros)
    # Where their zero point was whole to begin with the integers are theirs too.
    apart = np.abs(made.integers.reshape(-1, SIZE).T.astype(float) - theirs.val.numpy())
    assert apart.max() <= 1


def test_awq_searches_as_the_library_does() -> None:
    from neural_compressor.torch.algorithms.weight_only import awq

    x = rows()
    scales = input_scales([weight()], x.abs().sum(0), x.T @ x, PARAMS)
    net = torch.nn.Module()
    net.layers = torch.nn.ModuleList([torch.nn.Module()])
    block = net.layers[0]
    block.one = torch.nn.Linear(WIDTH, COLUMNS, bias=False)
    block.one.weight.data = torch.from_numpy(weight())
    theirs = awq.ActAwareWeightQuant(net, example_inputs=x, bits=4, group_size=SIZE)
    found = theirs.search_scale(block, "layers.0", [("layers.0.one",)], {"one": {"input": [x]}})
    wanted = found["layers.0.one",]
    # Only the ratio of scales counts: a common factor moves into the blocks' scales.
    ratio = scales / wanted
    assert float(ratio.max() / ratio.min()) < 1.2


def test_fitted_scales_never_err_more() -> None:
    moment = rows().T @ rows()
    before = round_blocks(weight(), "rtn", PARAMS)
    after = refit(before, weight(), moment, PARAMS)
    assert np.array_equal(after.integers, before.integers)
    was, now = (
        np.square(rows().numpy() @ (weight() - dequantize(each, SIZE)).T).sum(0)
        for each in (before, after)
    )
    assert (now <= 1.001 * was).all()
    assert now.sum() < 0.9 * was.sum()


@pytest.mark.parametrize("algorithm", ["rtn", "gptq", "hqq", "awq"])
def test_a_weight_of_zeros_stays_so(algorithm: str) -> None:
    zeros = np.zeros((4, WIDTH), np.float32)
    made = round_blocks(zeros, algorithm, PARAMS, rows().T @ rows())
    assert np.abs(dequantize(made, SIZE)).max() < 1e-6


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra transformers")
def test_gptq_runs_where_transformers_came_after_it() -> None:
    code = (
        "import neural_compressor.torch.algorithms.weight_only.gptq\n"
        "import transformers\n"
        "from tests.compress.test_block_rounding import noise\n"
        "assert noise('gptq') < 0.5 * noise('rtn')\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
