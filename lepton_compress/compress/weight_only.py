"""Weight-only quantisation of an ONNX graph's matrix products into MatMulNBits nodes.

neural-compressor finds the integers; they are carried into the graph bit for bit. The layout is
that of ONNX Runtime's contributed operator com.microsoft.MatMulNBits.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from lepton_compress.artifacts import Model, Observer, Split, StepOutcome
from lepton_compress.compress import account
from lepton_compress.compress.prepare import prepare
from lepton_compress.compress.session import observing
from lepton_compress.graph import infer_shapes
from lepton_compress.load.forms import duplicate, signature

if TYPE_CHECKING:
    from lepton_compress.compress.quantize_weights import QuantizeWeights

DOMAIN = "com.microsoft"
_BATCH = 16
_HESSIANS = 512 * 2**20
"""Bytes of second-moment matrices held at once; more layers take another pass over the data."""
_LEVELS = {"float32": 0, "int8": 4}


@dataclass(frozen=True)
class Layer:
    """A matrix product with a constant weight: `weight` is (outputs, inputs) float32."""

    node: str
    input: str
    weight: np.ndarray
    bias: str | None


@dataclass(frozen=True)
class Blocks:
    """A quantised weight: weight = scales * (integers - zeros), block by block.

    `integers` is (outputs, inputs) uint8; `scales` float32 and `zeros` uint8 are (outputs, blocks).
    """

    integers: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray


def quantize(
    model: Model, calibration: Split, params: QuantizeWeights, observer: Observer
) -> StepOutcome:
    """The graph with its matrix products' weights quantised.

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
    """
    ready = prepare(model, calibration, params.keep, "quantize_weights")
    model, calibration = ready.model, ready.split
    found = [layer for layer in find_layers(model.value) if layer.node not in params.keep]
    layers = [layer for layer in found if layer.weight.shape[1] >= params.block_size]
    if not layers:
        reason = f"no matrix product has a constant weight of {params.block_size} inputs or more"
        return StepOutcome(model, changed=False, notes=(reason,))
    made: dict[str, Blocks] = {}
    errors: dict[str, float] = {}
    with observer.work("rounding", len(layers)) as progress:
        for some in _batches(layers):
            moments = second_moments(model, some, calibration, params.samples)
            for layer in some:
                blocks = round_blocks(layer.weight, moments[layer.input], params)
                made[layer.node] = blocks
                errors[layer.node] = _noise(layer, blocks, moments[layer.input], params.block_size)
                progress.advance(note=layer.node)
    graph = _rewrite(duplicate(model).value, layers, made, params)
    outcome = Model("graph", graph, *signature(graph))
    reasons = _reasons(model.value, {layer.node for layer in found}, made, params)
    statistics = {
        "layers": len(layers),
        "calibration_samples": min(params.samples, len(calibration)),
        "weighted": {"blocks": list(made), "float": reasons},
        "sqnr_db": errors,
        "lowest_sqnr_db": min(errors.values()),
        "output_sqnr_db": account.output_noise(model, outcome, calibration),
    }
    notes = (*ready.notes, *account.left_in_float(reasons))
    return StepOutcome(outcome, changed=True, statistics=statistics, notes=notes)


def _reasons(
    graph: onnx.ModelProto, found: Collection[str], made: Collection[str], params: QuantizeWeights
) -> dict[str, str]:
    """By name of the nodes with weights that stay in float: why."""
    reasons = {}
    for name, node in account.weighted(graph).items():
        if name in params.keep:
            reasons[name] = "named in `keep`"
        elif name in found and name not in made:
            reasons[name] = "narrower than a block"
        elif node.op_type not in ("MatMul", "Gemm"):
            reasons[name] = f"blocks are for matrix products, not for {node.op_type}"
        elif name not in made:
            reasons[name] = "it has no constant weight"
    return reasons


def find_layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """Every MatMul and Gemm whose second input is a constant float matrix."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            continue
        tensor = constants[node.input[1]]
        if len(tensor.dims) != 2 or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        plain = given.get("alpha", 1.0) == 1.0 == given.get("beta", 1.0) and not given.get("transA")
        if node.op_type == "Gemm" and not plain:
            continue
        weight = numpy_helper.to_array(tensor)
        turned = weight if given.get("transB") else weight.T
        bias = node.input[2] if len(node.input) > 2 else None
        yield Layer(node.name, node.input[0], np.array(turned, order="C"), bias or None)


