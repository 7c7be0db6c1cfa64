"""GRU and LSTM. An LSTM over several steps is one operator; a GRU is a loop whose body computes a
step, and one step alone is computed without a loop, so that a host may keep the state.
"""

from __future__ import annotations

import numpy as np

from lepton_compress.export.flatbuffer.activations import ACTIVATIONS
from lepton_compress.export.flatbuffer.builder import Scale, options
from lepton_compress.export.flatbuffer.converter import Convert, Converter, Slot
from lepton_compress.export.flatbuffer.graph import Array, Node, refuse
from lepton_compress.export.flatbuffer.recurrent_steps import (
    Layer,
    loop,
    part,
    products_of,
    step,
)
from lepton_compress.export.flatbuffer.weights import LEAST, float_weight

_GATES = {"GRU": 3, "LSTM": 4}
_DEFAULT = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_INITIAL_H, _INITIAL_C, _PEEPHOLES = 5, 6, 7


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
            part(converter, node.inputs[1], place, 0, rows),
            part(converter, node.inputs[2], place, 0, rows),
            bias[place, :rows],
            bias[place, rows:],
            backward[node.get("direction", "forward")][place],
        )
        for place in range(directions)
    ]


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
    products = products_of(converter, layer, given)
    if layer.steps == 1:
        rows = [converter.plain(converter.seen(each, each.shape[1:])) for each in products]
        made = step(converter, layer, rows, states)
        return [converter.seen(made[0], (1, *made[0].shape)), *made]
    return loop(converter, layer, products, states)


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


def _fused(converter: Converter, layer: Layer, given: Slot) -> list[Slot]:
    """An LSTM as UNIDIRECTIONAL_SEQUENCE_LSTM, which keeps its state from call to call: an operator
    in front of it sets that to what the graph begins with."""
    node, width = layer.node, layer.width
    if layer.backward:
        given = _reversed(converter, given)
    large = converter.graph.constants[layer.recurrent].size >= LEAST
    order = (0, 2, 3, 1)  # input, forget, cell, output of ONNX's input, output, forget, cell
    parts = [
        _gate(converter, part(converter, name, 0, gate * width, (gate + 1) * width), large=large)
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
        converter.narrows = True
        return _one_scale(converter, array)
    return float_weight(converter, name, lambda each: each, channel=0, axis=0, hybrid=False)


def _one_scale(converter: Converter, array: Array) -> int:
    unit = float(np.float32(np.abs(array).max() / 127)) or 1.0
    integers = np.clip(np.round(array / unit), -127, 127).astype(np.int8)
    return converter.array(integers, Scale((unit,)))


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
