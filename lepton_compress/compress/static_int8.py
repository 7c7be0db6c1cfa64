"""Static int8 quantisation of an ONNX graph: QDQ nodes round what runs in integers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from lepton_compress.artifacts import Model, Observer, Split, StepOutcome
from lepton_compress.compress import (
    account,
    attention,
    layout,
    processor,
    saturation,
    saved_ranges,
    soundness,
)
from lepton_compress.compress.calibration import Calibration, calibrate, symmetric
from lepton_compress.compress.observed import Range
from lepton_compress.compress.prepare import Prepared, prepare
from lepton_compress.compress.processor import Decision
from lepton_compress.load.forms import duplicate, signature
from lepton_compress.provenance import cpu

if TYPE_CHECKING:
    from lepton_compress.compress.quantize import Quantize

OPERATORS = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""What ONNX Runtime's CPU provider runs in integers, or passes through unchanged."""

_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8, "uint16": QuantType.QUInt16}
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize(
    model: Model,
    calibration: Split,
    params: Quantize,
    *,
    threads: int,
    observer: Observer,
    evaluation: Split | None = None,
    folder: Path = Path(),
) -> StepOutcome:
    """The quantised graph of a float graph.

    Args:
        model: a graph in float32.
        calibration: inputs (samples, ...).
        evaluation: more such inputs, to tell whether the calibration data are like them; they
            decide about nothing.
        folder: that saved ranges are relative to.

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
    """
    plan = draft(model, calibration, params, threads=threads, observer=observer, folder=folder)
    if isinstance(plan, StepOutcome):
        return plan
    params, ready, calibrated = plan.params, plan.ready, plan.calibrated
    bits = plan.bits.value

    def made_with(ranges: Mapping[str, Range]) -> Model:
        made = insert(ready.model, ranges, params, plan.kind.value, bits)
        if params.rounding == "adaptive":
            from lepton_compress.compress import rounding  # it takes torch, which is large

            rounding.adapt(
                ready.model,
                made.value,
                ready.split,
                samples=params.samples,
                largest=2 ** (bits - 1) - 1,
                threads=threads,
                observer=observer,
            )
        return made

    outcome = made_with(calibrated.ranges)
    statistics: dict[str, Any] = {
        "calibration": calibrated.method,
        "rounding": params.rounding,
        "calibration_samples": calibrated.samples,
        "calibrated_model": saved_ranges.model_digest(ready.model.value),
        "activations": plan.kind.told(),
        "symmetric": params.symmetric,
        "layout": plan.pooled.told(),
        "weight_bits": plan.bits.told(),
        "saturating": plan.saturating.told(),
    }
    notes = [*ready.notes]
    overflows = plan.saturating.value and plan.kind.value != "uint16"
    if overflows and params.weight_bits in ("auto", 8):
        # With `auto` the weights have seven bits by now; what eight would do is the reason.
        eight = outcome
        if bits == 7:
            eight = insert(ready.model, calibrated.ranges, params, plan.kind.value, 8)
        found = saturation.check(eight, ready.split, params.saturation_samples, observer)
        statistics["saturation"] = asdict(found)
        notes.append(found.told(bits))
    left = reasons(account.weighted(ready.model.value), params.keep)
    statistics |= describe(ready.model, outcome, calibrated, left, plan.kind.value)
    statistics["output_sqnr_db"] = account.output_noise(ready.model, outcome, ready.split)
    notes += account.left_in_float(statistics["weighted"]["float"])
    statistics["held_in_float"] = account.held_in_float(
        ready.model, statistics["weighted"]["float"]
    )
    notes += account.told_of_held(statistics["held_in_float"])
    if params.ranges:
        statistics["ranges_from"] = params.ranges
        notes.append(f"ranges from {params.ranges}, not calibrated")
    else:
        found_of, told = soundness.account(
            ready.model, calibrated, evaluation, threads=threads, observer=observer
        )
        statistics |= found_of
        notes += told
    if params.resamples:
        statistics["resampled"] = soundness.resampled(
            calibrated,
            params,
            lambda ranges: account.output_noise(ready.model, made_with(ranges), ready.split),
        )
        notes += soundness.told_of(statistics["resampled"], statistics["output_sqnr_db"])
    if calibrated.constant:
        notes.append(f"never varies on the calibration data: {', '.join(calibrated.constant)}")
    return StepOutcome(outcome, changed=True, statistics=statistics, notes=tuple(notes))


@dataclass(frozen=True)
class Draft:
    """All that is decided before a graph is rewritten. `params` keep in float what they name and
    what cannot be quantised in its place."""

    params: Quantize
    ready: Prepared
    calibrated: Calibration
    kind: Decision
    saturating: Decision
    bits: Decision
    pooled: Decision

    def graph(self, params: Quantize) -> Model:
        """The quantised graph, weights rounded to the nearest."""
        ranges = self.calibrated.ranges
        return insert(self.ready.model, ranges, params, self.kind.value, self.bits.value)