def second_moments(
    model: Model, layers: Sequence[Layer], split: Split, samples: int
) -> dict[str, torch.Tensor]:
    """By input name: the sum over calibration rows of the outer product of a layer's inputs, as
    (inputs, inputs) float32, in one pass."""
    wanted = {layer.input: layer.weight.shape[1] for layer in layers}
    fed = {spec.name for spec in model.inputs}
    session = observing(model.value, wanted, 1)
    computed = [name for name in wanted if name not in fed]
    moments = {name: torch.zeros(width, width) for name, width in wanted.items()}
    for feeds in split.named([spec.name for spec in model.inputs]).batches(_BATCH, samples):
        # Without names the runtime would give every output.
        given = session.run(computed, dict(feeds)) if computed else []
        arrays = dict(zip(computed, given, strict=True))
        for name, width in wanted.items():
            array = arrays[name] if name in arrays else feeds[name]
            rows = torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, width)
            moments[name].addmm_(rows.T, rows)
    return moments


def round_blocks(weight: np.ndarray, moment: torch.Tensor, params: QuantizeWeights) -> Blocks:
    """The integers of a weight, by neural-compressor.

    GPTQ: Frantar et al., 2022, with the least-squares weighting that `moment` gives.
    """
    held = torch.from_numpy(weight.copy())
    if params.algorithm == "gptq":
        values, scales, zeros = _gptq(held, moment, params)
    else:
        values, scales, zeros = _nearest(held, params)
    wide = [
        each.repeat_interleave(params.block_size, 1)[:, : held.shape[1]] for each in (scales, zeros)
    ]
    integers = torch.round(values / wide[0]) + wide[1]
    return Blocks(
        integers.clamp(0, 2**params.bits - 1).to(torch.uint8).numpy(),
        scales.float().numpy(),
        zeros.to(torch.uint8).numpy(),
    )


