"""Patterns of several nodes that LiteRT computes by one operator, or need not compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lepton_compress.export.flatbuffer.graph import Graph, Node, Quantized, refuse, renamed

_OTHER_STEPS = {"MatMulNBits": "quantize_dynamic", "QAttention": "quantize", "Attention": "none"}


def rewrite(graph: Graph) -> None:
    """Bring a traced graph nearer to what the converter has functions for.

    Raises:
        InputError: a node has no counterpart whatever is done to it.
    """
    _refuse(graph)
    without_filled_channels(graph)
    with_hybrid_products(graph)
    with_gelu(graph)
    with_folded_normalization(graph)


def _refuse(graph: Graph) -> None:
    for node in graph.nodes:
        if node.type == "MatMulNBits":
            raise refuse(
                node,
                "LiteRT has no kernel for weights packed in blocks",
                "use the step quantize_dynamic or quantize, or export with `weights: int8`",
            )
        if node.type == "QAttention":
            raise refuse(node, "LiteRT has no fused attention", "leave its layers in float: `keep`")


def without_filled_channels(graph: Graph) -> None:
    """Convolutions over the channels that there are, where zeros were added for a kernel's sake."""
    makers, nodes = graph.makers(), []
    for node in graph.nodes:
        real = makers.get(node.inputs[0]) if node.type == "Conv" else None
        pad = makers.get(real.inputs[0]) if real and real.type == "DequantizeLinear" else None
        count = _filled(graph, real, pad) if real and pad else 0
        if not count or node.get("group", 1) != 1 or node.inputs[1] not in graph.constants:
            nodes.append(node)
            continue
        assert real is not None  # noqa: S101 - it was just looked at
        assert pad is not None  # noqa: S101
        name, value = node.inputs[1], f"{node.outputs[0]}/given"
        fewer, channels = f"{value}/weight", graph.shapes[pad.inputs[0]][1]
        graph.add_constant(fewer, graph.constants[name][:, :channels])
        held = graph.quantized.get(name)
        if held is not None:
            graph.quantized[fewer] = replace(held, integers=held.integers[:, :channels])
        nodes.append(
            Node(
                real.type,
                f"{real.name}/given",
                (pad.inputs[0], *real.inputs[1:]),
                (value,),
                real.attributes,
            )
        )
        graph.shapes[value], graph.dtypes[value] = graph.shapes[pad.inputs[0]], "float32"
        nodes.append(renamed(node, inputs=(value, fewer, *node.inputs[2:])))
    graph.keep(nodes)


def _filled(graph: Graph, real: Node, pad: Node) -> int:
    """How many channels of zeros a Pad adds behind the others; 0 if it does anything else."""
    if pad.type != "Pad" or len(pad.inputs) != 3 or pad.get("mode", "constant") != "constant":
        return 0
    amounts, value = (graph.constants.get(name) for name in pad.inputs[1:])
    zero = graph.constants.get(real.input(2))
    if amounts is None or value is None or zero is None or value.item() != zero.item():
        return 0
    rank = len(graph.shapes[pad.inputs[0]])
    others = [each for place, each in enumerate(amounts.tolist()) if place != rank + 1]
    return 0 if any(others) else int(amounts[rank + 1])


def with_hybrid_products(graph: Graph) -> None:
    """Products whose activation is quantised when the model runs, as float ones over int8 weights:
    hybrid kernels do the rest."""
    makers, users, nodes = graph.makers(), graph.users(), []
    made: dict[str, Node] = {}
    for node in graph.nodes:
        if node.type in ("MatMulInteger", "ConvInteger"):
            found = _hybrid(graph, makers, users, node)
            if found is None:
                raise refuse(node, "it is no product of a value quantised at run time")
            made[found.outputs[0]] = found
        elif node.type == "DynamicQuantizeLSTM":
            made[next(filter(None, node.outputs))] = _recurrent(graph, node)
    for node in graph.nodes:
        key = next(filter(None, node.outputs), "")
        nodes.append(made.get(key, node))
    graph.keep(nodes)


