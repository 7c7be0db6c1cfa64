"""Operators that move elements and compute nothing; integers pass through them as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from lepton_compress.export.aten import rounding
from lepton_compress.export.aten.network import Convert, Network, refuse
from lepton_compress.export.flatbuffer.graph import Node

_LONGEST = (1 << 62) - 1


def reshape(net: Network, node: Node) -> torch.Tensor:
    """Reshape, Flatten, Squeeze and Unsqueeze: the shape that comes out is known."""
    return torch.reshape(net.value(node.inputs[0]), net.graph.shapes[node.outputs[0]])


def same(net: Network, node: Node) -> torch.Tensor:
    """Identity and Dropout."""
    return net.value(node.inputs[0])


def transpose(net: Network, node: Node) -> torch.Tensor:
    """Transpose."""
    x = net.value(node.inputs[0])
    return torch.permute(x, list(node.get("perm", range(x.ndim)[::-1])))


def concatenation(net: Network, node: Node) -> torch.Tensor:
    """Concat. XNNPACK joins integers of one scale, so that those that are rounded behind it are
    rounded before it as well, to the same numbers."""
    users = net.graph.users().get(node.outputs[0], [])
    given = [net.value(name) for name in node.inputs]
    if len(users) == 1 and users[0].type == "QuantizeLinear":
        given = [rounding.rounded(net, users[0], each) for each in given]
    return torch.cat(given, node.attributes["axis"])


def split(net: Network, node: Node) -> Sequence[torch.Tensor]:
    """Split, into the sizes that came out."""
    axis = node.get("axis", 0)
    sizes = [net.graph.shapes[name][axis] for name in node.outputs]
    return torch.split(net.value(node.inputs[0]), sizes, axis)


def part(net: Network, node: Node) -> torch.Tensor:
    """Slice between constants, forwards."""
    x = net.value(node.inputs[0])
    starts = net.constant(node, 1, "start").tolist()
    ends = net.constant(node, 2, "end").tolist()
    count = range(len(starts))
    axes = net.constant(node, 3, "axes").tolist() if node.input(3) else list(count)
    steps = net.constant(node, 4, "step").tolist() if node.input(4) else [1 for _ in count]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise refuse(node, "it goes backwards")
        chosen = [slice(None)] * x.ndim
        chosen[axis] = slice(start, min(end, _LONGEST), step)
        x = x[tuple(chosen)]
    return x


def gather(net: Network, node: Node) -> torch.Tensor:
    """Gather along an axis, by places that count from the beginning unless they are constants."""
    axis, name = node.get("axis", 0), node.inputs[1]
    x = net.value(node.inputs[0])
    axis %= x.ndim
    size = x.shape[axis]
    if name in net.graph.constants:
        places = net.graph.constants[name]
        if places.ndim == 0:
            return torch.select(x, axis, int(places.item()) % size)
        taken = net.buffer(name, f"places of {size}", lambda array: (array % size).astype("int64"))
    else:
        taken = net.value(name).to(torch.int64)
    if axis == 0 and x.ndim == 2:
        return functional.embedding(taken, x)
    made = torch.index_select(x, axis, torch.reshape(taken, (-1,)))
    return torch.reshape(made, net.graph.shapes[node.outputs[0]])


def pad(net: Network, node: Node) -> torch.Tensor:
    """Pad with a constant."""
    if node.get("mode", "constant") != "constant":
        raise refuse(node, f"its mode is {node.get('mode', '')}")
    x = net.value(node.inputs[0])
    amounts = net.constant(node, 1, "padding").tolist()
    axes = net.constant(node, 3, "axes").tolist() if node.input(3) else list(range(x.ndim))
    value = net.constant(node, 2, "value").item() if node.input(2) else 0
    if node.inputs[0] in net.lowered:
        value -= 128
    early, late = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(axes):
        early[axis], late[axis] = amounts[place], amounts[place + len(axes)]
    around = [side[axis] for axis in reversed(range(x.ndim)) for side in (early, late)]
    return functional.pad(x, around, value=value)


def expansion(net: Network, node: Node) -> torch.Tensor:
    """Expand."""
    return net.value(node.inputs[0]).expand(net.graph.shapes[node.outputs[0]])


def tile(net: Network, node: Node) -> torch.Tensor:
    """Tile."""
    return net.value(node.inputs[0]).repeat(net.constant(node, 1, "count").tolist())


def depth_to_space(net: Network, node: Node) -> torch.Tensor:
    """DepthToSpace in either order."""
    x, size = net.value(node.inputs[0]), node.attributes["blocksize"]
    count, channels, height, width = x.shape
    left = channels // size**2
    if node.get("mode", "DCR") == "CRD":
        x = torch.reshape(x, (count, left, size, size, height, width))
        x = torch.permute(x, (0, 1, 4, 2, 5, 3))
    else:
        x = torch.reshape(x, (count, size, size, left, height, width))
        x = torch.permute(x, (0, 3, 4, 1, 5, 2))
    return torch.reshape(x, net.graph.shapes[node.outputs[0]])


OPERATORS: dict[str, Convert] = {
    "Concat": concatenation,
    "DepthToSpace": depth_to_space,
    "Dropout": same,
    "Expand": expansion,
    "Flatten": reshape,
    "Gather": gather,
    "Identity": same,
    "Pad": pad,
    "Reshape": reshape,
    "Slice": part,
    "Split": split,
    "Squeeze": reshape,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": reshape,
}
MOVES = frozenset({*OPERATORS} - {"DepthToSpace", "Gather"})
"""Operators that take integers of any meaning."""
