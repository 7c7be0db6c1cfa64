"""Weight-only quantisation of a graph too large for memory: one tensor at a time, read by slabs
from its file and written, packed, to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress import account, processor
from lepton_compress.compress.block_graph import Layer, find_layers, put_blocks
from lepton_compress.compress.block_rounding import round_blocks
from lepton_compress.compress.blocks import pack
from lepton_compress.compress.large import UNMEASURED, carry, check, new_file
from lepton_compress.compress.weight_only import left, too_narrow
from lepton_compress.errors import InputError
from lepton_compress.load.forms import duplicate, signature
from lepton_compress.provenance import cpu

if TYPE_CHECKING:
    from lepton_compress.compress.quantize_weights import QuantizeWeights
    from lepton_compress.load.external import TensorFile

_SLAB = 2**22
"""Weights that are rounded at once; the rounding holds some ten copies of them."""


def quantize(model: Model, params: QuantizeWeights, context: StepContext) -> StepOutcome:
    """The graph with its matrix products' weights quantised, its tensors in `context.scratch`.

    Raises:
        InputError: the algorithm needs the activations of the whole model, `keep` names no node, or
            the graph is quantised already.
    """
    if params.algorithm not in ("hqq", "rtn"):
        raise InputError(
            f"{params.algorithm} needs the activations of a model, and this one is too large to be "
            "held in memory",
            where="quantize_weights: algorithm",
            mend="take hqq or rtn",
        )
    if params.mean_bits is not None:
        raise InputError(
            "which layers cost the outputs most is found by running the model, and this one is too "
            "large to be held in memory",
            where="quantize_weights: mean_bits",
            mend="drop it, or keep layers in float by name",
        )
    check(model, params.keep, context.data.calibration, "quantize_weights")
    found = [layer for layer in find_layers(model) if layer.node not in params.keep]
    layers = [layer for layer in found if layer.shape[1] >= params.block_size]
    if not layers:
        return StepOutcome(model, changed=False, notes=(too_narrow(params),))
    compute = processor.blocked(params.compute, cpu())
    made = {}
    with new_file(context) as file, context.observer.work("rounding", len(layers)) as progress:
        for layer in layers:
            made[layer.node] = _write(layer, params, file)
            progress.advance(note=layer.node)
        bits = dict.fromkeys(made, params.bits)
        graph = put_blocks(duplicate(model).value, layers, made, {}, bits, params, compute.value)
        carry(graph.graph, model, file)
    reasons = left(model.value, {layer.node for layer in found}, made, params)
    statistics = {
        "layers": len(layers),
        "compute": compute.told(),
        "algorithms": dict.fromkeys(made, params.algorithm),
        "weighted": {"blocks": list(made), "float": reasons},
    }
    notes = (*account.left_in_float(reasons), UNMEASURED)
    outcome = Model("graph", graph, *signature(graph), context.scratch)
    return StepOutcome(outcome, changed=True, statistics=statistics, notes=notes)


def _write(layer: Layer, params: QuantizeWeights, file: TensorFile) -> list[onnx.TensorProto]:
    """The tensors of a MatMulNBits node; only the packed weight is ever whole in memory."""
    outputs, width = layer.shape
    count = -(-width // params.block_size)
    packed = np.empty((outputs, count, params.block_size * params.bits // 8), np.uint8)
    scales = np.empty((outputs, count), np.float32)
    zeros = np.empty((outputs, -(-count * params.bits // 8)), np.uint8)
    weight, rows = layer.weight, max(1, _SLAB // width)
    for start in range(0, outputs, rows):
        part = slice(start, start + rows)
        blocks = round_blocks(weight[part], params.algorithm, params)
        packed[part], points = pack(blocks, params.block_size)
        scales[part], zeros[part] = blocks.scales, points.reshape(-1, zeros.shape[1])
    parts: dict[str, np.ndarray] = {"B": packed, "scales": scales.reshape(-1)}
    parts |= {} if params.symmetric else {"zero_points": zeros.reshape(-1)}
    return [file.write(f"{layer.node}_{part}", array) for part, array in parts.items()]
