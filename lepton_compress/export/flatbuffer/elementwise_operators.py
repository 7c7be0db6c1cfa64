"""Operators on each element: one value keeps its place in memory, several are brought to one."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compress.export.flatbuffer.activations import activation, bounds, dtype_of
from lepton_compress.export.flatbuffer.arithmetic import arithmetic, together
from lepton_compress.export.flatbuffer.builder import options
from lepton_compress.export.flatbuffer.converter import Convert, Converter
from lepton_compress.export.flatbuffer.graph import Node, refuse
from lepton_compress.export.flatbuffer.quantization import fixed

_UNARY: dict[str, tuple[str, str | None]] = {
    "Abs": ("ABS", "Abs"),
    "Ceil": ("CEIL", None),
    "Cos": ("COS", "Cos"),
    "Elu": ("ELU", None),
    "Exp": ("EXP", "Exp"),
    "Floor": ("FLOOR", None),
    "HardSwish": ("HARD_SWISH", "HardSwish"),
    "Log": ("LOG", None),
    "Neg": ("NEG", "Neg"),
    "Not": ("LOGICAL_NOT", "LogicalNot"),
    "Round": ("ROUND", None),
    "Sigmoid": ("LOGISTIC", None),
    "Sign": ("SIGN", None),
    "Sin": ("SIN", None),
    "Sqrt": ("SQRT", None),
    "Tanh": ("TANH", None),
}
"""Operator to that of the schema and its options."""
_INTEGER = {"Abs", "Elu", "HardSwish", "LeakyRelu", "Gelu"}
"""Those with integer kernels for any pair of scales."""
_FIXED = {"Sigmoid": (0, 1), "Tanh": (-1, 1)}
_WHOLE_TOO = {"Abs", "Neg", "Not", "Sign"}
"""Those that whole numbers have, too."""

_BINARY: dict[str, tuple[str, str]] = {
    "Add": ("ADD", "Add"),
    "And": ("LOGICAL_AND", "LogicalAnd"),
    "Div": ("DIV", "Div"),
    "Equal": ("EQUAL", "Equal"),
    "Greater": ("GREATER", "Greater"),
    "GreaterOrEqual": ("GREATER_EQUAL", "GreaterEqual"),
    "Less": ("LESS", "Less"),
    "LessOrEqual": ("LESS_EQUAL", "LessEqual"),
    "Max": ("MAXIMUM", "MaximumMinimum"),
    "Min": ("MINIMUM", "MaximumMinimum"),
    "Mul": ("MUL", "Mul"),
    "Or": ("LOGICAL_OR", "LogicalOr"),
    "Pow": ("POW", "Pow"),
    "PRelu": ("PRELU", ""),
    "Sub": ("SUB", "Sub"),
}
_FUSING = {"Add", "Sub", "Mul", "Div"}
_INTEGER_PAIRS = {"Add", "Sub", "Mul"}


def unary(converter: Converter, node: Node) -> None:
    """One value in, one of the same place in memory out."""
    name, kind = _UNARY[node.type]
    chosen = options(kind) if kind else None
    if node.type == "Elu" and node.get("alpha", 1.0) != 1.0:
        raise refuse(node, "ELU has alpha 1", "use ELU with alpha 1, or LeakyReLU")
    given = converter.take(node.inputs[0])
    if given.integers is None and given.dtype == "int32" and node.type not in _WHOLE_TOO:
        raise refuse(node, "its input is whole numbers")
    _emit_unary(converter, node, name, chosen)


def _emit_unary(converter: Converter, node: Node, name: str, chosen: Any) -> None:
    given = converter.take(node.inputs[0])
    wanted = converter.integers(node.inputs[:1], node.outputs[0])
    if wanted is not None and node.type in _FIXED:
        wanted = fixed(*_FIXED[node.type], wanted.dtype)
    elif wanted is not None and (
        node.type not in _INTEGER or (wanted.dtype == "int16" and node.type != "LeakyRelu")
    ):
        wanted = None
    given = given if wanted else converter.real(given)
    made = converter.emit(
        name,
        [given],
        given.shape,
        like=given,
        dtype=wanted.dtype if wanted else given.dtype,
        scale=wanted.scale if wanted else None,
        options=chosen,
    )
    converter.give(node.outputs[0], made)


def leaky_relu(converter: Converter, node: Node) -> None:
    """LeakyRelu."""
    alpha = float(node.get("alpha", 0.01))
    _emit_unary(converter, node, "LEAKY_RELU", options("LeakyRelu", alpha=alpha))


def gelu(converter: Converter, node: Node) -> None:
    """Gelu, exact or by tanh."""
    near = node.get("approximate", "none") == "tanh"
    _emit_unary(converter, node, "GELU", options("Gelu", approximate=near))


def relu(converter: Converter, node: Node) -> None:
    """Relu and Clip that no operator in front of them computes."""
    given = converter.take(node.inputs[0])
    name = activation(node, converter.graph)
    if name is None:
        _clip(converter, node)
        return
    wanted = converter.integers(node.inputs[:1], node.outputs[0])
    given = given if wanted else converter.real(given)
    if given.dtype not in ("float32", "int8", "int16"):
        _clip(converter, node)
        return
    made = converter.emit(
        name,
        [given],
        given.shape,
        like=given,
        dtype=given.dtype,
        scale=wanted.scale if wanted else None,
    )
    converter.give(node.outputs[0], made)


def _clip(converter: Converter, node: Node) -> None:
    if node.type == "Relu":
        limits: tuple[float, float] | None = (0, np.inf)
    else:
        limits = bounds(node, converter.graph)
    if limits is None:
        raise refuse(node, "its bounds are computed while the model runs")
    made = converter.real(converter.take(node.inputs[0]))
    for name, bound in (("MAXIMUM", limits[0]), ("MINIMUM", limits[1])):
        if np.isfinite(bound):
            limit = converter.array(np.array(bound, made.dtype))
            made = converter.emit(
                name,
                [made, limit],
                made.shape,
                like=made,
                dtype=made.dtype,
                options=options("MaximumMinimum"),
            )
    converter.give(node.outputs[0], made)


def hard_sigmoid(converter: Converter, node: Node) -> None:
    """HardSigmoid as a product, a sum and two bounds."""
    alpha, beta = (float(node.get(*each)) for each in (("alpha", 0.2), ("beta", 0.5)))
    made = converter.real(converter.take(node.inputs[0]))
    for name, kind, value in (("MUL", "Mul", alpha), ("ADD", "Add", beta)):
        constant = converter.array(np.array(value, np.float32))
        made = converter.emit(name, [made, constant], made.shape, like=made, options=options(kind))
    for name, bound in (("MAXIMUM", 0.0), ("MINIMUM", 1.0)):
        constant = converter.array(np.array(bound, np.float32))
        kind = "MaximumMinimum"
        made = converter.emit(name, [made, constant], made.shape, like=made, options=options(kind))
    converter.give(node.outputs[0], made)


def binary(converter: Converter, node: Node) -> None:
    """Two values in; Max and Min take as many as there are."""
    if node.type == "Pow" and _squares(converter, node):
        return
    if node.type == "Mod":
        raise refuse(node, "its sign rules differ")
    name, kind = _BINARY[node.type]
    if len(node.inputs) == 1:
        converter.give(node.outputs[0], converter.take(node.inputs[0]))
        return
    value = node.inputs[0]
    for place, other in enumerate(node.inputs[1:], start=2):
        made = node.outputs[0] if place == len(node.inputs) else f"{node.outputs[0]}/{place}"
        if made not in converter.graph.shapes:
            shapes = (converter.shape(value), converter.shape(other))
            converter.graph.shapes[made] = tuple(np.broadcast_shapes(*shapes))
            converter.graph.dtypes[made] = converter.graph.dtypes[value]
        arithmetic(converter, name, kind, made, (value, other), fusing=node.type in _FUSING)
        value = made


def _squares(converter: Converter, node: Node) -> bool:
    """Whether a power was a square, or a root, which have operators of their own."""
    power = converter.constant(node.inputs[1])
    if (
        power is None
        or power.size != 1
        or converter.shape(node.inputs[0]) != converter.shape(node.outputs[0])
    ):
        return False
    names = {2.0: ("SQUARE", "Square"), 0.5: ("SQRT", None), -0.5: ("RSQRT", None)}
    found = names.get(float(power.item()))
    given = converter.real(converter.take(node.inputs[0]))
    if found is None or given.dtype != "float32":
        return False
    chosen = options(found[1]) if found[1] else None
    made = converter.emit(found[0], [given], given.shape, like=given, options=chosen)
    converter.give(node.outputs[0], made)
    return True


def where(converter: Converter, node: Node) -> None:
    """Where."""
    shape = converter.shape(node.outputs[0])
    wanted = None  # its integer kernel asks for one scale, which rounds twice
    given, like = together(converter, node.inputs, shape, wanted)
    made = converter.emit(
        "SELECT_V2", given, shape, like=like, dtype=given[1].dtype, options=options("SelectV2")
    )
    converter.give(node.outputs[0], made)


def cast(converter: Converter, node: Node) -> None:
    """Cast, nothing at all where LiteRT holds both types alike."""
    given = converter.real(converter.take(node.inputs[0]))
    dtype = dtype_of(converter.graph.dtypes[node.outputs[0]])
    if given.dtype != dtype:
        made = converter.emit(
            "CAST", [given], given.shape, like=given, dtype=dtype, options=options("Cast")
        )
        given = made
    converter.give(node.outputs[0], given)


def reciprocal(converter: Converter, node: Node) -> None:
    """Reciprocal as one divided by the value."""
    given = converter.real(converter.take(node.inputs[0]))
    one = converter.array(np.array(1, np.float32))
    made = converter.emit("DIV", [one, given], given.shape, like=given, options=options("Div"))
    converter.give(node.outputs[0], made)


def batch_normalization(converter: Converter, node: Node) -> None:
    """BatchNormalization as a product and a sum."""
    scale, bias, mean, variance = (
        converter.known(node, place, "its statistics") for place in range(1, 5)
    )
    factor = scale / np.sqrt(variance + np.float32(node.get("epsilon", 1e-5)))
    shape = converter.shape(node.outputs[0])
    along = (1, -1) + (1,) * (len(shape) - 2)
    value = node.outputs[0]
    add = converter.graph.add_constant
    factors = add(f"{value}/factor", factor.astype(np.float32).reshape(along))
    offsets = add(f"{value}/offset", (bias - mean * factor).astype(np.float32).reshape(along))
    converter.graph.shapes[f"{value}/product"] = shape
    arithmetic(converter, "MUL", "Mul", f"{value}/product", (node.inputs[0], factors))
    arithmetic(converter, "ADD", "Add", value, (f"{value}/product", offsets))


OPERATORS: dict[str, Convert] = {
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(_BINARY, binary),
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Clip": relu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "LeakyRelu": leaky_relu,
    "Reciprocal": reciprocal,
    "Relu": relu,
    "Where": where,
}
