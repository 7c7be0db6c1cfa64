"""Operators that move values and compute nothing. Reshaping and transposing are told to the layout;
the others work on the axes where they lie. Integers keep their scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lepton_compress.export.flatbuffer.builder import options
from lepton_compress.export.flatbuffer.converter import Convert, Converter, Slot
from lepton_compress.export.flatbuffer.graph import Node, refuse
from lepton_compress.export.flatbuffer.layouts import Shape
from lepton_compress.export.flatbuffer.weights import float_weight

_END = 2**31 - 1


def reshape(converter: Converter, node: Node) -> None:
    """Reshape and its like: the shape that came out when the graph was traced."""
    given = converter.take(node.inputs[0])
    converter.give(node.outputs[0], converter.seen(given, converter.shape(node.outputs[0])))


def transpose(converter: Converter, node: Node) -> None:
    """Transpose."""
    given = converter.take(node.inputs[0])
    order = node.get("perm", None) or range(len(given.shape))[::-1]
    converter.give(node.outputs[0], converter.turned(given, [int(axis) for axis in order]))


def quantize(converter: Converter, node: Node) -> None:
    """QuantizeLinear."""
    given = converter.take(node.inputs[0])
    converter.give(node.outputs[0], converter.rounded(given, converter.kinds[node.outputs[0]]))


def dequantize(converter: Converter, node: Node) -> None:
    """DequantizeLinear: the integers stand for the value until something needs it in float."""
    converter.give(node.outputs[0], converter.take(node.inputs[0]))


def concat(converter: Converter, node: Node) -> None:
    """Concat, in the order in memory that most of its inputs have."""
    shape = converter.shape(node.outputs[0])
    axis = int(node.attributes["axis"]) % len(shape)
    slots = [converter.take(name) for name in node.inputs if converter.shape(name)[axis]]
    kinds = {slot.integers for slot in slots}
    wanted = converter.integers(node.inputs, node.outputs[0])
    if len(kinds) == 1:
        wanted = slots[0].integers
    if wanted is None:
        slots = [converter.real(slot) for slot in slots]
    else:
        slots = [converter.rounded(slot, wanted) for slot in slots]
    orders = [slot.layout.storage(slot.shape) for slot in slots]
    found = [order for order in orders if order is not None]
    own = tuple(range(len(shape)))
    order = max(found, key=lambda each: (found.count(each), each != own)) if found else own
    made = converter.emit(
        "CONCATENATION",
        [converter.laid(slot, order) for slot in slots],
        shape,
        dtype=slots[0].dtype,
        order=order,
        scale=slots[0].scale,
        options=options("Concatenation", axis=order.index(axis)),
    )
    converter.give(node.outputs[0], made)


def split(converter: Converter, node: Node) -> None:
    """Split into equal parts by one operator, else a slice for each."""
    given = converter.take(node.inputs[0])
    axis = int(node.get("axis", 0)) % len(given.shape)
    given, order = converter.ordered(given)
    sizes = [converter.shape(name)[axis] for name in node.outputs]
    shapes = [converter.shape(name) for name in node.outputs]
    kind = {"dtype": given.dtype, "scale": given.scale}
    if len(set(sizes)) == 1:
        slots = [converter.slot(shape, order=order, **kind) for shape in shapes]  # type: ignore[arg-type]
        place = converter.array(np.array(order.index(axis), np.int32))
        converter.add("SPLIT", [place, given], slots, options("Split", numSplits=len(sizes)))
    else:
        starts = np.cumsum([0, *sizes]).tolist()
        slots = []
        for start, shape in zip(starts, shapes, strict=False):
            begin = [start if each == axis else 0 for each in range(len(shape))]
            slots.append(sliced(converter, given, order, begin, shape))
    for name, slot in zip(node.outputs, slots, strict=True):
        converter.give(name, slot)


def sliced(
    converter: Converter, given: Slot, order: Sequence[int], begin: Sequence[int], shape: Shape
) -> Slot:
    """A part of a value whose axes lie in memory in that order."""
    return converter.emit(
        "SLICE",
        [
            given,
            converter.vector([begin[axis] for axis in order]),
            converter.vector([shape[axis] for axis in order]),
        ],
        shape,
        dtype=given.dtype,
        order=order,
        scale=given.scale,
        options=options("Slice"),
    )


def slice_(converter: Converter, node: Node) -> None:
    """Slice with constant bounds; steps may be negative."""
    given = converter.take(node.inputs[0])
    rank = len(given.shape)
    starts, ends, axes, steps = _bounds(converter, node, rank)
    ranges = {
        axis: range(size)[slice(_inside(start, step), _inside(end, step), step)]
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
        for size in [given.shape[axis]]
    }
    shape = converter.shape(node.outputs[0])
    if 0 in shape:
        raise refuse(node, "nothing is left")
    begin = [ranges[axis].start if axis in ranges else 0 for axis in range(rank)]
    steps = [ranges[axis].step if axis in ranges else 1 for axis in range(rank)]
    if shape == given.shape and not any(begin):
        converter.give(node.outputs[0], given)
        return
    given, order = converter.ordered(given)
    if all(step == 1 for step in steps):
        converter.give(node.outputs[0], sliced(converter, given, order, begin, shape))
        return
    # One behind the last place that is taken; -1 would be the end, so it is left open by the mask.
    behind = [begin[axis] + steps[axis] * shape[axis] for axis in range(rank)]
    mask = sum(1 << place for place, axis in enumerate(order) if behind[axis] < 0)
    parts = [
        converter.vector([each[axis] for axis in order])
        for each in (begin, [max(end, 0) for end in behind], steps)
    ]
    made = converter.emit(
        "STRIDED_SLICE",
        [given, *parts],
        shape,
        dtype=given.dtype,
        order=order,
        scale=given.scale,
        options=options("StridedSlice", endMask=mask),
    )
    converter.give(node.outputs[0], made)


def _bounds(converter: Converter, node: Node, rank: int) -> list[list[int]]:
    """Starts, ends, axes and steps."""
    if "starts" in node.attributes:
        held = [list(node.attributes[key]) for key in ("starts", "ends")]
        held.append(list(node.get("axes", range(len(held[0])))))
    else:
        held = [converter.known(node, place, "where it cuts").tolist() for place in (1, 2)]
        count = len(held[0])
        axes = converter.known(node, 3, "its axes").tolist() if node.input(3) else range(count)
        held.append(list(axes))
        if node.input(4):
            held.append(converter.known(node, 4, "its steps").tolist())
    if len(held) == 3:
        held.append([1] * len(held[0]))
    return [held[0], held[1], [axis % rank for axis in held[2]], held[3]]


def _inside(bound: int, step: int) -> int | None:
    """A bound as Python's slices have it; ONNX has huge ones for open ends."""
    return None if abs(bound) >= _END and (bound < 0) == (step < 0) else bound


