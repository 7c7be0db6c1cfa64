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
from lepton_compress.compress.fitting import fit, loss_of
from lepton_compress.compress.observed import Observed
from lepton_compress.compress.placement import Placement, TracedLayer, place, tensor_of
from lepton_compress.compress.prepare import prepare
from lepton_compress.compress.processor import Decision
from lepton_compress.compress.quantize import Quantize
from lepton_compress.compress.traced import Traced, match, trace, varied
from lepton_compress.compress.training import deterministic
from lepton_compress.errors import InputError, PluginError
from lepton_compress.load.forms import call, duplicate, flatten
from lepton_compress.provenance import cpu

if TYPE_CHECKING:
    from collections.abc import Callable

    from lepton_compress.compress.quantize_aware import QuantizeAware
    from lepton_compress.compress.training import Loss

STEP = "quantize_aware"
_BATCH = 32
_FITTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Network:
    """A traced module under fake quantisation; its tensors are those of the trace.

    Attributes:
        graph: it, ready to be trained.
        ranges: ONNX tensor to its range.
        layers: ONNX node to the layer that it becomes.
    """

    graph: torch.fx.GraphModule
    ranges: dict[str, ActivationRange]
    layers: dict[str, Layer]

    def freeze(self, frozen: bool = True) -> None:
        """Keep the statistics of batch normalisation and observed ranges as they are, or not."""
        for layer in self.layers.values():
            layer.frozen = frozen
        for held in self.ranges.values():
            held.frozen = frozen


@dataclass(frozen=True)
class Decided:
    """What is settled before training, and stays.

    Attributes:
        given: as a quantiser without training would be told it.
    """

    traced: Traced
    placement: Placement
    given: Quantize
    kind: Decision
    saturating: Decision
    bits: Decision


def quantize(model: Model, params: QuantizeAware, context: StepContext) -> StepOutcome:
    """Train a module for int8 and give its quantised graph.

    Raises:
        InputError: it cannot be traced or lowered, is quantised already, the loss needs labels
            that are not there, `keep` names no node, or the data do not fit.
        LeptonError: the loss is no longer finite.
    """
    loss, notes = _loss(model, params, context)
    decided = decide(model, params, context)
    if isinstance(decided, StepOutcome):
        return decided
    with contextlib.ExitStack() as stay, deterministic(context.seed, context.threads):
        network = build(decided, params, context)
        stay.enter_context(masks.held(model.value, decided.traced.tensors))
        trained = fit(
            network.graph,
            model,
            loss,
            params,
            context,
            told=lambda done: network.freeze(done >= 1 - params.freeze),
        )
    return carried(model, decided, network, params, context, trained, notes)


def decide(model: Model, params: QuantizeAware, context: StepContext) -> Decided | StepOutcome:
    """Trace a module and settle where its artifact will round; an outcome that changes nothing if
    there is nothing to round.

    Raises:
        InputError: as `quantize`, but for the loss.
    """
    kind = processor.activations(params.activations, cpu())
    saturating = processor.saturates(params.saturating, cpu())
    bits = processor.weight_bits(params.weight_bits, saturating=saturating.value)
    given = Quantize(
        activations=params.activations, per_channel=params.per_channel, keep=params.keep
    )
    split = _calibration(model, context)
    traced = trace(model, split, STEP)
    placement = _placement(model, traced, split, given, context)
    if not placement.layers:
        reason = f"the graph has none of {', '.join(_FITTED)} whose weights can be trained"
        left = account.left_in_float(placement.reasons)
        return StepOutcome(model, changed=False, notes=(reason, *left))
    return Decided(traced, placement, given, kind, saturating, bits)


def carried(
    model: Model,
    decided: Decided,
    network: Network,
    params: QuantizeAware,
    context: StepContext,
    trained: dict[str, Any],
    notes: tuple[str, ...],
) -> StepOutcome:
    """The quantised graph of a network that was trained, with its ranges and integers.

    Args:
        model: what was traced; its weights may be the trained ones or older.
        trained: statistics of the training.
    """
    traced, placement, bits = decided.traced, decided.placement, decided.bits
    split = _calibration(model, context)
    result = duplicate(model)
    traced.store(result.value)
    ready = prepare(_lower(context)(result), split, params.keep, STEP)
    carried = trained_graph.carry(
        ready.model,
        placement,
        {name: each.step() for name, each in network.ranges.items()},
        network.layers,
        decided.given,
        decided.kind.value,
        bits.value,
    )
    seen = _seen(ready.model, split, placement, params, context)
    statistics: dict[str, Any] = {
        "calibration": params.ranges,
        "rounding": "trained",
        "calibration_samples": seen.samples,
        "activations": decided.kind.told(),
        "symmetric": False,
        "weight_bits": bits.told(),
        "saturating": decided.saturating.told(),
        "training": trained,
        "trained_layers": len(network.layers),
        "trained_ranges": len(network.ranges),
    }
    notes += ready.notes
    if decided.saturating.value and bits.value == 8:
        found = saturation.check(carried.model, split, 16, context.observer)
        statistics["saturation"] = asdict(found)
        notes += (found.told(8),)
    calibrated = Calibration(params.ranges, seen.samples, carried.ranges, seen.seen, seen.constant)
    reasons = static_int8.reasons(account.weighted(ready.model.value), ()) | placement.reasons
    statistics |= static_int8.describe(
        ready.model, carried.model, calibrated, reasons, decided.kind.value
    )
    statistics["output_sqnr_db"] = account.output_noise(ready.model, carried.model, split)
    statistics["artifact"] = _closeness(network.graph, carried.model, split)
    notes += tuple(account.left_in_float({**placement.reasons, **statistics["weighted"]["float"]}))
    made = Model("graph", carried.model.value, model.inputs, carried.model.outputs)
    return StepOutcome(made, changed=True, statistics=statistics, notes=notes)


def _calibration(model: Model, context: StepContext) -> Split:
    return context.data.calibration.named([spec.name for spec in model.inputs])


def _lower(context: StepContext) -> Callable[[Model], Model]:
    if context.lower is None:
        raise PluginError("the context has no `lower`", where=f"step {STEP}")
    return context.lower


def _loss(
    model: Model, params: QuantizeAware, context: StepContext
) -> tuple[Loss, tuple[str, ...]]:
    targets = context.data.train.targets
    if not params.distil:
        if targets is None and not params.references():
            raise InputError(
                "the train split has no targets",
                where=f"{STEP}: data: train",
                mend="set distil: true, which needs none",
            )
        return loss_of(params, model, context), ()
    return distillation(
        context.original(), params.temperature, params.labels, context.data, where=STEP
    )


def _placement(
    model: Model, traced: Traced, split: Split, given: Quantize, context: StepContext
) -> Placement:
    other = varied(model, context.seed)
    lowered = prepare(_lower(context)(other), split, given.keep, STEP).model
    traced.load(other.value)
    matched = match(traced, lowered, split)
    traced.load(model.value)
    return place(traced, lowered, matched, given)


def build(decided: Decided, params: QuantizeAware, context: StepContext) -> Network:
    """Put fake quantisation in. The first ranges are those of least squared error on the
    calibration data, for ranges that follow batches all values seen."""
    learned = params.ranges == "learned"
    traced, placement, bits = decided.traced, decided.placement, decided.bits.value
    graph, nodes = traced.graph, traced.graph.graph
    first = _first_ranges(decided, params, context)
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
    decided: Decided, params: QuantizeAware, context: StepContext
) -> dict[str, tuple[float, float]]:
    traced, placement = decided.traced, decided.placement
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
    split = context.data.calibration.named(places)
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
