"""Steps of recurrent layers: what one computes from the state, and a loop over all of them.

Gates and their order are those of ONNX: update, reset, hidden; input, output, forget, cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lepton_compress.export.flatbuffer.builder import options
from lepton_compress.export.flatbuffer.converter import Converter, Slot
from lepton_compress.export.flatbuffer.graph import Array, Node
from lepton_compress.export.flatbuffer.weights import float_weight


@dataclass(frozen=True)
class Layer:
    """One direction of a recurrent layer.

    Attributes:
        node: the layer, of the type GRU or LSTM.
        place: of the direction.
        steps, batch, width: sizes of the values.
        weights, recurrent: names of constants (gates of width, inputs).
        bias, recurrent_bias: float32 (gates of width).
        backward: whether it begins at the last step.
    """

    node: Node
    place: int
    steps: int
    batch: int
    width: int
    weights: str
    recurrent: str
    bias: Array
    recurrent_bias: Array
    backward: bool


def part(converter: Converter, name: str, place: int, start: int, stop: int) -> str:
    """Rows of one direction of a weight, (directions, rows, columns), as a constant."""
    graph = converter.graph
    made = f"{name}/{place}:{start}:{stop}"
    array = graph.constants[name]
    taken = array[place, start:stop] if array.ndim == 3 else array[start:stop]
    graph.add_constant(made, np.ascontiguousarray(taken))
    held = graph.quantized.get(name)
    if held is not None and held.axis in (None, held.integers.ndim - 2):
        integers = held.integers[place] if held.integers.ndim == 3 else held.integers
        several = held.axis is not None
        graph.quantized[made] = replace(
            held,
            integers=integers[start:stop],
            scale=held.scale[start:stop] if several else held.scale,
            zero=held.zero[start:stop] if several else held.zero,
            axis=0 if several else None,
        )
    if name in graph.halves:
        graph.halves.add(made)
    return made


def _dense(converter: Converter, given: Slot, weight: str, bias: Array | None) -> Slot:
    """A product with a constant (outputs, inputs); that of two constants is worked out here."""
    known = converter.subgraph.tensors[given.tensor].data
    if known is not None:
        made = known @ converter.graph.constants[weight].T
        return converter.constant_slot(made if bias is None else made + bias)
    tensor = float_weight(converter, weight, lambda array: array, channel=0, axis=0, hybrid=True)
    shape = (*given.shape[:-1], len(converter.graph.constants[weight]))
    return converter.emit(
        "FULLY_CONNECTED",
        [converter.plain(given), tensor, -1 if bias is None else converter.array(bias)],
        shape,
        options=options(
            "FullyConnected",
            keepNumDims=len(shape) > 2,
            asymmetricQuantizeInputs=converter.params.weights == "dynamic",
        ),
    )


def products_of(converter: Converter, layer: Layer, given: Slot) -> list[Slot]:
    """The part of the gates that does not depend on the state, for all steps at once: of a GRU
    those of update and reset, and that of the hidden state."""
    if layer.node.type == "LSTM":
        return [_dense(converter, given, layer.weights, layer.bias + layer.recurrent_bias)]
    split = 2 * layer.width
    inside = bool(layer.node.get("linear_before_reset", 0))
    parts = []
    for start, stop in ((0, split), (split, 3 * layer.width)):
        bias = layer.bias[start:stop].copy()
        if start == 0 or not inside:
            bias += layer.recurrent_bias[start:stop]
        weight = part(converter, layer.weights, 0, start, stop)
        parts.append(_dense(converter, given, weight, bias))
    return parts


def _two(converter: Converter, kind: str, left: Slot, right: Slot) -> Slot:
    values = {"potScaleInt16": False} if kind in ("Add", "Sub") else {}
    chosen = options(kind, **values)
    return converter.emit(kind.upper(), [left, right], left.shape, options=chosen)


def _split(converter: Converter, given: Slot, count: int) -> list[Slot]:
    shape = (*given.shape[:-1], given.shape[-1] // count)
    parts = [converter.slot(shape) for _ in range(count)]
    axis = converter.array(np.array(len(shape) - 1, np.int32))
    converter.add("SPLIT", [axis, given], parts, options("Split", numSplits=count))
    return parts


def step(
    converter: Converter, layer: Layer, products: list[Slot], states: list[Slot]
) -> list[Slot]:
    """The next state, and of an LSTM the next cell."""
    if layer.node.type == "LSTM":
        return _lstm_step(converter, layer, products[0], *states)
    state, split = states[0], 2 * layer.width
    weights = [
        part(converter, layer.recurrent, 0, start, stop)
        for start, stop in ((0, split), (split, 3 * layer.width))
    ]
    sums = _two(converter, "Add", products[0], _dense(converter, state, weights[0], None))
    gates = converter.emit("LOGISTIC", [sums], sums.shape)
    update, reset = _split(converter, gates, 2)
    if layer.node.get("linear_before_reset", 0):
        bias = layer.recurrent_bias[split:]
        inner = _two(converter, "Mul", reset, _dense(converter, state, weights[1], bias))
    else:
        inner = _dense(converter, _two(converter, "Mul", reset, state), weights[1], None)
    total = _two(converter, "Add", products[1], inner)
    hidden = converter.emit("TANH", [total], total.shape)
    # (1 - z) * hidden + z * state, with a product less.
    moved = _two(converter, "Mul", update, _two(converter, "Sub", state, hidden))
    return [_two(converter, "Add", hidden, moved)]


def _lstm_step(
    converter: Converter, layer: Layer, product: Slot, state: Slot, cell: Slot
) -> list[Slot]:
    sums = _two(converter, "Add", product, _dense(converter, state, layer.recurrent, None))
    parts = _split(converter, sums, 4)
    taken, given, kept = (converter.emit("LOGISTIC", [each], each.shape) for each in parts[:3])
    fresh = converter.emit("TANH", [parts[3]], parts[3].shape)
    cell = _two(
        converter, "Add", _two(converter, "Mul", kept, cell), _two(converter, "Mul", taken, fresh)
    )
    shown = converter.emit("TANH", [cell], cell.shape)
    return [_two(converter, "Mul", given, shown), cell]


def loop(
    converter: Converter, layer: Layer, products: list[Slot], states: list[Slot]
) -> list[Slot]:
    """A WHILE over the steps. It carries the number of the step, the products, the states, and all
    states so far if they are wanted."""
    every = bool(layer.node.outputs[0])
    number = converter.constant_slot(np.array([layer.steps - 1 if layer.backward else 0], np.int32))
    carried = [number, *map(converter.plain, products), *states]
    if every:
        shape = (layer.steps, layer.batch, layer.width)
        sizes, zero = converter.vector(shape), converter.array(np.array(0, np.float32))
        carried.append(converter.emit("FILL", [sizes, zero], shape, options=options("Fill")))
    with converter.inside("cond") as condition:
        inner = [converter.slot(each.shape, dtype=each.dtype) for each in carried]
        bound = converter.vector([-1 if layer.backward else layer.steps])
        name, kind = ("GREATER", "Greater") if layer.backward else ("LESS", "Less")
        more = converter.emit(name, [inner[0], bound], (1,), dtype="bool", options=options(kind))
        condition.inputs = [each.tensor for each in inner]
        condition.outputs = [more.tensor]
    with converter.inside("body") as body:
        inner = [converter.slot(each.shape, dtype=each.dtype) for each in carried]
        made = _body(converter, layer, inner, len(products), every=every)
        body.inputs = [each.tensor for each in inner]
        body.outputs = [each.tensor for each in made]
    found = [converter.slot(each.shape, dtype=each.dtype) for each in carried]
    last = len(converter.subgraphs) - 1
    chosen = options("While", condSubgraphIndex=last - 1, bodySubgraphIndex=last)
    converter.add("WHILE", carried, found, chosen)
    after = found[1 + len(products) :]
    return [after[-1], *after[:-1]] if every else [after[0], *after]


def _body(
    converter: Converter, layer: Layer, inner: list[Slot], products: int, *, every: bool
) -> list[Slot]:
    number, given = inner[0], inner[1 : 1 + products]
    states = inner[1 + products : len(inner) - every]
    rows = [
        converter.emit(
            "GATHER", [each, number], (1, *each.shape[1:]), options=options("Gather", axis=0)
        )
        for each in given
    ]
    rows = [converter.plain(converter.seen(each, each.shape[1:])) for each in rows]
    made = step(converter, layer, rows, states)
    way = converter.array(np.array([-1 if layer.backward else 1], np.int32))
    chosen = options("Add", potScaleInt16=False)
    following = converter.emit("ADD", [number, way], (1,), dtype="int32", options=chosen)
    result = [following, *given, *made]
    if every:
        zeros = converter.vector([0, 0])
        place = converter.emit(
            "CONCATENATION",
            [number, zeros],
            (3,),
            dtype="int32",
            options=options("Concatenation", axis=0),
        )
        row = converter.plain(converter.seen(made[0], (1, *made[0].shape)))
        result.append(
            converter.emit("DYNAMIC_UPDATE_SLICE", [inner[-1], row, place], inner[-1].shape)
        )
    return result