def gather(converter: Converter, node: Node) -> None:
    """Gather along one axis; embeddings among them."""
    data, indices = node.inputs
    shape = converter.shape(node.outputs[0])
    axis = int(node.get("axis", 0)) % len(converter.shape(data))
    held = converter.constant(data)
    kind = converter.kinds.get(data)
    if held is not None and kind is None and held.dtype == np.float32 and held.ndim == 2:
        quantized = converter.graph.quantized.get(data)
        if quantized is None or quantized.axis is not None:
            tensor = float_weight(
                converter, data, lambda array: array, channel=0, axis=0, hybrid=False
            )
            given = replace(converter.constant_slot(np.zeros(0)), tensor=tensor, shape=held.shape)
            given = replace(given, storage=held.shape, dtype="float32")
        else:
            given = converter.take(data)
    else:
        given = converter.plain(converter.take(data))
    known = converter.constant(indices)
    if known is not None:
        size = converter.shape(data)[axis]
        places = converter.constant_slot((known % size).astype(np.int32))
    else:
        places = converter.plain(converter.take(indices))
    made = converter.emit(
        "GATHER",
        [given, places],
        shape,
        dtype=given.dtype,
        scale=given.scale,
        options=options("Gather", axis=axis),
    )
    converter.give(node.outputs[0], made)


