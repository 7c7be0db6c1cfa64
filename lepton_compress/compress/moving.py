"""What each operator does with a factor for each channel: pass it on, take it up in a constant, or
hold it. `regions.py` asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx

from lepton_compress.compress.facts import attributes
from lepton_compress.compress.weight_channels import weight_channels

if TYPE_CHECKING:
    from lepton_compress.compress.regions import Labels, Search


def visit(search: Search, node: onnx.NodeProto) -> None:
    """Spread the labels of what a node takes and gives, as far as they are known."""
    known = _VISIT.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    (known or _hold)(search, node)


def _hold(search: Search, node: onnx.NodeProto) -> None:
    search.stop(node)


def _same(search: Search, node: onnx.NodeProto) -> None:
    """f(s x) = s f(x) for s > 0, element by element."""
    given, made = node.input[0], node.output[0]
    for one, other in ((given, made), (made, given)):
        labels = search.of(one)
        if labels is not None:
            search.assign(other, labels)


def _clip(search: Search, node: onnx.NodeProto) -> None:
    old = attributes(node)  # before operator set 11 the bounds are attributes
    bounds = []
    for place, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        array = search.facts.constant(node, place)
        if array is None and len(node.input) > place and node.input[place]:
            search.stop(node)
            return
        bounds.append(float(old.get(name, default) if array is None else array.reshape(-1)[0]))
    if bounds[0] not in (0.0, -np.inf) or bounds[1] < 1e30:
        search.stop(node, f"Clip from {bounds[0]:g} to {bounds[1]:g}")
    else:
        _same(search, node)


def _slope(search: Search, node: onnx.NodeProto) -> None:
    if search.facts.constant(node, 1) is None:
        search.stop(node)
    else:
        _same(search, node)


def _over(search: Search, node: onnx.NodeProto, axes: tuple[int, ...]) -> None:
    """Values mix along `axes`, whose number may change."""
    given, made = node.input[0], node.output[0]
    for one, other in ((given, made), (made, given)):
        labels = search.of(one)
        if labels is not None:
            search.assign(other, search.along(labels, axes))


def _pool(search: Search, node: onnx.NodeProto) -> None:
    _over(search, node, tuple(range(2, len(search.facts.shapes[node.input[0]]))))


def _resize(search: Search, node: onnx.NodeProto) -> None:
    shapes = [search.facts.shapes[name] for name in (node.input[0], node.output[0])]
    if shapes[0][:2] == shapes[1][:2]:
        _pool(search, node)
    else:
        search.stop(node)


def _pad(search: Search, node: onnx.NodeProto) -> None:
    pads, value = search.facts.constant(node, 1), search.facts.constant(node, 2)
    dims = len(search.facts.shapes[node.input[0]])
    nothing = value is not None and not value.any()
    zeros = len(node.input) < 3 or not node.input[2] or nothing
    if not zeros or pads is None or len(pads) != 2 * dims:
        search.stop(node)
        return
    padded = np.flatnonzero(pads.reshape(2, dims).any(axis=0))
    _over(search, node, tuple(int(axis) for axis in padded))


def _reduce(search: Search, node: onnx.NodeProto) -> None:
    given = attributes(node)
    shape = search.facts.shapes[node.input[0]]
    axes = search.facts.constant(node, 1)
    named = given.get("axes", None if axes is None else axes.tolist())
    if named is None:
        search.stop(node)
        return
    over = tuple(axis % len(shape) for axis in named)
    kept = [1 if axis in over else size for axis, size in enumerate(shape)]
    labels, made = search.of(node.input[0]), search.of(node.output[0])
    if labels is not None:
        first = search.along(labels, over)
        search.assign(node.output[0], first.reshape(search.facts.shapes[node.output[0]]))
    if made is not None:
        search.assign(node.input[0], np.broadcast_to(made.reshape(kept), shape))


def _layout(search: Search, node: onnx.NodeProto) -> None:
    """The same elements in the same order, in another shape."""
    for one, other in (
        (node.input[0], node.output[0]),
        (node.output[0], node.input[0]),
    ):
        labels = search.of(one)
        if labels is not None and other not in search.facts.constants:
            search.assign(other, labels.reshape(search.facts.shapes[other]))


def _transpose(search: Search, node: onnx.NodeProto) -> None:
    given, made = node.input[0], node.output[0]
    order = attributes(node).get("perm") or range(len(search.facts.shapes[given]))[::-1]
    labels = search.of(given)
    if labels is not None:
        search.assign(made, labels.transpose(order))
    back = search.of(made)
    if back is not None:
        search.assign(given, back.transpose(np.argsort(order)))


def _pick(
    search: Search, node: onnx.NodeProto, select: Callable[[Labels], dict[str, Labels]]
) -> None:
    """`select` gives the labels of the outputs from those of the input."""
    given = node.input[0]
    if search.of(given) is None:
        search.assign(given, search.fresh(search.facts.shapes[given]))
    labels = search.of(given)
    assert labels is not None  # noqa: S101 - as just assigned
    for name, chosen in select(labels).items():
        search.assign(name, chosen)


def _split(search: Search, node: onnx.NodeProto) -> None:
    axis = attributes(node).get("axis", 0)
    names = [name for name in node.output if name]
    sizes = [search.facts.shapes[name][axis] for name in names]
    ends = np.cumsum(sizes)[:-1]
    _pick(search, node, lambda x: dict(zip(names, np.split(x, ends, axis), strict=True)))


def _slice(search: Search, node: onnx.NodeProto) -> None:
    places = [search.facts.constant(node, place) for place in range(1, len(node.input))]
    if len(places) < 2 or any(each is None for each in places):
        search.stop(node)
        return
    starts, ends, *rest = [each.tolist() for each in places if each is not None]
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    cut = [slice(None)] * len(search.facts.shapes[node.input[0]])
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # An end below all is how the format spells "to the beginning".
        cut[axis] = slice(start, None if step < 0 and end < -(2**30) else end, step)
    _pick(search, node, lambda x: {node.output[0]: x[tuple(cut)]})


def _gather(search: Search, node: onnx.NodeProto) -> None:
    axis = attributes(node).get("axis", 0)
    table, chosen = (search.facts.constant(node, place) for place in (0, 1))
    labels = search.of(node.output[0])
    if table is not None:
        leading = len(search.facts.shapes[node.input[1]])
        if axis or table.ndim < 2 or not search.facts.alone(node, 0):
            search.stop(node)
        elif labels is not None:
            row = search.along(labels, range(leading))
            search.place(node, 0, row.reshape(1, *row.shape[leading:]), -1, "makes")
    elif chosen is None:
        search.stop(node)
    else:
        _pick(search, node, lambda x: {node.output[0]: np.take(x, chosen, axis)})


def _concat(search: Search, node: onnx.NodeProto) -> None:
    for name in node.input:
        if name in search.facts.constants:
            search.stop(node)
            return
    for name in node.input:
        if search.of(name) is None:
            search.assign(name, search.fresh(search.facts.shapes[name]))
    parts = [search.labels[name] for name in node.input]
    search.assign(node.output[0], np.concatenate(parts, attributes(node)["axis"]))


def _add(search: Search, node: onnx.NodeProto) -> None:
    shape = search.facts.shapes[node.output[0]]
    for name in (*node.output, *node.input):
        labels = search.of(name)
        if labels is None:
            continue
        whole = np.broadcast_to(labels, shape)
        search.assign(node.output[0], whole)
        for place, other in enumerate(node.input):
            if other in search.facts.constants:
                # Constants hold for every sample.
                search.place(node, place, search.along(whole, (0,)), -1, "passes")
            else:
                search.assign(other, _reduced(search, whole, search.facts.shapes[other]))
        return


def _reduced(search: Search, labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Labels of what is broadcast, from those of the result."""
    more = labels.ndim - len(shape)
    narrow = [axis for axis in range(labels.ndim) if axis < more or shape[axis - more] == 1]
    return search.along(labels, narrow).reshape(
        [1 if axis in narrow else size for axis, size in enumerate(labels.shape)][more:]
    )