def draft(
    model: Model,
    calibration: Split,
    params: Quantize,
    *,
    threads: int,
    observer: Observer,
    folder: Path = Path(),
) -> Draft | StepOutcome:
    """Check, calibrate and decide; an outcome that changes nothing if there is nothing to quantise.

    Raises:
        InputError: as `quantize`.
    """
    ready = prepare(model, calibration, params.keep, "quantize")
    apart, told_apart = attention.take_apart(ready.model, ready.split, params.keep)
    if apart is not ready.model:
        ready = replace(prepare(apart, calibration, (), "quantize"), notes=ready.notes)
    between = attention.parts_in_float(ready.model, ready.split)
    params = params.model_copy(update={"keep": [*params.keep, *between]})
    nodes = account.weighted(ready.model.value)
    if not any(
        node.op_type in _WEIGHTED for name, node in nodes.items() if name not in params.keep
    ):
        reason = f"the graph has none of {', '.join(_WEIGHTED)} to quantise"
        return StepOutcome(model, changed=False, notes=(reason, *reasons(nodes, params.keep)))
    kind = processor.activations(params.activations, cpu())
    pooled = processor.pools(params.layout, kind.value, cpu())
    told = (*ready.notes, *told_apart, *account.left_in_float(between))
    model = layout.pool_means(ready.model) if pooled.value else ready.model
    ready = replace(ready, model=model, notes=told)
    if params.ranges:
        path = folder / params.ranges
        calibrated = saved_ranges.load(path, ready.model, OPERATORS, params.keep)
    else:
        calibrated = calibrate(
            ready.model,
            ready.split,
            method=_method(params),
            operators=OPERATORS,
            keep=params.keep,
            samples=params.samples,
            threads=threads,
            observer=observer,
        )
    if params.symmetric:
        # Ranges as they are in effect: what is saved here is what the graph holds.
        ranges = {name: symmetric(each) for name, each in calibrated.ranges.items()}
        calibrated = replace(calibrated, ranges=ranges)
    saturating = processor.saturates(params.saturating, cpu())
    bits = processor.weight_bits(
        params.weight_bits, saturating=saturating.value and kind.value != "uint16"
    )
    return Draft(params, ready, calibrated, kind, saturating, bits, pooled)


def _method(params: Quantize) -> str:
    if params.calibration != "auto":
        return params.calibration
    return "minmax" if params.activations == "uint16" else "mse"


def insert(
    model: Model,
    ranges: Mapping[str, Range],
    params: Quantize,
    activations: str,
    bits: int,
    *,
    given: Mapping[str, Any] | None = None,
) -> Model:
    """The graph with Q and DQ nodes around what `OPERATORS` names.

    Args:
        model: a graph with a type for every value.
        ranges: tensor to the range to quantise over.
        params: says what to keep in float, and whether scales are per channel and symmetric.
        activations: "uint8", "int8" or "uint16"; the last takes ONNX Runtime's contributed
            operators where the operator set (below 21) has none.
        bits: of the weights, 8 or 7.
        given: tensor to its scale and zero point as ONNX Runtime's `TensorQuantOverrides` has
            them; they are taken as they are. Biases must fit 32 bits with them.
    """
    fixed = {"TensorQuantOverrides": given, "QDQDisableWeightAdjustForInt32Bias": True}
    tensors = TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.items()
        },
    )
    graph = model.value
    with _quiet():
        quantizer = QDQQuantizer(
            duplicate(model).value,
            per_channel=params.per_channel,
            reduce_range=bits == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=_TYPES[activations],
            tensors_range=tensors,
            nodes_to_quantize=[],
            nodes_to_exclude=list(params.keep),
            op_types_to_quantize=list(OPERATORS),
            # Told to be symmetric it keeps each Relu, which an asymmetric zero point stands for.
            extra_options={
                "ActivationSymmetric": params.symmetric,
                "WeightSymmetric": True,
                **(fixed if given else {}),
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    made = quantizer.model.model
    made.producer_name, made.producer_version = graph.producer_name, graph.producer_version
    del made.metadata_props[:]
    onnx.checker.check_model(made)
    return Model("graph", made, *signature(made))


def describe(
    before: Model,
    after: Model,
    calibrated: Calibration,
    reasons: Mapping[str, str],
    activations: str,
) -> dict[str, Any]:
    """Statistics of a quantised graph: which nodes run in integers, and the ranges. `reasons` has
    the nodes that were left in float on purpose, and why."""
    held = {node.output[0] for node in after.value.graph.node if node.op_type == "DequantizeLinear"}
    rounded = {node.name for node in after.value.graph.node if set(node.input[:2]) <= held}

    def otherwise(name: str) -> str:
        if name not in rounded:
            return "an input of it is not quantised"
        if activations == "uint16":
            return "rounded to 16 bits, but CPUs have no integer kernel for them"
        return "rounded, but ONNX Runtime has no integer kernel for it here"

    return {
        "weighted": account.account(before, after, reasons, otherwise),
        "ranges": {name: list(pair) for name, pair in calibrated.ranges.items()},
        "seen": {name: list(pair) for name, pair in calibrated.seen.items()},
    }


def reasons(nodes: Mapping[str, onnx.NodeProto], keep: Collection[str]) -> dict[str, str]:
    """Node to why it is not quantised, of those that are left out on purpose."""
    found = {
        name: f"ONNX Runtime has no static int8 kernel for {node.op_type}"
        for name, node in nodes.items()
        if node.op_type not in _WEIGHTED
    }
    return found | dict.fromkeys(keep, "named in `keep`")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's quantiser logs advice to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
