"""Several values in one: brought to one order in memory, constants laid out likewise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compress.export.flatbuffer import layouts
from lepton_compress.export.flatbuffer.builder import options
from lepton_compress.export.flatbuffer.converter import Converter, Slot
from lepton_compress.export.flatbuffer.graph import Array
from lepton_compress.export.flatbuffer.layouts import Shape
from lepton_compress.export.flatbuffer.quantization import Integers, shifted


def arithmetic(
    converter: Converter,
    name: str,
    kind: str,
    value: str,
    inputs: Sequence[str],
    *,
    fusing: bool = True,
) -> None:
    """An operator on two values, and the activation behind it.

    Args:
        name, kind: of the schema's operator and options.
        value: that it makes.
        fusing: whether its options have an activation.
    """
    out, fused = converter.fused(value) if fusing else (value, 0)
    shape = converter.shape(value)
    same = name in ("MAXIMUM", "MINIMUM")
    wanted = None
    if name in ("ADD", "SUB", "MUL") or same:
        wanted = converter.integers(inputs, out)
    given, like = together(converter, inputs, shape, wanted, same=same)
    dtype = _made_dtype(converter, value, given[0].dtype)
    values: dict[str, Any] = {"fusedActivationFunction": fused} if fusing else {}
    if name in ("ADD", "SUB"):
        values["potScaleInt16"] = False
    made = converter.emit(
        name,
        given,
        shape,
        like=like,
        dtype=wanted.dtype if wanted else dtype,
        scale=wanted.scale if wanted else None,
        options=options(kind, **values) if kind else None,
    )
    converter.give(out, made)


def _made_dtype(converter: Converter, value: str, given: str) -> str:
    return "bool" if converter.graph.dtypes.get(value) == "bool" else given


def together(
    converter: Converter,
    names: Sequence[str],
    shape: Shape,
    wanted: Integers | None,
    *,
    same: bool = False,
) -> tuple[list[Slot], Slot]:
    """Values in one order in memory, and one that shows the place of a result of that shape.

    Args:
        wanted: scale of the result, for an integer kernel; None for float.
        same: the kernel needs all values in the scale of the result.
    """

    def ready(name: str) -> Slot:
        slot = converter.take(name)
        if wanted is None:
            return converter.real(slot)
        return converter.rounded(slot, wanted) if same else slot

    constants = [name for name in names if converter.constant(name) is not None]
    slots = {name: ready(name) for name in names if name not in constants}
    full = [slot for slot in slots.values() if slot.shape == shape]
    if (
        full
        and all(
            (s.layout, s.storage, s.shape) == (full[0].layout, full[0].storage, shape)
            for s in slots.values()
        )
        and all(converter.graph.constants[name].size == 1 for name in constants)
    ):
        like = full[0]
        placed = {name: ready(name) for name in constants}
        return [slots[name] if name in slots else placed[name] for name in names], like
    order = _order(full, shape)
    like = _placeless(shape, order)
    for name, slot in slots.items():
        slots[name] = _spread_out(converter, slot, shape, order)
    for name in constants:
        slots[name] = _placed(converter, name, shape, order, wanted, same=same)
    return [slots[name] for name in names], like


def _placeless(shape: Shape, order: Shape) -> Slot:
    """A value of a shape with its axes in that order; it has no tensor."""
    storage = tuple(shape[axis] for axis in order)
    return Slot(-1, shape, layouts.permuted(shape, order), storage, "")


def _order(full: Sequence[Slot], shape: Shape) -> Shape:
    """The order of axes to bring values to: that of the first that is not in its own."""
    own = tuple(range(len(shape)))
    orders = [slot.layout.storage(shape) for slot in full]
    return next((each for each in orders if each not in (None, own)), None) or own


def _spread_out(converter: Converter, slot: Slot, shape: Shape, order: Shape) -> Slot:
    """A value with as many axes as the result, unless the fewer it has are in their own order."""
    own = tuple(range(len(shape)))
    if order == own and len(slot.shape) < len(shape):
        return converter.plain(slot)
    longer = (1,) * (len(shape) - len(slot.shape)) + slot.shape
    return converter.laid(converter.seen(slot, longer), order)


def _placed(
    converter: Converter,
    name: str,
    shape: Shape,
    order: Shape,
    wanted: Integers | None,
    *,
    same: bool,
) -> Slot:
    """A constant in that order."""
    held = converter.graph.quantized.get(name)
    integers = shifted(held) if held is not None and wanted is not None else None
    array: Array = converter.graph.constants[name]
    scale = None
    if integers is not None:
        array, scale = integers
    longer = (1,) * (len(shape) - array.ndim) + array.shape
    if array.size > 1 and order != tuple(range(len(shape))):
        array = array.reshape(longer).transpose(order)
    slot = converter.constant_slot(np.ascontiguousarray(array), scale)
    return converter.rounded(slot, wanted) if same and wanted else slot