def _hybrid(
    graph: Graph, makers: dict[str, Node], users: dict[str, list[Node]], node: Node
) -> Node | None:
    """The float node for DynamicQuantizeLinear, an integer product, Cast and Mul."""
    source = makers.get(node.inputs[0])
    weight = graph.constants.get(node.inputs[1])
    cast = _alone(users, node.outputs[0], "Cast")
    scaled = _alone(users, cast.outputs[0], "Mul") if cast else None
    if source is None or source.type != "DynamicQuantizeLinear" or weight is None:
        return None
    if cast is None or scaled is None or node.input(2) != source.outputs[2]:
        return None
    factors = makers.get(next(each for each in scaled.inputs if each != cast.outputs[0]))
    if factors is None or factors.type != "Mul" or source.outputs[1] not in factors.inputs:
        return None
    scale = graph.constants.get(
        next((each for each in factors.inputs if each != source.outputs[1]), "")
    )
    if scale is None:
        return None
    convolves = node.type == "ConvInteger"
    channel = 0 if convolves else weight.ndim - 1
    zero = graph.constants.get(node.input(3), np.zeros((), weight.dtype))
    if scale.size not in (1, weight.shape[channel]) or zero.size not in (1, scale.size):
        return None
    scale = scale.reshape(-1) if scale.size > 1 else scale.reshape(())
    zero = np.broadcast_to(zero.reshape(-1) if scale.ndim else zero.reshape(()), scale.shape)
    name = f"{scaled.outputs[0]}/weight"
    held = Quantized(weight, scale, zero, channel if scale.ndim else None)
    graph.add_constant(name, held.values)
    graph.quantized[name] = held
    graph.hybrid.add(name)
    kind = "Conv" if convolves else "MatMul"
    given = (source.inputs[0], name)
    return Node(kind, node.name, given, scaled.outputs, node.attributes)


def _alone(users: dict[str, list[Node]], name: str, kind: str) -> Node | None:
    found = users.get(name, [])
    return found[0] if len(found) == 1 and found[0].type == kind else None


def _recurrent(graph: Graph, node: Node) -> Node:
    """An LSTM over int8 weights that are made float when the file is loaded: LiteRT's hybrid kernel
    has one scale for a gate, not one for each unit."""
    inputs = list(node.inputs[:8])
    for place, (scale, zero) in ((1, (8, 9)), (2, (10, 11))):
        name = f"{node.outputs[0]}/weights{place}"
        integers, steps, zeros = (
            graph.constants[node.inputs[each]] for each in (place, scale, zero)
        )
        # (directions, inputs, gates) here, (directions, gates, inputs) of a float LSTM.
        integers = np.swapaxes(integers, 1, 2)
        if steps.size == 1:
            steps, zeros = steps.reshape(()), zeros.reshape(())
        elif len(steps) != 1:
            values = (integers.astype(np.float32) - zeros.reshape(len(steps), -1, 1)) * (
                steps.reshape(len(steps), -1, 1)
            )
            inputs[place] = graph.add_constant(name, values.astype(np.float32))
            continue
        axis = 1 if steps.ndim else None
        steps, zeros = (each.reshape(-1) if steps.ndim else each for each in (steps, zeros))
        held = Quantized(integers, steps, zeros, axis)
        inputs[place] = graph.add_constant(name, held.values)
        graph.quantized[name] = held
    return Node("LSTM", node.name, tuple(inputs), node.outputs, node.attributes)


def with_gelu(graph: Graph) -> None:
    """x * (erf(x / sqrt(2)) + 1) / 2, in whichever order it is multiplied, as one operator."""
    makers, users = graph.makers(), graph.users()
    replaced: dict[str, Node] = {}
    for node in graph.nodes:
        if node.type != "Erf":
            continue
        found = _gelu(graph, makers, users, node)
        if found is not None:
            replaced[found.outputs[0]] = found
    graph.keep([replaced.get(node.outputs[0], node) for node in graph.nodes])


