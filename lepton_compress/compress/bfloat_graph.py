"""Weights of an ONNX graph stored in bfloat16, each with a Cast to float32 behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress import account, large
from lepton_compress.compress.absorb import inputs_of
from lepton_compress.compress.prepare import prepare
from lepton_compress.load.external import TensorFile, array_of, byte_count
from lepton_compress.load.forms import duplicate, signature

if TYPE_CHECKING:
    from lepton_compress.compress.bfloat16 import Bfloat16

_KIND = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
_SMALL = 256
"""Bytes below which a Cast takes more of the file than it saves."""
_COMPUTED = "ONNX Runtime casts the weights once, when it loads them, and computes in float32: "
_COMPUTED += "half the file, neither faster nor smaller in memory"


def store(model: Model, params: Bfloat16, context: StepContext) -> StepOutcome:
    """The graph with its float32 weights in bfloat16; unchanged if it has none of some size.

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
    """
    if model.folder is not None:
        large.check(model, params.keep, context.data.calibration, "bfloat16")
        return _stored(model, params, context)
    ready = prepare(model, context.data.calibration, params.keep, "bfloat16")
    outcome = _stored(ready.model, params, context)
    if not outcome.changed:
        return outcome
    noise = account.output_noise(ready.model, outcome.model, ready.split)
    statistics = outcome.statistics | {"output_sqnr_db": noise}
    notes = (*ready.notes, *outcome.notes)
    return StepOutcome(outcome.model, True, statistics, notes)


def _stored(model: Model, params: Bfloat16, context: StepContext) -> StepOutcome:
    made = duplicate(model).value
    graph = made.graph
    chosen = {tensor.name for tensor in _weights(graph, params)}
    if not chosen:
        reason = f"no float32 weight of {_SMALL} bytes or more may be converted"
        return StepOutcome(model, changed=False, notes=(reason,))
    before = sum(byte_count(tensor) for tensor in graph.initializer)
    if model.folder is None:
        _convert(graph, chosen, None, model)
    else:
        with large.new_file(context) as file:
            _convert(graph, chosen, file, model)
            large.carry(graph, model, file)
    nodes = [
        helper.make_node("Cast", [f"{name}_bfloat16"], [name], f"{name}_cast", to=TensorProto.FLOAT)
        for name in sorted(chosen)
    ]
    nodes += list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    if model.folder is None:
        onnx.checker.check_model(made)
    reasons = {
        name: "named in `keep`" if name in params.keep else "it has no weight to store"
        for name, node in account.weighted(model.value).items()
        if not chosen & set(node.input)
    }
    statistics = {
        "tensors": len(chosen),
        "bytes_before": before,
        "bytes_after": sum(byte_count(tensor) for tensor in graph.initializer),
        "computed_in": "float32",
        "weighted": {
            "bfloat16": [n for n in account.weighted(model.value) if n not in reasons],
            "float": reasons,
        },
    }
    notes = (*account.left_in_float(reasons), _COMPUTED)
    if model.folder is not None:
        notes = (*notes, large.UNMEASURED)
    outcome = Model("graph", made, *signature(made), context.scratch if model.folder else None)
    return StepOutcome(outcome, changed=True, statistics=statistics, notes=notes)


def _weights(graph: onnx.GraphProto, params: Bfloat16) -> Iterator[TensorProto]:
    """The constants to store in bfloat16."""
    # An initialiser that is an input too may be replaced by the caller, and an output must stay.
    fixed = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        if node.name in params.keep:
            fixed |= set(inputs_of(node))
    for tensor in graph.initializer:
        large_enough = byte_count(tensor) >= _SMALL
        if tensor.data_type == TensorProto.FLOAT and large_enough and tensor.name not in fixed:
            yield tensor


def _convert(
    graph: onnx.GraphProto, chosen: set[str], file: TensorFile | None, model: Model
) -> None:
    for tensor in graph.initializer:
        if tensor.name not in chosen:
            continue
        # Rounds to nearest, ties to even.
        array = np.asarray(array_of(tensor, model.folder)).astype(_KIND)
        name = f"{tensor.name}_bfloat16"
        tensor.CopyFrom(file.write(name, array) if file else numpy_helper.from_array(array, name))