def _gptq(
    weight: torch.Tensor, moment: torch.Tensor, params: QuantizeWeights
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Dequantised weight, scales and zero points."""
    with _quiet():
        from neural_compressor.torch.algorithms.weight_only.gptq import GPTQ

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    engine = GPTQ(layer, weight)
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
    scales, _, zeros, values = engine.fasterquant(weight, groupsize=params.block_size)
    return values, scales, zeros


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


def _nearest(
    weight: torch.Tensor, params: QuantizeWeights
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Dequantised weight, scales and zero points, each weight rounded to the nearest."""
    with _quiet():
        from neural_compressor.torch.algorithms.weight_only.utility import quant_tensor

    scheme = "sym" if params.symmetric else "asym"
    integers, scales, zeros = quant_tensor(
        weight, params.bits, params.block_size, scheme, return_int=True
    )
    middle = torch.full_like(scales, 2 ** (params.bits - 1))
    # Its symmetric integers are signed; ours are stored with the middle as zero.
    offset = middle if zeros is None else zeros.to(scales.dtype)
    shift = torch.zeros_like(scales) if zeros is None else offset
    wide = [
        each.repeat_interleave(params.block_size, 1)[:, : weight.shape[1]]
        for each in (scales, shift)
    ]
    return (integers.to(scales.dtype) - wide[1]) * wide[0], scales, offset


def dequantize(blocks: Blocks, block_size: int) -> np.ndarray:
    """The weight (outputs, inputs) float32 that the integers stand for."""
    width = blocks.integers.shape[1]
    scales, zeros = (
        np.repeat(each.astype(np.float32), block_size, axis=1)[:, :width]
        for each in (blocks.scales, blocks.zeros)
    )
    made: np.ndarray = (blocks.integers.astype(np.float32) - zeros) * scales
    return made


def pack(blocks: Blocks, bits: int, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers as (outputs, blocks, bytes of a block) uint8 and zero points as (bytes,) uint8, the
    first of two 4-bit values in the lower half of a byte; the last block is padded with zeros."""
    outputs, count = blocks.zeros.shape
    padded = np.zeros((outputs, count * block_size), np.uint8)
    padded[:, : blocks.integers.shape[1]] = blocks.integers
    packed = padded.reshape(outputs, count, block_size)
    zeros = blocks.zeros
    if bits == 4:
        packed = packed[..., ::2] | packed[..., 1::2] << 4
        even = np.zeros((outputs, count + count % 2), np.uint8)
        even[:, :count] = zeros
        zeros = even[:, ::2] | even[:, 1::2] << 4
    return np.ascontiguousarray(packed), np.ascontiguousarray(zeros.reshape(-1))


def _noise(layer: Layer, blocks: Blocks, moment: torch.Tensor, block_size: int) -> float:
    """Signal to quantisation noise of a layer's output over the calibration data, in decibels."""
    wanted = torch.from_numpy(layer.weight)
    apart = wanted - torch.from_numpy(dequantize(blocks, block_size))
    signal = float(((wanted @ moment) * wanted).sum())
    noise = float(((apart @ moment) * apart).sum())
    if noise <= 0 or signal <= 0:
        return 200.0  # beyond what float32 resolves
    return round(10 * float(np.log10(signal / noise)), 2)


def _batches(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Layers in groups whose second-moment matrices fit into memory together."""
    some: list[Layer] = []
    held: dict[str, int] = {}
    for layer in layers:
        size = 4 * layer.weight.shape[1] ** 2
        if some and layer.input not in held and sum(held.values()) + size > _HESSIANS:
            yield some
            some, held = [], {}
        some.append(layer)
        held[layer.input] = size
    if some:
        yield some


def _rewrite(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    made: dict[str, Blocks],
    params: QuantizeWeights,
) -> onnx.ModelProto:
    """Put a MatMulNBits node (and an Add for a Gemm's bias) in the place of each layer."""
    # Shape inference stops at an operator it does not know; what it found before stays.
    model = infer_shapes(model)
    graph = model.graph
    shapes = {value.name: value for value in (*graph.value_info, *graph.output)}
    by_name = {layer.node: layer for layer in layers}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name not in by_name:
            nodes.append(node)
            continue
        layer, blocks = by_name[node.name], made[node.name]
        packed, zeros = pack(blocks, params.bits, params.block_size)
        held: list[tuple[str, Any]] = [("B", packed), ("scales", blocks.scales.reshape(-1))]
        held += [] if params.symmetric else [("zero_points", zeros)]
        for part, array in held:
            graph.initializer.append(numpy_helper.from_array(array, f"{node.name}_{part}"))
        product = f"{node.name}_product" if layer.bias else node.output[0]
        nodes.append(
            onnx.helper.make_node(
                "MatMulNBits",
                [layer.input, *(f"{node.name}_{part}" for part, _ in held)],
                [product],
                name=node.name,
                domain=DOMAIN,
                K=layer.weight.shape[1],
                N=layer.weight.shape[0],
                bits=params.bits,
                block_size=params.block_size,
                accuracy_level=_LEVELS[params.compute],
            )
        )
        if layer.bias:
            if node.output[0] in shapes:
                graph.value_info.add().CopyFrom(shapes[node.output[0]])
                graph.value_info[-1].name = product
            given = [product, layer.bias]
            nodes.append(onnx.helper.make_node("Add", given, [node.output[0]], f"{node.name}_bias"))
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    if not any(each.domain == DOMAIN for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return model
