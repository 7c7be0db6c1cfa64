"""GRU and LSTM. An LSTM over several steps is one operator; a GRU is a loop whose body computes a
step, and one step alone is computed without a loop, so that a host may keep the state.

Gates and their order are those of ONNX: update, reset, hidden; input, output, forget, cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lepton_compress.export.flatbuffer.builder import Scale, options
from lepton_compress.export.flatbuffer.converter import ACTIVATIONS, Convert, Converter, Slot
from lepton_compress.export.flatbuffer.graph import Array, Node, refuse
from lepton_compress.export.flatbuffer.weights import LEAST, float_weight

_GATES = {"GRU": 3, "LSTM": 4}
_DEFAULT = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_INITIAL_H, _INITIAL_C, _PEEPHOLES = 5, 6, 7


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


def recurrent(converter: Converter, node: Node) -> None:
    """GRU and LSTM, one direction after the other."""
    _check(converter, node)
    given = converter.real(converter.take(node.inputs[0]))
    if node.get("layout", 0):
        given = converter.turned(given, (1, 0, 2))
    steps, batch, _ = given.shape
    made = [_direction(converter, layer, given) for layer in _layers(converter, node, steps, batch)]
    # Values by direction: all states, the last state, the last cell.
    for place, name in enumerate(node.outputs):
        if name:
            parts = [each[place] for each in made]
            joined = _stacked(converter, parts, 1 if place == 0 else 0)
            if node.get("layout", 0):
                joined = converter.turned(joined, (2, 0, 1, 3) if place == 0 else (1, 0, 2))
            converter.give(name, joined)


def _check(converter: Converter, node: Node) -> None:
    directions = 2 if node.get("direction", "forward") == "bidirectional" else 1
    if node.get("activations", _DEFAULT[node.type] * directions) != (
        _DEFAULT[node.type] * directions
    ):
        raise refuse(node, "its activations are not sigmoid and tanh")
    if node.get("clip", 0.0) or node.get("input_forget", 0):
        raise refuse(node, "LiteRT neither clips its gates nor couples them")
    lengths = converter.constant(node.input(4)) if node.input(4) else None
    steps = converter.shape(node.inputs[0])[1 if node.get("layout", 0) else 0]
    if node.input(4) and (lengths is None or (lengths != steps).any()):
        raise refuse(node, "sequences have lengths of their own", "run all of them to the end")
    converter.known(node, 1, "its weight")
    converter.known(node, 2, "its recurrent weight")


def _layers(converter: Converter, node: Node, steps: int, batch: int) -> list[Layer]:
    weight = converter.known(node, 1, "its weight")
    directions, rows, _ = weight.shape
    width = rows // _GATES[node.type]
    bias = np.zeros((directions, 2 * rows), np.float32)
    if node.input(3):
        bias = converter.known(node, 3, "its bias")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    return [
        Layer(
            node,
            place,
            steps,
            batch,
            width,
            _part(converter, node.inputs[1], place, 0, rows),
            _part(converter, node.inputs[2], place, 0, rows),
            bias[place, :rows],
            bias[place, rows:],
            backward[node.get("direction", "forward")][place],
        )
        for place in range(directions)
    ]


def _part(converter: Converter, name: str, place: int, start: int, stop: int) -> str:
    """Rows of one direction of a weight, (directions, rows, columns), as a constant."""
    graph = converter.graph
    part = f"{name}/{place}:{start}:{stop}"
    array = graph.constants[name]
    taken = array[place, start:stop] if array.ndim == 3 else array[start:stop]
    graph.add_constant(part, np.ascontiguousarray(taken))
    held = graph.quantized.get(name)
    if held is not None and held.axis in (None, held.integers.ndim - 2):
        integers = held.integers[place] if held.integers.ndim == 3 else held.integers
        several = held.axis is not None
        graph.quantized[part] = replace(
            held,
            integers=integers[start:stop],
            scale=held.scale[start:stop] if several else held.scale,
            zero=held.zero[start:stop] if several else held.zero,
            axis=0 if several else None,
        )
    if name in graph.halves:
        graph.halves.add(part)
    return part


def _direction(converter: Converter, layer: Layer, given: Slot) -> list[Slot]:
    """All states (steps, batch, width), the last state and the last cell (batch, width)."""
    node = layer.node
    cell_wanted = len(node.outputs) > 2 and bool(node.outputs[2])
    if node.type == "LSTM" and layer.steps > 1 and not cell_wanted:
        return _fused(converter, layer, given)
    states = [_initial(converter, layer, _INITIAL_H)]
    if node.type == "LSTM":
        if node.input(_PEEPHOLES):
            raise refuse(node, "it has peepholes, and its last cell is asked for")
        states.append(_initial(converter, layer, _INITIAL_C))
    products = _products(converter, layer, given)
    if layer.steps == 1:
        rows = [converter.plain(converter.seen(each, each.shape[1:])) for each in products]
        made = _step(converter, layer, rows, states)
        return [converter.seen(made[0], (1, *made[0].shape)), *made]
    return _loop(converter, layer, products, states)


def _initial(converter: Converter, layer: Layer, place: int) -> Slot:
    """The state (batch, width) that a layer begins with."""
    name = layer.node.input(place)
    if not name:
        return converter.constant_slot(np.zeros((layer.batch, layer.width), np.float32))
    given = converter.real(converter.take(name))
    if layer.node.get("layout", 0):
        given = converter.turned(given, (1, 0, 2))
    if given.shape[0] == 1:
        return converter.plain(converter.seen(given, given.shape[1:]))
    given = converter.plain(given)
    one = converter.emit(
        "SLICE",
        [given, converter.vector([layer.place, 0, 0]), converter.vector([1, *given.shape[1:]])],
        (1, *given.shape[1:]),
        options=options("Slice"),
    )
    return converter.plain(converter.seen(one, given.shape[1:]))


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


def _products(converter: Converter, layer: Layer, given: Slot) -> list[Slot]:
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
        weight = _part(converter, layer.weights, 0, start, stop)
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


def _step(
    converter: Converter, layer: Layer, products: list[Slot], states: list[Slot]
) -> list[Slot]:
    """The next state, and of an LSTM the next cell."""
    if layer.node.type == "LSTM":
        return _lstm_step(converter, layer, products[0], *states)
    state, split = states[0], 2 * layer.width
    weights = [
        _part(converter, layer.recurrent, 0, start, stop)
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


def _loop(
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
    made = _step(converter, layer, rows, states)
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


def _fused(converter: Converter, layer: Layer, given: Slot) -> list[Slot]:
    """An LSTM as UNIDIRECTIONAL_SEQUENCE_LSTM, which keeps its state from call to call: an operator
    in front of it sets that to what the graph begins with."""
    node, width = layer.node, layer.width
    if layer.backward:
        given = _reversed(converter, given)
    large = converter.graph.constants[layer.recurrent].size >= LEAST
    order = (0, 2, 3, 1)  # input, forget, cell, output of ONNX's input, output, forget, cell
    parts = [
        _gate(converter, _part(converter, name, 0, gate * width, (gate + 1) * width), large=large)
        for name in (layer.weights, layer.recurrent)
        for gate in order
    ]
    held = layer.bias + layer.recurrent_bias
    biases = [converter.array(held[gate * width : (gate + 1) * width]) for gate in order]
    peepholes = [-1, -1, -1]
    if node.input(_PEEPHOLES):
        array = converter.known(node, _PEEPHOLES, "its peepholes")[layer.place].reshape(3, width)
        peepholes = [converter.array(np.ascontiguousarray(array[each])) for each in (0, 2, 1)]
    states = [_state(converter, layer, place) for place in (_INITIAL_H, _INITIAL_C)]
    shape = (layer.steps, layer.batch, width)
    made = converter.emit(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        [
            converter.laid(given, (1, 0, 2)),
            *parts,
            *peepholes,
            *biases,
            *(-1, -1),  # a projection
            *states,
            *(-1, -1, -1, -1),  # normalisation
        ],
        shape,
        order=(1, 0, 2),
        options=options("UnidirectionalSequenceLSTM", fusedActivationFunction=ACTIVATIONS["TANH"]),
    )
    made = _reversed(converter, made) if layer.backward else made
    if len(node.outputs) < 2 or not node.outputs[1]:
        return [made]
    row = 0 if layer.backward else layer.steps - 1
    last = converter.emit(
        "SLICE",
        [made, converter.vector([0, row, 0]), converter.vector([layer.batch, 1, width])],
        (1, layer.batch, width),
        order=(1, 0, 2),
        options=options("Slice"),
    )
    return [made, converter.seen(last, last.shape[1:])]


def _gate(converter: Converter, name: str, *, large: bool) -> int:
    """The weight of one gate; the hybrid kernel has one scale for it, and takes all gates alike."""
    array = converter.graph.constants[name]
    float_so_far = name not in converter.graph.quantized and name not in converter.graph.halves
    if converter.params.weights == "dynamic" and float_so_far and large:
        return _one_scale(converter, array)
    return float_weight(converter, name, lambda each: each, channel=0, axis=0, hybrid=False)


def _one_scale(converter: Converter, array: Array) -> int:
    step = float(np.float32(np.abs(array).max() / 127)) or 1.0
    integers = np.clip(np.round(array / step), -127, 127).astype(np.int8)
    return converter.array(integers, Scale((step,)))


def _state(converter: Converter, layer: Layer, place: int) -> int:
    """A variable tensor, set before each call to what the layer begins with."""
    shape = (layer.batch, layer.width)
    tensor = converter.subgraph.tensor(shape, "float32", variable=True)
    zeros = converter.array(np.zeros(shape, np.float32))
    name = layer.node.input(place)
    array = converter.constant(name) if name else None
    if not name or (array is not None and not array.any()):
        converter.add("ZEROS_LIKE", [zeros], [tensor], options("ZerosLike"))
    else:
        begins = _initial(converter, layer, place)
        # Not ADD: XNNPACK takes that, and cannot write variables.
        converter.add("ADD_N", [begins, zeros], [tensor], options("AddN"))
    return tensor


def _reversed(converter: Converter, given: Slot) -> Slot:
    """A value with its first axis, the steps, the other way round."""
    given, order = converter.ordered(given)
    axis = converter.vector([order.index(0)])
    chosen = options("ReverseV2")
    return converter.emit("REVERSE_V2", [given, axis], given.shape, order=order, options=chosen)


def _stacked(converter: Converter, parts: list[Slot], axis: int) -> Slot:
    """Values of the directions side by side along a new axis."""
    shape = parts[0].shape
    longer = (*shape[:axis], 1, *shape[axis:])
    slots = [converter.seen(each, longer) for each in parts]
    if len(slots) == 1:
        return slots[0]
    slots = [converter.plain(each) for each in slots]
    joined = (*shape[:axis], len(slots), *shape[axis:])
    chosen = options("Concatenation", axis=axis)
    return converter.emit("CONCATENATION", slots, joined, options=chosen)


OPERATORS: dict[str, Convert] = dict.fromkeys(("GRU", "LSTM"), recurrent)
