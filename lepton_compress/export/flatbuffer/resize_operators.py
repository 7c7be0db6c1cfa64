"""Resize. What it does along an axis is a matrix, whichever of its many modes it has: where one of
LiteRT's operators has the same, that computes it; else nearest places are gathered, and the rest is
products with those matrices."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from lepton_compress.export.flatbuffer.builder import options
from lepton_compress.export.flatbuffer.converter import Convert, Converter, Slot
from lepton_compress.export.flatbuffer.graph import Array, Node, refuse
from lepton_compress.export.flatbuffer.weights import float_weight

_CLOSE = 1e-5
_FLAGS = ((False, True), (False, False), (True, False))
"""Whether corners are aligned, and whether pixels have their centres at one half."""


def resize(converter: Converter, node: Node) -> None:
    """Resize along one axis or two."""
    shape, made = converter.shape(node.inputs[0]), converter.shape(node.outputs[0])
    if node.get("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise refuse(node, "it crops, too", "crop by a slice")
    axes = [axis for axis, (old, new) in enumerate(zip(shape, made, strict=True)) if old != new]
    matrices = {axis: _matrix(converter, node, axis) for axis in axes}
    given = converter.take(node.inputs[0])
    nearest = node.get("mode", "nearest") == "nearest"
    result = _native(converter, node, given, matrices, nearest=nearest)
    for axis in axes if result is None else ():
        along = _gathered if nearest else _multiplied
        given = along(converter, node, given, axis, matrices[axis])
    converter.give(node.outputs[0], given if result is None else result)


def _matrix(converter: Converter, node: Node, axis: int) -> Array:
    """What the node does along an axis, float32 (new places, old places): its answer to one place
    after the other."""
    old = converter.shape(node.inputs[0])[axis]
    new = converter.shape(node.outputs[0])[axis]
    named = node.get("axes", None)
    place = axis
    if named is not None:
        place = [int(each) % len(converter.shape(node.inputs[0])) for each in named].index(axis)
    attributes = {
        key: value
        for key, value in node.attributes.items()
        if key not in ("axes", "keep_aspect_ratio_policy")
    }
    scales = converter.constant(node.input(2)) if node.input(2) else None
    if scales is not None and scales.size:
        given = {"scales": np.array([1, float(scales[place])], np.float32)}
        inputs = ["x", "", "scales"]
    else:
        given = {"sizes": np.array([old, new], np.int64)}
        inputs = ["x", "", "", "sizes"]
    graph = helper.make_graph(
        [helper.make_node("Resize", inputs, ["y"], **attributes)],
        "resize",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [old, old])],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(array, name) for name, array in given.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    answers: Array = session.run(None, {"x": np.eye(old, dtype=np.float32)})[0]
    return np.ascontiguousarray(answers.T)


def _native(
    converter: Converter, node: Node, given: Slot, matrices: dict[int, Array], *, nearest: bool
) -> Slot | None:
    """The result by one operator, where there is one that does the same."""
    rank = len(given.shape)
    axes = sorted(matrices)
    if rank not in (3, 4) or not 1 <= len(axes) <= 2 or axes[0] == 0:
        return None
    if len(axes) == 1:
        other = next(axis for axis in range(rank - 1, 0, -1) if axis != axes[0])
        axes = sorted([*axes, other])
    olds = [given.shape[axis] for axis in axes]
    news = [converter.shape(node.outputs[0])[axis] for axis in axes]
    wanted = [matrices.get(axis, np.eye(given.shape[axis])) for axis in axes]
    flags = next(
        (
            each
            for each in _FLAGS
            if all(
                np.abs(_kernel(old, new, each, nearest=nearest) - matrix).max() < _CLOSE
                for old, new, matrix in zip(olds, news, wanted, strict=True)
            )
        ),
        None,
    )
    if flags is None:
        return None
    rounds = converter.integers(node.inputs[:1], node.outputs[0]) is not None
    given = given if nearest or rounds else converter.real(given)
    if rank == 3:
        given = converter.seen(given, (*given.shape, 1))
    others = [axis for axis in range(4) if axis not in axes]
    order = (others[0], *axes, others[1])
    kind = "ResizeNearestNeighbor" if nearest else "ResizeBilinear"
    shape = list(given.shape)
    for axis, new in zip(axes, news, strict=True):
        shape[axis] = new
    made = converter.emit(
        "RESIZE_NEAREST_NEIGHBOR" if nearest else "RESIZE_BILINEAR",
        [converter.laid(given, order), converter.vector(news)],
        tuple(shape),
        dtype=given.dtype,
        order=order,
        scale=given.scale,
        options=options(kind, alignCorners=flags[0], halfPixelCenters=flags[1]),
    )
    return converter.seen(made, converter.shape(node.outputs[0]))


def _kernel(old: int, new: int, flags: tuple[bool, bool], *, nearest: bool) -> Array:
    """What LiteRT's operators do along an axis, (new places, old places)."""
    corners, centres = flags
    step = (old - 1) / (new - 1) if corners and new > 1 else old / new
    made = np.zeros((new, old), np.float32)
    for place in range(new):
        if nearest:
            at = (place + (0.5 if centres else 0.0)) * step
            row = int(np.floor(at + 0.5)) if corners else int(np.floor(at))
            made[place, min(row, old - 1)] = 1
            continue
        at = (place + 0.5) * step - 0.5 if centres else place * step
        low = max(int(np.floor(at)), 0)
        part = np.clip(at - low, 0, 1)
        made[place, min(low, old - 1)] += 1 - part
        made[place, min(low + 1, old - 1)] += part
    return made


def _gathered(converter: Converter, node: Node, given: Slot, axis: int, matrix: Array) -> Slot:
    given, order = converter.ordered(given)
    shape = tuple(len(matrix) if each == axis else size for each, size in enumerate(given.shape))
    places = converter.vector(matrix.argmax(axis=1).tolist())
    return converter.emit(
        "GATHER",
        [given, places],
        shape,
        dtype=given.dtype,
        order=order,
        scale=given.scale,
        options=options("Gather", axis=order.index(axis)),
    )


def _multiplied(converter: Converter, node: Node, given: Slot, axis: int, matrix: Array) -> Slot:
    given = converter.real(given)
    rank = len(given.shape)
    order = (*(each for each in range(rank) if each != axis), axis)
    name = converter.graph.add_constant(f"{node.outputs[0]}/{axis}", matrix)
    tensor = float_weight(converter, name, lambda each: each, channel=0, axis=0, hybrid=False)
    shape = tuple(len(matrix) if each == axis else size for each, size in enumerate(given.shape))
    return converter.emit(
        "FULLY_CONNECTED",
        [converter.laid(given, order), tensor, -1],
        shape,
        order=order,
        options=options("FullyConnected", keepNumDims=True),
    )


OPERATORS: dict[str, Convert] = {"Resize": resize}