def _multiply(search: Search, node: onnx.NodeProto) -> None:
    """By a constant, which takes up what comes from either side, so that a region ends here."""
    place = next((p for p, name in enumerate(node.input) if name in search.facts.constants), None)
    divides = node.op_type == "Div"
    shape = search.facts.shapes[node.output[0]]
    if place is None or (divides and place == 0):
        search.stop(node)
        return
    power = -1 if divides else 1
    for name, sign, side in ((node.output[0], -power, "makes"), (node.input[1 - place], power, "")):
        labels = search.of(name)
        if labels is None:
            continue
        if search.facts.shapes[name] != shape:
            search.stop(node)
            return
        once = search.along(labels, (0,))
        search.place(node, place, once, sign, "makes" if side else "takes")


def _norm(search: Search, node: onnx.NodeProto) -> None:
    """A normalisation with a scale and a shift for each channel behind it."""
    if search.of(node.input[0]) is not None:
        search.hold(node.input[0], f"{node.name} ({node.op_type})")
    labels = search.of(node.output[0])
    if labels is None:
        return
    dims = labels.ndim
    last = node.op_type in ("LayerNormalization", "RMSNormalization")
    first = attributes(node).get("axis", -1) % dims if last else 1
    own = range(first, dims) if last else (1,)
    row = search.along(labels, [axis for axis in range(dims) if axis not in own]).reshape(
        [labels.shape[axis] for axis in own]
    )
    places = [place for place in (1, 2) if place < len(node.input) and node.input[place]]
    for place in places:
        array = search.facts.constant(node, place)
        if array is None or array.shape != row.shape:
            search.stop(node)
            return
    for place in places:
        search.place(node, place, row, -1, "makes")


