"""Weight-only quantisation of an ONNX graph's matrix products into MatMulNBits nodes.

neural-compressor finds the integers (`block_rounding`); they enter the graph bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

from lepton_compress.artifacts import Model, Observer, Split, StepOutcome
from lepton_compress.compress import account, layer_costs, processor
from lepton_compress.compress.absorb import Site, Wiring
from lepton_compress.compress.block_graph import Layer, find_layers, rewrite
from lepton_compress.compress.block_rounding import error, input_scales, round_blocks
from lepton_compress.compress.blocks import Blocks, dequantize
from lepton_compress.compress.prepare import prepare
from lepton_compress.compress.session import observing
from lepton_compress.load.forms import duplicate, signature
from lepton_compress.provenance import cpu

if TYPE_CHECKING:
    from lepton_compress.compress.quantize_weights import QuantizeWeights

_BATCH = 16
_HESSIANS = 512 * 2**20
"""Bytes of second-moment matrices held at once; more layers take another pass over the data."""
_PLAIN = ("gptq", "hqq", "rtn")
"""What `auto` tries for each layer; and AWQ, where its scales cost no node."""


@dataclass(frozen=True)
class Inputs:
    """Of the inputs of layers over calibration rows: `moment`, the sum of their outer products
    (inputs, inputs), and `magnitude`, the sum of their absolute values (inputs,), both float32."""

    moment: torch.Tensor
    magnitude: torch.Tensor


@dataclass
class Choice:
    """What was decided: by layer its blocks, algorithm and error; by input what AWQ divides it by,
    with the places where that is absorbed (None: nowhere)."""

    blocks: dict[str, Blocks] = field(default_factory=dict)
    algorithms: dict[str, str] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    divided: dict[str, tuple[np.ndarray, tuple[Site, ...] | None]] = field(default_factory=dict)


def quantize(
    model: Model, calibration: Split, params: QuantizeWeights, observer: Observer
) -> StepOutcome:
    """The graph with its matrix products' weights quantised.

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
    """
    ready = prepare(model, calibration, params.keep, "quantize_weights")
    model, calibration = ready.model, ready.split
    found = [layer for layer in find_layers(model) if layer.node not in params.keep]
    layers = [layer for layer in found if layer.shape[1] >= params.block_size]
    if not layers:
        return StepOutcome(model, changed=False, notes=(too_narrow(params),))
    compute = processor.blocked(params.compute, cpu())
    wiring, choice = Wiring(model.value.graph), Choice()
    with observer.work("rounding", len(layers)) as progress:
        for groups in _batches(layers):
            inputs = observe_inputs(model, groups, calibration, params.samples)
            for name, group in groups.items():
                _choose(group, inputs[name], wiring, params, choice)
                progress.advance(len(group), note=group[-1].node)
    costs = _raise(model, layers, calibration, params, choice, observer)
    graph = rewrite(
        duplicate(model).value, layers, choice.blocks, choice.divided, params, compute.value
    )
    outcome = Model("graph", graph, *signature(graph))
    reasons = left(model.value, {layer.node for layer in found}, choice.blocks, params)
    multiplied = [name for name, (_, sites) in choice.divided.items() if sites is None]
    statistics = {
        "layers": len(layers),
        "calibration_samples": min(params.samples, len(calibration)),
        "compute": compute.told(),
        "algorithms": choice.algorithms,
        "bits": {name: blocks.bits for name, blocks in choice.blocks.items()},
        "output_cost": costs,
        "absorbed_scales": [name for name in choice.divided if name not in multiplied],
        "multiplied_scales": multiplied,
        "weighted": {"blocks": list(choice.blocks), "float": reasons},
        "sqnr_db": choice.noise,
        "lowest_sqnr_db": min(choice.noise.values()),
        "output_sqnr_db": account.output_noise(model, outcome, calibration),
    }
    notes = (*ready.notes, *account.left_in_float(reasons), *_cost(layers, multiplied))
    return StepOutcome(outcome, changed=True, statistics=statistics, notes=notes)


def too_narrow(params: QuantizeWeights) -> str:
    """Why nothing was found."""
    return f"no matrix product has a constant weight of {params.block_size} inputs or more"


def _cost(layers: Sequence[Layer], multiplied: Collection[str]) -> Iterator[str]:
    """A note on what AWQ's scales cost where nothing takes them up."""
    if multiplied:
        widths = {layer.input: layer.shape[1] for layer in layers}
        count = sum(widths[name] for name in multiplied)
        yield f"AWQ put in {len(multiplied)} Mul nodes: {count} multiplications for each row"


