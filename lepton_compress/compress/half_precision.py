"""Conversion of an ONNX graph to float16, with what does not fit left in float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from lepton_compress.artifacts import Model, Observer, Split, StepOutcome
from lepton_compress.compress import account
from lepton_compress.compress.calibration import observe
from lepton_compress.compress.half_graph import rewrite, slots
from lepton_compress.compress.observed import Observed
from lepton_compress.compress.prepare import prepare
from lepton_compress.compress.session import optimised
from lepton_compress.graph import value_specs

if TYPE_CHECKING:
    from lepton_compress.compress.float16 import Float16

    Weights = dict[str, np.ndarray]

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_subnormal) / 2
"""What is smaller rounds to zero."""


def convert(
    model: Model, calibration: Split, params: Float16, *, threads: int, observer: Observer
) -> StepOutcome:
    """The graph in float16, with casts behind its inputs and before its outputs.

    Args:
        model: a graph in float32.
        calibration: inputs (samples, ...).

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
    """
    ready = prepare(model, calibration, params.keep, "float16")
    graph = ready.model.value
    weights: Weights = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    specs = value_specs(graph)
    floats = {name for name, spec in specs.items() if spec.dtype == "float32"}
    seen = observe(
        ready.model,
        sorted(floats - set(weights)),
        ready.split,
        histogram=False,
        samples=params.samples,
        threads=threads,
        observer=observer,
    )
    reasons = {
        node.name: why
        for node in graph.graph.node
        if floats & {*node.input, *node.output}
        and (why := _obstacle(node, graph, weights, seen, params)) is not None
    }
    holders = [node for node in graph.graph.node if set(node.input) & set(weights)]
    if all(node.name in reasons for node in holders):
        lines = account.left_in_float(reasons)
        return StepOutcome(model, changed=False, notes=("no weight can be converted", *lines))
    outcome = rewrite(ready.model, floats, set(reasons))
    computed = _computed_in_half(outcome.value)
    nodes = account.weighted(graph)
    statistics = {
        "calibration_samples": min(params.samples, len(ready.split)),
        "weighted": {
            "float16": [name for name in nodes if name not in reasons],
            "float": {name: reasons[name] for name in nodes if name in reasons},
        },
        "computed_in_float16": [name for name in nodes if name in computed],
        "output_sqnr_db": account.output_noise(ready.model, outcome, ready.split),
    }
    notes = [*ready.notes, *account.left_in_float(reasons), *_vanished(weights)]
    if nodes and not statistics["computed_in_float16"]:
        notes.append("ONNX Runtime computes it in float32 on this processor: smaller, not faster")
    return StepOutcome(outcome, changed=True, statistics=statistics, notes=tuple(notes))


def _obstacle(
    node: onnx.NodeProto,
    graph: onnx.ModelProto,
    weights: Weights,
    seen: Mapping[str, Observed],
    params: Float16,
) -> str | None:
    """Why a node stays in float32, or None."""
    if node.name in params.keep:
        return "named in `keep`"
    if slots(node, graph) is None:
        return f"{node.op_type} has no float16 form"
    for name in node.input:
        if name in weights and np.abs(weights[name]).max(initial=0.0) > LARGEST:
            return "a weight exceeds what float16 holds"
    values = [seen[name] for name in (*node.input, *node.output) if name in seen]
    if any(max(-each.low, each.high) > LARGEST for each in values):
        return "a value exceeds what float16 holds"
    return None


def _vanished(weights: Weights) -> Iterator[str]:
    """A note on weights too small for float16."""
    count = sum(
        int(((array != 0) & (np.abs(array) <= SMALLEST)).sum()) for array in weights.values()
    )
    if count:
        yield f"{count} weights below {SMALLEST:.1e} became zero"


def _computed_in_half(graph: onnx.ModelProto) -> set[str]:
    """Names of the nodes that ONNX Runtime runs on float16 weights as they are; before the others
    it casts to float32."""
    made = optimised(graph, fused=True)
    halves = {
        tensor.name for tensor in made.graph.initializer if tensor.data_type == TensorProto.FLOAT16
    }
    return {
        node.name
        for node in made.graph.node
        if node.op_type in account.WEIGHTED and set(node.input) & halves
    }
