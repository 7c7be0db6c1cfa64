"""One step of a GRU or LSTM, whose state a host keeps from call to call.

Over several steps ExecuTorch has no operator, and each step written out is a graph that no device
wants.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from lepton_compress.export.aten.network import Convert, Network, refuse
from lepton_compress.export.flatbuffer.graph import Node

_GATES = {"GRU": 3, "LSTM": 4}
_DEFAULT = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_LENGTHS, _INITIAL_H, _INITIAL_C, _PEEPHOLES = 4, 5, 6, 7


def recurrent(net: Network, node: Node) -> list[torch.Tensor]:
    """All states, the last states and the last cells, by direction.

    The arithmetic is that of ONNX's GRU and LSTM, opset 22.
    """
    first = 1 if node.get("layout", 0) else 0
    _check(net, node, first)
    x = net.value(node.inputs[0]).squeeze(first)
    directions = net.graph.shapes[node.inputs[1]][0]
    made = [_STEPS[node.type](net, node, x, place) for place in range(directions)]
    # Values by direction: the state, and the cell of an LSTM.
    state, *cell = (torch.stack(each, dim=first) for each in zip(*made, strict=True))
    return [state.unsqueeze(first), state, *cell]


def _check(net: Network, node: Node, first: int) -> None:
    steps = net.graph.shapes[node.inputs[0]][first]
    if steps > 1:
        raise refuse(node, f"it runs over {steps} steps", "export with `recurrent: step`")
    for place, what in ((1, "weight"), (2, "recurrent weight")):
        net.constant(node, place, what)
    directions = net.graph.shapes[node.inputs[1]][0]
    usual = _DEFAULT[node.type] * directions
    if node.get("activations", usual) != usual:
        raise refuse(node, "its activations are not sigmoid and tanh")
    if node.get("clip", 0.0) or node.get("input_forget", 0) or node.input(_PEEPHOLES):
        raise refuse(node, "it clips or couples its gates, or has peepholes")
    if node.input(_LENGTHS) and (net.constant(node, _LENGTHS, "lengths") != 1).any():
        raise refuse(node, "sequences have lengths of their own")


def _product(
    net: Network, node: Node, x: torch.Tensor, place: int, side: int, gates: range
) -> tuple[torch.Tensor, ...]:
    """What the input (side 0) or the state (side 1) gives to some gates, (batch, width) each."""
    width = net.graph.shapes[node.inputs[2]][2]
    begin, end = gates.start * width, gates.stop * width
    rows = f"{side} {place} {begin}"
    weight = net.buffer(node.inputs[1 + side], rows, lambda held: held[place, begin:end])
    bias = None
    if node.input(3):
        skipped = side * _GATES[node.type] * width
        bias = net.buffer(
            node.inputs[3], rows, lambda held: held[place, skipped + begin : skipped + end]
        )
    return torch.chunk(functional.linear(x, weight, bias), len(gates), dim=1)


def _initial(net: Network, node: Node, x: torch.Tensor, place: int, which: int) -> torch.Tensor:
    """The state (batch, width) that a direction begins with."""
    if not node.input(which):
        return torch.zeros(x.shape[0], net.graph.shapes[node.inputs[2]][2])
    return net.value(node.inputs[which]).select(1 if node.get("layout", 0) else 0, place)


def _gru(net: Network, node: Node, x: torch.Tensor, place: int) -> list[torch.Tensor]:
    state = _initial(net, node, x, place, _INITIAL_H)
    update, reset, new = _product(net, node, x, place, 0, range(3))
    old_update, old_reset = _product(net, node, state, place, 1, range(2))
    keep, reset = torch.sigmoid(update + old_update), torch.sigmoid(reset + old_reset)
    if node.get("linear_before_reset", 0):
        (old,) = _product(net, node, state, place, 1, range(2, 3))
        fresh = torch.tanh(new + reset * old)
    else:
        (old,) = _product(net, node, reset * state, place, 1, range(2, 3))
        fresh = torch.tanh(new + old)
    return [(1.0 - keep) * fresh + keep * state]


def _lstm(net: Network, node: Node, x: torch.Tensor, place: int) -> list[torch.Tensor]:
    state = _initial(net, node, x, place, _INITIAL_H)
    cell = _initial(net, node, x, place, _INITIAL_C)
    gates = zip(
        _product(net, node, x, place, 0, range(4)),
        _product(net, node, state, place, 1, range(4)),
        strict=True,
    )
    into, out, forget, new = (one + other for one, other in gates)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(new)
    return [torch.sigmoid(out) * torch.tanh(cell), cell]


_STEPS = {"GRU": _gru, "LSTM": _lstm}
OPERATORS: dict[str, Convert] = dict.fromkeys(_STEPS, recurrent)