def _linear(search: Search, node: onnx.NodeProto) -> None:
    weight = search.facts.constant(node, 1)
    if weight is None or not search.facts.alone(node, 1) or attributes(node).get("transA"):
        if weight is None and node.op_type == "MatMul":
            _product(search, node)
        else:
            search.stop(node, "a weight that several nodes share" if weight is not None else "")
        return
    convolves = node.op_type.startswith("Conv")
    if not convolves and weight.ndim != 2:
        search.stop(node)
        return
    inner, outer = weight_channels(node, weight)
    for name, side in ((node.input[0], "takes"), (node.output[0], "makes")):
        labels = search.of(name)
        if labels is None:
            continue
        axis = 1 if convolves else labels.ndim - 1
        row = search.along(labels, [a for a in range(labels.ndim) if a != axis]).reshape(-1)
        if side == "takes":
            search.place(node, 1, row[inner], 1, "takes")
            continue
        search.place(node, 1, row[outer], -1, "makes")
        if len(node.input) > 2 and node.input[2]:
            if search.facts.constant(node, 2) is None:
                search.stop(node)
                return
            search.place(node, 2, row, -1, "makes")


def _product(search: Search, node: onnx.NodeProto) -> None:
    """Of two activations: the columns of the right one pass."""
    left, right, made = node.input[0], node.input[1], node.output[0]
    search.hold(left, f"{node.name} (MatMul)")
    shapes = search.facts.shapes
    if right in search.facts.constants or shapes[right][:-2] != shapes[made][:-2]:
        search.stop(node)
        return
    for one, other in ((right, made), (made, right)):
        labels = search.of(one)
        if labels is not None:
            search.assign(other, search.along(labels, (labels.ndim - 2,)))


_VISIT: dict[str, Callable[[Search, onnx.NodeProto], None]] = {
    **dict.fromkeys(("Abs", "Dropout", "Identity", "LeakyRelu", "Neg", "Relu"), _same),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"), _pool),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _layout),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _norm),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _norm),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _linear),
    **dict.fromkeys(("Add", "Sub"), _add),
    **dict.fromkeys(("Mul", "Div"), _multiply),
    "Clip": _clip,
    "Concat": _concat,
    "Gather": _gather,
    "PRelu": _slope,
    "Pad": _pad,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
}
