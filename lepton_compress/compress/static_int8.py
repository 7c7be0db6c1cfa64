"""Static int8 quantisation of an ONNX graph: QDQ nodes round what runs in integers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from lepton_compress.artifacts import Model, Observer, Split, StepOutcome
from lepton_compress.compress.calibration import calibrate
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call, duplicate, signature
from lepton_compress.registry import nearest

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

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BATCH = 32
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


def quantize(
    model: Model,
    calibration: Split,
    *,
    activations: str,
    per_channel: bool,
    method: str,
    samples: int,
    keep: Sequence[str],
    threads: int,
    observer: Observer,
) -> StepOutcome:
    """The quantised graph of a float graph.

    Raises:
        InputError: `keep` names no node, or the graph is quantised already.
    """
    graph = model.value
    nodes = [node.name for node in graph.graph.node]
    for name in keep:
        if name not in nodes:
            raise InputError(
                f"there is no node {name!r}", where="quantize: keep", mend=nearest(name, nodes)
            )
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.graph.node):
        raise InputError("the model is quantised already", where="quantize", mend="drop the step")
    weighted = [
        node.name
        for node in graph.graph.node
        if node.op_type in _WEIGHTED and node.name not in keep
    ]
    if not weighted:
        reason = f"the graph has none of {', '.join(_WEIGHTED)} to quantise"
        return StepOutcome(model, changed=False, notes=(reason,))
    calibrated = calibrate(
        model,
        calibration,
        method=method,
        operators=OPERATORS,
        keep=keep,
        samples=samples,
        threads=threads,
        observer=observer,
    )
    tensors = TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in calibrated.ranges.items()
        },
    )
    with _quiet():
        quantizer = QDQQuantizer(
            duplicate(model).value,
            per_channel=per_channel,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=_TYPES[activations],
            tensors_range=tensors,
            nodes_to_quantize=[],
            nodes_to_exclude=list(keep),
            op_types_to_quantize=list(OPERATORS),
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    made = quantizer.model.model
    made.producer_name, made.producer_version = graph.producer_name, graph.producer_version
    del made.metadata_props[:]
    onnx.checker.check_model(made)
    outcome = Model("graph", made, *signature(made))
    held = {node.output[0] for node in made.graph.node if node.op_type == "DequantizeLinear"}
    integer = [
        node.name
        for node in made.graph.node
        if node.op_type in _WEIGHTED and set(node.input[:2]) <= held
    ]
    statistics = {
        "calibration": calibrated.method,
        "calibration_samples": calibrated.samples,
        "weighted_nodes": [len(weighted), len(integer)],
        "output_sqnr_db": _noise(model, outcome, calibration),
        "ranges": {name: list(pair) for name, pair in calibrated.ranges.items()},
        "seen": {name: list(pair) for name, pair in calibrated.seen.items()},
    }
    left = sorted(set(weighted) - set(integer))
    notes = [f"left in float: {', '.join(left)}"] if left else []
    if calibrated.constant:
        notes.append(f"never varies on the calibration data: {', '.join(calibrated.constant)}")
    return StepOutcome(outcome, changed=True, statistics=statistics, notes=tuple(notes))


def _noise(before: Model, after: Model, split: Split) -> float | None:
    """Signal to quantisation noise of the first float output, in decibels."""
    names = [spec.name for spec in before.inputs]
    feeds = next(split.named(names).batches(_BATCH * 4))
    wanted, given = call(before, feeds), call(after, feeds)
    for name, reference in wanted.items():
        if reference.dtype.kind == "f":
            noise = float(np.square(reference - given[name], dtype=np.float64).sum())
            signal = float(np.square(reference, dtype=np.float64).sum())
            return round(10 * float(np.log10(signal / noise)), 2) if noise and signal else None
    return None


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