def left(
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


def observe_inputs(
    model: Model, groups: dict[str, list[Layer]], split: Split, samples: int
) -> dict[str, Inputs]:
    """By input name, what is known of it over the calibration data, in one pass."""
    wanted = {name: group[0].shape[1] for name, group in groups.items()}
    fed = {spec.name for spec in model.inputs}
    session = observing(model.value, wanted, 1)
    computed = [name for name in wanted if name not in fed]
    found = {
        name: Inputs(torch.zeros(width, width), torch.zeros(width))
        for name, width in wanted.items()
    }
    for feeds in split.named([spec.name for spec in model.inputs]).batches(_BATCH, samples):
        # Without names the runtime would give every output.
        given = session.run(computed, dict(feeds)) if computed else []
        arrays = dict(zip(computed, given, strict=True))
        for name, width in wanted.items():
            array = arrays[name] if name in arrays else feeds[name]
            rows = torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, width)
            found[name].moment.addmm_(rows.T, rows)
            found[name].magnitude.add_(rows.abs().sum(0))
    return found


def _choose(
    group: list[Layer], inputs: Inputs, wiring: Wiring, params: QuantizeWeights, choice: Choice
) -> None:
    """Round layers that share an input; `auto` takes what errs least on the calibration data."""
    name, size, moment = group[0].input, params.block_size, inputs.moment
    tried: dict[str, list[tuple[Blocks, float, str]]] = {}
    auto = params.algorithm == "auto"
    for algorithm in _PLAIN if auto else (params.algorithm,):
        if algorithm == "awq":
            continue
        for layer in group:
            blocks = round_blocks(layer.weight, algorithm, params, moment)
            _, noise = error(layer.weight, blocks, moment, size)
            tried.setdefault(layer.node, []).append((blocks, noise, algorithm))
    best = {node: min(found, key=lambda each: each[1]) for node, found in tried.items()}
    sites = wiring.sites(name, {layer.node for layer in group})
    if params.algorithm == "awq" or (auto and sites is not None):
        weights = [layer.weight for layer in group]
        scales = input_scales(weights, inputs.magnitude, moment, params)
        inside = moment / scales[:, None] / scales[None]
        made = {}
        for layer in group:
            scaled = layer.weight * scales.numpy()
            blocks = round_blocks(scaled, "awq", params, inside)
            made[layer.node] = (blocks, error(scaled, blocks, inside, size)[1], "awq")
        if not best or sum(e[1] for e in made.values()) < sum(e[1] for e in best.values()):
            best = made
            choice.divided[name] = (scales.numpy(), sites)
    for layer in group:
        blocks, noise, algorithm = best[layer.node]
        choice.blocks[layer.node] = blocks
        choice.algorithms[layer.node] = algorithm
        signal = error(layer.weight, blocks, moment, size)[0]
        choice.noise[layer.node] = _decibels(signal, noise)


def _raise(
    model: Model,
    layers: Sequence[Layer],
    split: Split,
    params: QuantizeWeights,
    choice: Choice,
    observer: Observer,
) -> dict[str, float]:
    """Give 8 bits to the layers that cost the outputs most, up to `mean_bits`. By layer, what its
    rounding alone costs: energy of the change of the outputs, relative to that of the outputs."""
    if params.mean_bits is None:
        return {}
    with observer.work("measuring layers", len(layers)) as progress:
        rounded = {layer.node: _stands_for(layer, params, choice) for layer in layers}
        costs = layer_costs.costs(model, layers, rounded, split, progress)
    by_name = {layer.node: layer for layer in layers}
    spare = (params.mean_bits - 4) / 4 * sum(layer.size for layer in layers)
    raised: list[Layer] = []
    for name in sorted(costs, key=lambda each: costs[each] / by_name[each].size)[::-1]:
        if by_name[name].size <= spare:
            raised.append(by_name[name])
            spare -= by_name[name].size
    fine = params.model_copy(update={"bits": 8})
    for groups in _batches(raised):
        inputs = observe_inputs(model, groups, split, params.samples)
        for value, group in groups.items():
            by, _ = choice.divided.get(value, (np.ones(1, np.float32), None))
            moment = inputs[value].moment / torch.from_numpy(by)[:, None] / torch.from_numpy(by)
            for layer in group:
                weight = layer.weight * by
                blocks = round_blocks(weight, "gptq", fine, moment)
                choice.blocks[layer.node], choice.algorithms[layer.node] = blocks, "gptq"
                found = error(weight, blocks, moment, params.block_size)
                choice.noise[layer.node] = _decibels(*found)
    return costs


def _stands_for(layer: Layer, params: QuantizeWeights, choice: Choice) -> np.ndarray:
    """A layer's weight as it is rounded."""
    weight = dequantize(choice.blocks[layer.node], params.block_size)
    by, _ = choice.divided.get(layer.input, (1.0, None))
    made: np.ndarray = (weight / by).astype(np.float32)
    return made


def _decibels(signal: float, noise: float) -> float:
    if noise <= 0 or signal <= 0:
        return 200.0  # beyond what float32 resolves
    return round(10 * float(np.log10(signal / noise)), 2)


def _batches(layers: Sequence[Layer]) -> Iterator[dict[str, list[Layer]]]:
    """Layers by input, in groups whose second-moment matrices fit into memory together."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.input, []).append(layer)
    some: dict[str, list[Layer]] = {}
    held = 0
    for name, group in groups.items():
        size = 4 * group[0].shape[1] ** 2
        if some and held + size > _HESSIANS:
            yield some
            some, held = {}, 0
        some[name], held = group, held + size
    if some:
        yield some
