"""What every scheme does with a graph before it quantises: check it, its data and the names it is
given, bring an old operator set up to date, and find the types that shape inference misses."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import version_converter
from onnx.shape_inference import InferenceError

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.account import is_integer
from lepton_compress.compress.session import observing
from lepton_compress.errors import InputError
from lepton_compress.graph import value_specs
from lepton_compress.load import forms
from lepton_compress.load.forms import duplicate, signature
from lepton_compress.registry import nearest

OPSET = 13
"""The first whose QuantizeLinear takes a scale for each channel."""

_PACKED = ("DequantizeLinear", "DynamicQuantizeLinear", "MatMulNBits", "QuantizeLinear")
_BATCHES = (2, 3)
"""Of the sample runs; a dimension that differs between them depends on the batch."""


@dataclass(frozen=True)
class Prepared:
    """A graph with a type for every value, its calibration data, and what had to be done."""

    model: Model
    split: Split
    notes: tuple[str, ...]


def prepare(model: Model, split: Split, keep: Collection[str], where: str) -> Prepared:
    """Check a float graph and make it ready to be quantised.

    Args:
        model: a graph.
        split: calibration data; inputs (samples, ...).
        keep: names of nodes.
        where: the step, to name in errors.

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
    """
    check_keep(model.value, keep, where)
    refuse_quantised(model.value, where)
    data = fitting(model, split, where)
    upgraded, notes = upgrade(model, where)
    typed, more = with_types(upgraded, data, where)
    return Prepared(typed, data, (*notes, *more))


def check_keep(graph: onnx.ModelProto, keep: Collection[str], where: str) -> None:
    """Raise if a name in `keep` is no node's.

    Raises:
        InputError: one is not; suggests the nearest.
    """
    known = [node.name for node in graph.graph.node]
    for name in keep:
        if name not in known:
            raise InputError(
                f"there is no node {name!r}", where=f"{where}: keep", mend=nearest(name, known)
            )


def integer_operators(graph: onnx.ModelProto) -> dict[str, int]:
    """Operators that only a quantised graph has, and how many there are of each."""
    found = (
        node.op_type
        for node in graph.graph.node
        if node.op_type in _PACKED or is_integer(node.op_type)
    )
    return dict(sorted(Counter(found).items()))


def refuse_quantised(graph: onnx.ModelProto, where: str) -> None:
    """Raise if the graph is quantised.

    Raises:
        InputError: it is; tells what was found.
    """
    found = integer_operators(graph)
    if found:
        listed = ", ".join(f"{count} {name}" for name, count in found.items())
        raise InputError(
            f"the model is quantised already ({listed})",
            where=where,
            mend="drop the step, or give the float model",
        )


def fitting(model: Model, split: Split, where: str) -> Split:
    """The calibration data in the order of the model's inputs.

    Raises:
        InputError: there are none, or an input's name, type, shape or values are not the model's.
    """
    place = f"{where}: calibration data"
    try:
        data = split.named([spec.name for spec in model.inputs])
    except ValueError as error:
        raise InputError(str(error), where=place, mend="name them alike") from error
    if not len(data):
        raise InputError("there are no samples", where=place, mend="give at least one")
    for spec in model.inputs:
        array = data.inputs[spec.name]
        wanted = f"{spec.dtype}{list(spec.shape[1:])}"
        given = f"{array.dtype.name}{list(array.shape[1:])}"
        pairs = itertools.zip_longest(spec.shape[1:], array.shape[1:])
        alike = all(size == has or (isinstance(size, str) and has) for size, has in pairs)
        if array.dtype.name != spec.dtype or not alike:
            raise InputError(
                f"{spec.name} is {given} a sample, but the model takes {wanted}",
                where=place,
                mend="convert it in the loader",
            )
    return data


def upgrade(model: Model, where: str) -> tuple[Model, tuple[str, ...]]:
    """The model in an operator set that can say what quantisation needs, and what was done.

    Raises:
        InputError: its operator set is too old and cannot be upgraded.
    """
    versions = {each.domain: each.version for each in model.value.opset_import}
    version = versions.get("", versions.get("ai.onnx", OPSET))
    if version >= OPSET:
        return model, ()
    try:
        made = version_converter.convert_version(model.value, OPSET)
    except Exception as error:  # the library raises what its C++ side gives it
        raise InputError(
            f"opset {version} is too old, and onnx cannot upgrade it ({error})",
            where=where,
            mend=f"export the model with opset {OPSET} or later",
        ) from error
    _keep_names(model.value, made)
    note = f"upgraded from opset {version} to {OPSET}, which quantisation needs"
    return Model("graph", made, *signature(made)), (note,)


def _keep_names(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """The converter may lose the names of nodes; outputs tell which is which."""
    names = {node.output[0]: node.name for node in before.graph.node}
    for index, node in enumerate(after.graph.node):
        node.name = names.get(node.output[0]) or node.name or f"{node.op_type}_{index}"


def with_types(model: Model, split: Split, where: str) -> tuple[Model, tuple[str, ...]]:
    """The model with a type and shape for every value: those that shape inference does not find,
    behind an operator that it does not know say, are taken from sample runs.

    Raises:
        InputError: ONNX Runtime cannot run it.
    """
    # What the graph records of its values may be wrong, and then the runtime refuses it.
    made = duplicate(model)
    graph = made.value.graph
    del graph.value_info[:]
    try:
        known = value_specs(made.value)
    except InferenceError:
        known = {}
    missing = [name for node in graph.node for name in node.output if name and name not in known]
    if not missing:
        recorded = [forms.spec(value) for value in model.value.graph.value_info]
        if all(known[each.name].dtype == each.dtype for each in recorded if each.name in known):
            return model, ()
        return made, ("types that the graph records contradict it; they were inferred anew",)
    shown = [name for name in missing if name not in made.outputs]
    given = [_sample_run(made, split, shown, batch, where) for batch in _BATCHES]
    for name in shown:
        few, more = (each[name] for each in given)
        shape = [a if a == b else None for a, b in zip(few.shape, more.shape, strict=True)]
        kind = onnx.helper.np_dtype_to_tensor_dtype(few.dtype)
        graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    return made, (f"shapes of {len(missing)} values that inference misses are from sample runs",)


def _sample_run(
    model: Model, split: Split, names: list[str], batch: int, where: str
) -> dict[str, np.ndarray]:
    rows = [index % len(split) for index in range(batch)]
    try:
        session = observing(model.value, names, 1)
        values = session.run(names, {name: array[rows] for name, array in split.inputs.items()})
    except Exception as error:  # the runtime raises a class of its own for each status code
        raise InputError(f"ONNX Runtime cannot run the model: {error}", where=where) from error
    return dict(zip(names, values, strict=True))