def pad(converter: Converter, node: Node) -> None:
    """Pad with a constant, or by reflection."""
    given = converter.take(node.inputs[0])
    rank = len(given.shape)
    amounts = node.get("pads", None)
    if amounts is None:
        amounts = converter.known(node, 1, "how much it pads").tolist()
    axes = (
        [int(axis) % rank for axis in converter.known(node, 3, "its axes")]
        if node.input(3)
        else list(range(rank))
    )
    half = len(amounts) // 2
    pairs = dict.fromkeys(range(rank), (0, 0))
    pairs |= dict(zip(axes, zip(amounts[:half], amounts[half:], strict=True), strict=True))
    if min(map(min, pairs.values())) < 0:
        raise refuse(node, "it cuts, which LiteRT's PAD does not", "use a slice")
    mode = node.get("mode", "constant")
    if mode not in ("constant", "reflect"):
        raise refuse(node, f"LiteRT has no padding of mode {mode}")
    value = _padded_with(converter, node, given)
    if mode == "constant" and value != 0 and given.integers:
        given = converter.real(given)
    given, order = converter.ordered(given)
    tensors: list[int | Slot] = [
        given,
        converter.array(np.array([pairs[axis] for axis in order], np.int32)),
    ]
    if mode == "reflect":
        name, chosen = "MIRROR_PAD", options("MirrorPad", mode=0)
    elif value == 0:
        name, chosen = "PAD", options("Pad")
    else:
        name, chosen = "PADV2", options("PadV2")
        tensors.append(converter.array(np.array([value], given.dtype)))
    made = converter.emit(
        name,
        tensors,
        converter.shape(node.outputs[0]),
        dtype=given.dtype,
        order=order,
        scale=given.scale,
        options=chosen,
    )
    converter.give(node.outputs[0], made)


def _padded_with(converter: Converter, node: Node, given: Slot) -> float:
    """The number that is padded with; integers stand for it."""
    if not node.input(2):
        value = float(node.get("value", 0.0))
        if converter.kinds.get(node.inputs[0]) is None:
            return value
    else:
        value = float(converter.known(node, 2, "what it pads with").item())
    kind = converter.kinds.get(node.inputs[0])
    if kind is None:
        return value
    shift = {"uint8": 128, "uint16": 32768}.get(converter.graph.dtypes[node.inputs[0]], 0)
    return (value - shift - kind.scale.zero) * kind.scale.values[0]


def expand(converter: Converter, node: Node) -> None:
    """Expand, and Tile."""
    shape = converter.shape(node.outputs[0])
    given = converter.take(node.inputs[0])
    if node.type == "Tile":
        given = converter.plain(given)
        counts = converter.known(node, 1, "how often it repeats").tolist()
        made = converter.emit(
            "TILE",
            [given, converter.vector(counts)],
            shape,
            dtype=given.dtype,
            scale=given.scale,
            options=options("Tile"),
        )
    else:
        longer = (1,) * (len(shape) - len(given.shape)) + given.shape
        given, order = converter.ordered(converter.seen(given, longer))
        made = given
        if longer != shape:
            wanted = converter.vector([shape[axis] for axis in order])
            made = converter.emit(
                "BROADCAST_TO",
                [given, wanted],
                shape,
                dtype=given.dtype,
                order=order,
                scale=given.scale,
                options=options("BroadcastTo"),
            )
    converter.give(node.outputs[0], made)


def depth_to_space(converter: Converter, node: Node) -> None:
    """DepthToSpace and SpaceToDepth as reshaping and transposing."""
    given = converter.take(node.inputs[0])
    samples, channels, height, width = given.shape
    block = int(node.attributes["blocksize"])
    if node.type == "SpaceToDepth":
        parts = (samples, channels, height // block, block, width // block, block)
        order = (0, 3, 5, 1, 2, 4)
    elif node.get("mode", "DCR") == "DCR":
        parts = (samples, block, block, channels // block**2, height, width)
        order = (0, 3, 4, 1, 5, 2)
    else:
        parts = (samples, channels // block**2, block, block, height, width)
        order = (0, 1, 4, 2, 5, 3)
    made = converter.turned(converter.seen(given, parts), order)
    converter.give(node.outputs[0], converter.seen(made, converter.shape(node.outputs[0])))


OPERATORS: dict[str, Convert] = {
    **dict.fromkeys(("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"), reshape),
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "DequantizeLinear": dequantize,
    "Expand": expand,
    "Gather": gather,
    "Pad": pad,
    "QuantizeLinear": quantize,
    "Slice": slice_,
    "SpaceToDepth": depth_to_space,
    "Split": split,
    "Tile": expand,
    "Transpose": transpose,
}