def _gelu(
    graph: Graph, makers: dict[str, Node], users: dict[str, list[Node]], erf: Node
) -> Node | None:
    inner = makers.get(erf.inputs[0])
    if inner is None or inner.type not in ("Div", "Mul"):
        return None
    factor = _factor(graph, inner)
    source = next((each for each in inner.inputs if each not in graph.constants), "")
    if factor is None or not np.isclose(factor, 0.5**0.5, rtol=1e-5):
        return None
    plus = _alone(users, erf.outputs[0], "Add")
    if plus is None or _other(graph, plus, erf.outputs[0]) != 1:
        return None
    # Two products are left, with x and with one half, in either order.
    half, taken, value = False, False, plus.outputs[0]
    while not (half and taken):
        node = _alone(users, value, "Mul")
        if node is None or value in graph.outputs:
            return None
        other = node.inputs[1] if node.inputs[0] == value else node.inputs[0]
        before = makers.get(other)
        if not taken and other == source:
            taken = True
        elif not half and _other(graph, node, value) == 0.5:
            half = True
        elif (
            not (half or taken)
            and before is not None
            and before.type == "Mul"
            and source in before.inputs
            and _other(graph, before, source) == 0.5
        ):
            half = taken = True
        else:
            return None
        value = node.outputs[0]
    return Node("Gelu", erf.name, (source,), (value,), {"approximate": "none"})


def _other(graph: Graph, node: Node, value: str) -> float | None:
    """The single constant that stands beside a value."""
    other = node.inputs[1] if node.inputs[0] == value else node.inputs[0]
    array = graph.constants.get(other)
    return float(array.item()) if array is not None and array.size == 1 else None


def _factor(graph: Graph, node: Node) -> float | None:
    """What a product or a quotient multiplies by."""
    place = 1 if node.inputs[1] in graph.constants else 0
    array = graph.constants.get(node.inputs[place])
    if array is None or array.size != 1 or (node.type == "Div" and place == 0):
        return None
    return float(array.item()) if node.type == "Mul" else 1 / float(array.item())


def with_folded_normalization(graph: Graph) -> None:
    """BatchNormalization behind a convolution as part of its weights."""
    makers, users = graph.makers(), graph.users()
    replaced: dict[str, Node] = {}
    for node in graph.nodes:
        before = makers.get(node.inputs[0]) if node.inputs else None
        if node.type != "BatchNormalization" or before is None or before.type != "Conv":
            continue
        names = [*node.inputs[1:5], before.inputs[1], *filter(None, before.inputs[2:])]
        plain = all(name in graph.constants for name in names)
        alone = len(users.get(before.outputs[0], [])) == 1
        if not plain or not alone or before.outputs[0] in graph.outputs:
            continue
        if before.inputs[1] in graph.quantized:
            continue
        replaced[node.outputs[0]] = _folded(graph, before, node)
    graph.keep([replaced.get(node.outputs[0], node) for node in graph.nodes])


def _folded(graph: Graph, conv: Node, node: Node) -> Node:
    scale, bias, mean, variance = (graph.constants[name] for name in node.inputs[1:5])
    weight = graph.constants[conv.inputs[1]]
    held = graph.constants[conv.inputs[2]] if conv.input(2) else np.zeros(len(weight), np.float32)
    factor = scale / np.sqrt(variance + np.float32(node.get("epsilon", 1e-5)))
    value = node.outputs[0]
    weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    names = (
        graph.add_constant(f"{value}/weight", weight.astype(np.float32)),
        graph.add_constant(f"{value}/bias", ((held - mean) * factor + bias).astype(np.float32)),
    )
    return Node("Conv", conv.name, (conv.inputs[0], *names), (value,), conv.attributes)
