"""Quantisation-aware training of a module, ending in its QDQ graph.

trace    the module as operators, and where its graph will round             traced, placement
build    the operators with fake quantisation put in                         fake_quantization
train    on the task, on the original's outputs, or both                     training
carry    integers, scales and zero points into the graph, and look whether   trained_graph
         it holds them
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lepton_compress.artifacts import Model, Split, StepContext, StepOutcome
from lepton_compress.compress import (
    account,
    masks,
    processor,
    saturation,
    static_int8,
    trained_graph,
)
from lepton_compress.compress.calibration import METHODS, Calibration, calibrate
from lepton_compress.compress.distillation import distillation
from lepton_compress.compress.fake_quantization import (
    ActivationRange,
    Layer,
    Norm,
    SharedRange,
    WeightStep,
    scaled,
)
from lepton_compress.compress.observed import Observed
from lepton_compress.compress.placement import Placement, TracedLayer, place, tensor_of
from lepton_compress.compress.prepare import prepare
from lepton_compress.compress.quantize import Quantize
from lepton_compress.compress.traced import Traced, match, trace, varied
from lepton_compress.compress.training import Schedule, deterministic, task_loss, train
from lepton_compress.errors import InputError, PluginError
from lepton_compress.load.forms import call, duplicate, flatten
from lepton_compress.provenance import cpu

if TYPE_CHECKING:
    from lepton_compress.compress.quantize_aware import QuantizeAware
    from lepton_compress.compress.training import Loss

STEP = "quantize_aware"
_BATCH = 32
_FITTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Network:
    """A traced module under fake quantisation.

    Attributes:
        graph: it, ready to be trained.
        ranges: ONNX tensor to its range.
        layers: ONNX node to the layer that it becomes.
    """

    graph: torch.fx.GraphModule
    ranges: dict[str, ActivationRange]
    layers: dict[str, Layer]


def quantize(model: Model, params: QuantizeAware, context: StepContext) -> StepOutcome:
    """Train a module for int8 and give its quantised graph.

    Raises:
        InputError: it cannot be traced or lowered, is quantised already, the loss needs labels
            that are not there, `keep` names no node, or the data do not fit.
        LeptonError: the loss is no longer finite.
    """
    if context.lower is None:
        raise PluginError("the context has no `lower`", where=f"step {STEP}")
    loss, notes = _loss(params, context)
    kind = processor.activations(params.activations, cpu())
    saturating = processor.saturates(params.saturating, cpu())
    bits = processor.weight_bits(params.weight_bits, saturating=saturating.value)
    names = [spec.name for spec in model.inputs]
    given = Quantize(
        activations=params.activations, per_channel=params.per_channel, keep=params.keep
    )
    split = context.data.calibration.named(names)
    traced = trace(model, split, STEP)
    placement = _placement(model, traced, split, given, context)
    if not placement.layers:
        reason = f"the graph has none of {', '.join(_FITTED)} whose weights can be trained"
        left = account.left_in_float(placement.reasons)
        return StepOutcome(model, changed=False, notes=(reason, *left))
    with contextlib.ExitStack() as stay, deterministic(context.seed, context.threads):
        network = _build(traced, placement, split, params, bits.value, context)
        stay.enter_context(masks.held(model.value, traced.tensors))
        trained = train(
            network.graph,
            context.data.train.named(names),
            loss,
            Schedule(**params.model_dump(include=set(Schedule.__dataclass_fields__))),
            observer=context.observer,
            label="training",
            told=_freezing(network, params.freeze),
        )
    result = duplicate(model)
    traced.store(result.value)
    ready = prepare(context.lower(result), split, params.keep, STEP)
    carried = trained_graph.carry(
        ready.model,
        placement,
        {name: each.step() for name, each in network.ranges.items()},
        network.layers,
        given,
        kind.value,
        bits.value,
    )
    seen = _seen(ready.model, split, placement, params, context)
    statistics: dict[str, Any] = {
        "calibration": params.ranges,
        "rounding": "trained",
        "calibration_samples": seen.samples,
        "activations": kind.told(),
        "symmetric": False,
        "weight_bits": bits.told(),
        "saturating": saturating.told(),
        "training": trained,
        "trained_layers": len(network.layers),
        "trained_ranges": len(network.ranges),
    }
    notes += ready.notes
    if saturating.value and bits.value == 8:
        found = saturation.check(carried.model, split, 16, context.observer)
        statistics["saturation"] = asdict(found)
        notes += (found.told(8),)
    calibrated = Calibration(params.ranges, seen.samples, carried.ranges, seen.seen, seen.constant)
    reasons = static_int8.reasons(account.weighted(ready.model.value), ()) | placement.reasons
    statistics |= static_int8.describe(ready.model, carried.model, calibrated, reasons, kind.value)
    statistics["output_sqnr_db"] = account.output_noise(ready.model, carried.model, split)
    statistics["artifact"] = _closeness(network.graph, carried.model, split)
    notes += tuple(account.left_in_float({**placement.reasons, **statistics["weighted"]["float"]}))
    made = Model("graph", carried.model.value, model.inputs, carried.model.outputs)
    return StepOutcome(made, changed=True, statistics=statistics, notes=notes)


def _loss(params: QuantizeAware, context: StepContext) -> tuple[Loss, tuple[str, ...]]:
    targets = context.data.train.targets
    if not params.distil:
        if targets is None:
            raise InputError(
                "the train split has no targets",
                where=f"{STEP}: data: train",
                mend="set distil: true, which needs none",
            )
        return (lambda outputs, _, targets: task_loss(outputs, targets)), ()
    return distillation(
        context.original(), params.temperature, params.labels, context.data, where=STEP
    )


def _placement(
    model: Model, traced: Traced, split: Split, given: Quantize, context: StepContext
) -> Placement:
    assert context.lower is not None  # noqa: S101 - checked by the caller
    other = varied(model, context.seed)
    lowered = prepare(context.lower(other), split, given.keep, STEP).model
    traced.load(other.value)
    matched = match(traced, lowered, split)
    traced.load(model.value)
    return place(traced, lowered, matched, given)


def _build(
    traced: Traced,
    placement: Placement,
    split: Split,
    params: QuantizeAware,
    bits: int,
    context: StepContext,
) -> Network:
    """Put fake quantisation in. The first ranges are those of least squared error on the
    calibration data, for ranges that follow batches all values seen."""
    learned = params.ranges == "learned"
    graph, nodes = traced.graph, traced.graph.graph
    first = _first_ranges(traced, placement, split, params, context)
    layers: dict[str, Layer] = {}
    stands: dict[torch.fx.Node, torch.fx.Node] = {}
    for name, found in placement.layers.items():
        layer = _layer(graph, found, bits, per_channel=params.per_channel, learned=learned)
        stands[found.last] = _insert(graph, layer, found.last, found.operator.args[0])
        layers[name] = layer
    ranges: dict[str, ActivationRange] = {}
    for name, node in placement.values.items():
        bounds = placement.bounds.get(name, (-np.inf, np.inf))
        ranges[name] = ActivationRange(first[name], bounds, learned=learned)
        given = stands.get(node, node)
        _insert(graph, ranges[name], given, given)
    for name, node in placement.shared.items():
        given = stands.get(node, node)
        _insert(graph, SharedRange(ranges[placement.sources[name]]), given, given)
    for name, layer in layers.items():
        layer.takes(ranges[placement.inputs[name]])
    nodes.eliminate_dead_code()
    nodes.lint()
    graph.recompile()
    return Network(graph, ranges, layers)


def _insert(graph: torch.fx.GraphModule, part: nn.Module, after: Any, given: Any) -> torch.fx.Node:
    """Call a module of `given`, and let it stand where `after` does."""
    target = f"quantized_{sum(1 for _ in graph.children())}"
    graph.add_submodule(target, part)
    with graph.graph.inserting_after(after):
        made = graph.graph.call_module(target, (given,))
    for user in [each for each in after.users if each is not made]:
        user.replace_input_with(after, made)
    return made


def _first_ranges(
    traced: Traced,
    placement: Placement,
    split: Split,
    params: QuantizeAware,
    context: StepContext,
) -> dict[str, tuple[float, float]]:
    observed = {name: Observed() for name in placement.values}
    wanted = {node: name for name, node in placement.values.items()}
    learned = params.ranges == "learned"
    seen = 0

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            made = super().run_node(n)
            if n in wanted:
                observed[wanted[n]].add(made.detach().numpy(), seen, histogram=learned)
            return made

    traced.graph.eval()
    watch = Watch(traced.graph)
    places = [str(node.target) for node in traced.graph.graph.nodes if node.op == "placeholder"]
    with torch.no_grad():
        for feeds in split.batches(_BATCH, params.samples):
            given = [torch.from_numpy(feeds[name].copy()) for name in places]
            watch.run(*given, enable_io_processing=False)
            seen += len(given[0])
    for name, each in observed.items():
        if not np.isfinite([each.low, each.high]).all():
            raise InputError(
                f"{name} is NaN or infinite on some sample", where=f"{STEP}: calibration data"
            )
    choose = METHODS["mse" if learned else "minmax"]
    return {name: choose(each) for name, each in observed.items()}


def _layer(
    graph: torch.fx.GraphModule, found: TracedLayer, bits: int, *, per_channel: bool, learned: bool
) -> Layer:
    operator, rest = found.operator, found.operator.args[3:]
    target: Any = operator.target

    def compute(
        given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        made: torch.Tensor = target(given, weight, bias, *rest)
        return made

    weight = tensor_of(graph, operator.args[1])
    bias = tensor_of(graph, operator.args[2]) if len(operator.args) > 2 else None
    norm = None
    if found.norm is not None:
        gain, shift, mean, variance = (tensor_of(graph, each) for each in found.norm.args[1:5])
        momentum, epsilon = found.norm.args[6:8]
        norm = Norm(gain, shift, mean, variance, momentum, epsilon)  # type: ignore[arg-type]
    assert weight is not None  # noqa: S101 - `find_layers` gives only such
    folded = weight if norm is None else scaled(weight, norm.factor())
    step = WeightStep(folded, bits, per_channel=per_channel, learned=learned)
    return Layer(compute, weight, bias, norm, step)


def _freezing(network: Network, share: float) -> Any:
    """Told how much of the training is done, it fixes statistics and ranges for the last part."""

    def told(done: float) -> None:
        frozen = done >= 1 - share
        for layer in network.layers.values():
            layer.frozen = frozen
        for held in network.ranges.values():
            held.frozen = frozen

    return told


def _seen(
    lowered: Model, split: Split, placement: Placement, params: QuantizeAware, context: StepContext
) -> Calibration:
    """What the trained network's values are on calibration data, before they are rounded."""
    return calibrate(
        lowered,
        split,
        method="minmax",
        operators=static_int8.OPERATORS,
        keep=list(placement.reasons),
        samples=params.samples,
        threads=context.threads,
        observer=context.observer,
    )


def _closeness(graph: nn.Module, artifact: Model, split: Split) -> dict[str, Any]:
    """How close the artifact is to the network that was trained, under fake quantisation: the
    largest difference, as a share of the largest magnitude, and the share of equal predictions
    (largest value along the last axis) of the first output."""
    feeds = next(split.batches(account.SAMPLES))
    with torch.no_grad():
        wanted = flatten(graph(**{name: torch.from_numpy(a.copy()) for name, a in feeds.items()}))
    reference = wanted[0].numpy()
    given = next(iter(call(artifact, feeds).values()))
    apart = float(np.abs(reference - given).max()) / max(float(np.abs(reference).max()), 1e-12)
    equal = (reference.argmax(-1) == given.argmax(-1)).mean() if reference.ndim > 1 else None
    return {
        "samples": len(reference),
        "largest_difference": apart,
        "agreement": None if equal is None else float(equal),
    }
