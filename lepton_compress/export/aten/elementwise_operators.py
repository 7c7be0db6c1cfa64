"""Operators that compute each element by itself, and what follows axes: softmax and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from lepton_compress.export.aten.network import Convert, Network, refuse
from lepton_compress.export.flatbuffer.graph import Node

_TYPES = {
    **{name: getattr(torch, name) for name in ("float32", "int8", "uint8", "int32", "int64")},
    **dict.fromkeys(("float16", "bfloat16", "float64"), torch.float32),
    "bool": torch.bool,
}


def _one(function: Callable[[torch.Tensor], torch.Tensor]) -> Convert:
    return lambda net, node: function(net.value(node.inputs[0]))


def _two(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Convert:
    return lambda net, node: function(net.value(node.inputs[0]), net.value(node.inputs[1]))


def _many(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Convert:
    def made(net: Network, node: Node) -> torch.Tensor:
        found = net.value(node.inputs[0])
        for name in node.inputs[1:]:
            found = function(found, net.value(name))
        return found

    return made


def quotient(net: Network, node: Node) -> torch.Tensor:
    """Div, of integers towards zero."""
    one, other = (net.value(name) for name in node.inputs[:2])
    mode = None if one.dtype.is_floating_point else "trunc"
    return torch.div(one, other, rounding_mode=mode)


def clip(net: Network, node: Node) -> torch.Tensor:
    """Clip between constants."""
    ends: list[float | None] = [node.get("min", None), node.get("max", None)]
    for place in (1, 2):
        if node.input(place):
            ends[place - 1] = net.constant(node, place, "limit").item()
    x = net.value(node.inputs[0])
    return x if ends == [None, None] else torch.clamp(x, ends[0], ends[1])


def cast(net: Network, node: Node) -> torch.Tensor:
    """Cast; half and double precision are computed in float32."""
    kind = net.graph.dtypes[node.outputs[0]]
    if kind not in _TYPES:
        raise refuse(node, f"it gives {kind}")
    return net.value(node.inputs[0]).to(_TYPES[kind])


def gelu(net: Network, node: Node) -> torch.Tensor:
    """Gelu."""
    return functional.gelu(net.value(node.inputs[0]), approximate=node.get("approximate", "none"))


def hard_sigmoid(net: Network, node: Node) -> torch.Tensor:
    """HardSigmoid."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    x = net.value(node.inputs[0])
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return functional.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def parametric(net: Network, node: Node) -> torch.Tensor:
    """PRelu."""
    x = net.value(node.inputs[0])
    return torch.where(x < 0, x * net.value(node.inputs[1]), x)


def _softmax(function: Callable[..., torch.Tensor]) -> Convert:
    return lambda net, node: function(net.value(node.inputs[0]), dim=node.get("axis", -1))


def _axes(net: Network, node: Node) -> list[int] | None:
    """Of a reduction; None where it changes nothing."""
    axes = node.get("axes", None)
    if node.input(1):
        axes = net.constant(node, 1, "axes").tolist()
    if not axes:
        empty = node.get("noop_with_empty_axes", 0)
        return None if empty else list(range(len(net.graph.shapes[node.inputs[0]])))
    return list(axes)


def _reduction(function: Callable[..., torch.Tensor]) -> Convert:
    def made(net: Network, node: Node) -> torch.Tensor:
        axes, x = _axes(net, node), net.value(node.inputs[0])
        return x if axes is None else function(x, axes, keepdim=bool(node.get("keepdims", 1)))

    return made


def mean(x: torch.Tensor, axes: list[int], keepdim: bool = False) -> torch.Tensor:
    """Over axes. XNNPACK takes it over the last two of four, which must be kept."""
    chosen = sorted(axis % x.ndim for axis in axes)
    if keepdim or x.ndim != 4 or chosen != [2, 3]:
        return torch.mean(x, chosen, keepdim=keepdim)
    return torch.reshape(torch.mean(x, chosen, keepdim=True), x.shape[:2])


def _norm(x: torch.Tensor, axes: list[int], keepdim: bool) -> torch.Tensor:
    return torch.sqrt(torch.sum(x * x, axes, keepdim=keepdim))


def _place(function: Callable[..., torch.Tensor]) -> Convert:
    def made(net: Network, node: Node) -> torch.Tensor:
        if node.get("select_last_index", 0):
            raise refuse(node, "of equal values the first is taken there")
        keep = bool(node.get("keepdims", 1))
        return function(net.value(node.inputs[0]), dim=node.get("axis", 0), keepdim=keep)

    return made


OPERATORS: dict[str, Convert] = {
    "Abs": _one(torch.abs),
    "Add": _two(torch.add),
    "And": _two(torch.logical_and),
    "ArgMax": _place(torch.argmax),
    "ArgMin": _place(torch.argmin),
    "Cast": cast,
    "Ceil": _one(torch.ceil),
    "Clip": clip,
    "Cos": _one(torch.cos),
    "Div": quotient,
    "Elu": lambda net, node: functional.elu(net.value(node.inputs[0]), node.get("alpha", 1.0)),
    "Equal": _two(torch.eq),
    "Erf": _one(torch.erf),
    "Exp": _one(torch.exp),
    "Floor": _one(torch.floor),
    "Gelu": gelu,
    "Greater": _two(torch.gt),
    "GreaterOrEqual": _two(torch.ge),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": _one(functional.hardswish),
    "LeakyRelu": lambda net, node: functional.leaky_relu(
        net.value(node.inputs[0]), node.get("alpha", 0.01)
    ),
    "Less": _two(torch.lt),
    "LessOrEqual": _two(torch.le),
    "Log": _one(torch.log),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Max": _many(torch.maximum),
    "Min": _many(torch.minimum),
    "Mul": _two(torch.mul),
    "Neg": _one(torch.neg),
    "Not": _one(torch.logical_not),
    "Or": _two(torch.logical_or),
    "PRelu": parametric,
    "Pow": _two(torch.pow),
    "Reciprocal": _one(torch.reciprocal),
    "ReduceL2": _reduction(_norm),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _one(torch.relu),
    "Sigmoid": _one(torch.sigmoid),
    "Sign": _one(torch.sign),
    "Sin": _one(torch.sin),
    "Softmax": _softmax(torch.softmax),
    "Sqrt": _one(torch.sqrt),
    "Sub": _two(torch.sub),
    "Sum": _many(torch.add),
    "Tanh": _one(torch.tanh),
    "Where": lambda net, node: torch.where(*(net.value(name) for name in node.inputs)),
}
