"""What each operator does to frames along an axis of time, and what computes the same for one.

A rule is called where an input of the node has frames. It takes the node over, changed where it
must be, and says where the frames of its outputs are; or why the node cannot work frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from lepton_compress.export.rewriting import (
    Last,
    MixingError,
    Rewriting,
    Sizes,
    Time,
    attributes,
    copied,
)
from lepton_compress.export.windows import convolution, pad, reduced

Rule = Callable[[onnx.NodeProto, Rewriting], None]


def elementwise(node: onnx.NodeProto, on: Rewriting) -> None:
    """Inputs are broadcast to one shape, so that axes are counted from the last one. One without
    frames must not have something of its own for each frame."""
    rank = len(on.shape(node, node.output[0]))
    found = set()
    for index, name in enumerate(node.input):
        kind = on.held.get(name)
        if isinstance(kind, Time):
            found.add(on.time(node, index).at(kind.axis + rank - len(on.shape(node, name))))
        elif kind is not None:
            raise MixingError(node, "joins every frame with the last one, which is not there yet")
    if len(found) != 1:
        raise MixingError(node, "joins different frames")
    (time,) = found
    for name in filter(None, node.input):
        if name not in on.held:
            shape = (1,) * rank + on.sizes(node, name)
            if shape[time.axis - rank] != 1:
                raise MixingError(node, "has a value of its own for each place in the sequence")
    on.keep(copied(node), time)


def unary(node: onnx.NodeProto, on: Rewriting) -> None:
    """Further inputs are settings of all elements."""
    on.only(node, 0)
    on.keep(copied(node), on.time(node), None)


def quantize(node: onnx.NodeProto, on: Rewriting) -> None:
    """Scales are for all elements or along an axis other than time."""
    on.only(node, 0)
    time = on.time(node, lead=True)
    rank = len(on.shape(node, node.input[0]))
    many = math.prod(on.sizes(node, node.input[1])) > 1
    if many and attributes(node).get("axis", 1) % rank == time.axis:
        raise MixingError(node, "has a scale of its own for each place in the sequence")
    on.keep(copied(node), time)


def normalised(node: onnx.NodeProto, on: Rewriting) -> None:
    """Over the axes from `axis` on."""
    on.only(node, 0)
    time = on.time(node)
    rank = len(on.shape(node, node.input[0]))
    if attributes(node).get("axis", -1) % rank <= time.axis:
        raise MixingError(node, "normalises over time")
    on.keep(copied(node), time)


def over_one_axis(node: onnx.NodeProto, on: Rewriting) -> None:
    """Softmax and its like: each place along the other axes by itself."""
    on.only(node, 0)
    time, held = on.time(node), attributes(node)
    picks = node.op_type.startswith("Arg")
    over = held.get("axis", 0 if picks else -1) % len(on.shape(node, node.input[0]))
    if over == time.axis:
        raise MixingError(node, "weighs frames against each other")
    gone = picks and not held.get("keepdims", 1) and over < time.axis
    on.keep(copied(node), time.at(time.axis - gone))


def by_channel(node: onnx.NodeProto, on: Rewriting) -> None:
    """Batch normalisation: a factor for each place along axis 1."""
    on.only(node, 0)
    time = on.time(node)
    if time.axis == 1:
        raise MixingError(node, "has a factor of its own for each place in the sequence")
    on.keep(copied(node), time)


def product(node: onnx.NodeProto, on: Rewriting) -> None:
    """A matrix product with something that has no frames, over an axis that is not time."""
    which = 0 if node.input[0] in on.held else 1
    on.only(node, which)
    time = on.time(node, which)
    rank = len(on.shape(node, node.input[which]))
    inner = rank - 1 if which == 0 else max(0, rank - 2)
    if node.op_type == "Gemm" and attributes(node).get("transA" if which == 0 else "transB", 0):
        inner = rank - 1 - inner
    shift = len(on.shape(node, node.output[0])) - rank
    if time.axis == inner or shift < 0:
        raise MixingError(node, "sums over frames")
    on.keep(copied(node), time.at(time.axis + shift))


def transpose(node: onnx.NodeProto, on: Rewriting) -> None:
    """Axes change places."""
    time = on.time(node, lead=True)
    rank = len(on.shape(node, node.input[0]))
    order = list(attributes(node).get("perm", range(rank - 1, -1, -1)))
    on.keep(copied(node), time.at(order.index(time.axis)))


def reshape(node: onnx.NodeProto, on: Rewriting) -> None:
    """Frames stay in their order; time may become one axis with its neighbours, as a dense layer
    wants it, and be parted from them again."""
    on.only(node, 0)
    time = on.time(node)
    before, after = on.shape(node, node.input[0]), on.shape(node, node.output[0])
    ahead = math.prod(before[: time.axis]) * time.outer
    found = _where(after, ahead, on.frames)
    if found is None:
        raise MixingError(node, "tears the frames apart")
    if node.op_type != "Reshape":
        on.keep(copied(node), found)
        return
    sizes = on.constant(node, 1)
    wanted = [int(size) for size in sizes] if sizes is not None else []
    copies = [place for place, size in enumerate(wanted) if size == 0]
    if (time.axis in copies) != (found.axis in copies):
        raise MixingError(node, "tears the frames apart")
    if wanted[found.axis] > 0:
        wanted[found.axis] //= on.frames
    on.keep(on.with_constant(node, 1, wanted), found)


def _where(shape: tuple[int, ...], ahead: int, frames: int) -> Time | None:
    """The axis with so many frames that have so many elements ahead of them."""
    for axis, size in enumerate(shape):
        outside = math.prod(shape[:axis])
        if ahead % outside == 0 and size % (ahead // outside * frames) == 0:
            outer = ahead // outside
            return Time(axis, 0, outer, size // (outer * frames))
    return None


def moved(node: onnx.NodeProto, on: Rewriting) -> None:
    """Squeeze and Unsqueeze: time stays, axes before it come and go."""
    on.only(node, 0)
    time, given = on.time(node), on.constant(node, 1)
    if given is None:
        raise MixingError(node, "drops whatever axis has one place, which time has in a step")
    if node.op_type == "Unsqueeze":
        rank = len(on.shape(node, node.output[0]))
        added = {int(each) % rank for each in given}
        left = [each for each in range(rank) if each not in added]
        on.keep(copied(node), time.at(left[time.axis]))
        return
    dropped = {int(each) % len(on.shape(node, node.input[0])) for each in given}
    if time.axis in dropped:
        raise MixingError(node, "drops the axis of time")
    on.keep(copied(node), time.at(time.axis - sum(each < time.axis for each in dropped)))


def concat(node: onnx.NodeProto, on: Rewriting) -> None:
    """Along another axis than time, of frames alone."""
    times = {on.time(node, index) for index in range(len(node.input))}
    rank = len(on.shape(node, node.output[0]))
    if len(times) != 1 or attributes(node)["axis"] % rank in {each.axis for each in times}:
        raise MixingError(node, "puts sequences one behind the other")
    on.keep(copied(node), times.pop())


def split(node: onnx.NodeProto, on: Rewriting) -> None:
    """Along another axis than time."""
    time = on.time(node)
    if attributes(node).get("axis", 0) % len(on.shape(node, node.input[0])) == time.axis:
        raise MixingError(node, "takes the sequence to pieces")
    on.keep(copied(node), time)


def sizes(node: onnx.NodeProto, on: Rewriting) -> None:
    """A shape; the number of frames in it must not be used."""
    time, held = on.time(node), attributes(node)
    rank = len(on.shape(node, node.input[0]))
    shown = range(rank)[held.get("start", 0) : held.get("end", rank)]
    on.keep(copied(node), Sizes(shown.index(time.axis)) if time.axis in shown else None)


def picked(node: onnx.NodeProto, on: Rewriting) -> None:
    """Of a shape, sizes of other axes than time."""
    kind = on.held.get(node.input[0])
    if not isinstance(kind, Sizes) or node.op_type not in ("Gather", "Slice"):
        raise MixingError(node, "uses the number of frames")
    numbers = np.arange(math.prod(on.shape(node, node.input[0])))
    if node.op_type == "Gather":
        index = on.constant(node, 1)
        left = numbers[() if index is None else index]
    else:
        start, stop, step = (on.constant(node, index) for index in (1, 2, 4))
        if start is None or stop is None:
            raise MixingError(node, "uses the number of frames")
        left = numbers[int(start[0]) : int(stop[0]) : 1 if step is None else int(step[0])]
    if kind.place in left:
        raise MixingError(node, "uses the number of frames")
    on.keep(copied(node), None)


def sliced(node: onnx.NodeProto, on: Rewriting) -> None:
    """The whole of time, or its last frame."""
    on.only(node, 0)
    time = on.time(node)
    axis, shape = time.axis, on.shape(node, node.input[0])
    starts, ends = on.constant(node, 1), on.constant(node, 2)
    if starts is None or ends is None:
        raise MixingError(node, "is of an operator set before 10")
    axes, steps = on.constant(node, 3), on.constant(node, 4)
    over = [int(each) % len(shape) for each in (range(len(starts)) if axes is None else axes)]
    if axis not in over:
        on.keep(copied(node), time)
        return
    place = over.index(on.axis(node))
    start, stop, step = slice(
        int(starts[place]), int(ends[place]), 1 if steps is None else int(steps[place])
    ).indices(shape[axis])
    if step < 0:
        raise MixingError(node, "turns time round")
    if step != 1 or stop != shape[axis] or start not in (0, stop - 1):
        raise MixingError(node, "takes part of the sequence")
    first = starts.copy()
    first[place] = 0
    made = on.with_constant(node, 1, first)
    until = ends.copy()
    until[place] = np.iinfo(until.dtype).max
    made = on.with_constant(made, 2, until)
    on.keep(made, Time(axis) if start == 0 and stop != 1 else Last())


def gather(node: onnx.NodeProto, on: Rewriting) -> None:
    """Elements of each frame, or the last frame."""
    on.only(node, 0)
    time = on.time(node)
    axis, shape = time.axis, on.shape(node, node.input[0])
    over = attributes(node).get("axis", 0) % len(shape)
    if over != axis:
        shift = len(on.sizes(node, node.input[1])) - 1 if over < axis else 0
        on.keep(copied(node), time.at(axis + shift))
        return
    on.axis(node)
    index = on.constant(node, 1)
    if (
        index is None
        or index.size != 1
        or int(index.reshape(-1)[0]) % shape[axis] != shape[axis] - 1
    ):
        raise MixingError(node, "picks a frame other than the last")
    on.keep(on.with_constant(node, 1, np.zeros_like(index), index.dtype), Last())


_UNARY = "Abs Cast Ceil Celu Clip Cos Dropout Elu Erf Exp FastGelu Floor Gelu HardSigmoid HardSwish"
_UNARY += " Identity IsNaN LeakyRelu Log Mish Neg Not QuickGelu Reciprocal Relu Round Selu Sigmoid"
_UNARY += " Sign Sin Softplus Softsign Sqrt Tanh ThresholdedRelu DynamicQuantizeLinear"
_BINARY = "Add And BiasGelu Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul"
_BINARY += " Or Pow PRelu Sub Sum Where Xor"
_REDUCED = "ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceSum"
_REDUCED += " ReduceSumSquare"

RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), unary),
    **dict.fromkeys(_BINARY.split(), elementwise),
    **dict.fromkeys(_REDUCED.split(), reduced),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantize),
    **dict.fromkeys(("LayerNormalization", "SimplifiedLayerNormalization"), normalised),
    **dict.fromkeys(("ArgMax", "ArgMin", "Hardmax", "LogSoftmax", "Softmax"), over_one_axis),
    **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger", "MatMulNBits"), product),
    **dict.fromkeys(("Flatten", "Reshape"), reshape),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), moved),
    "BatchNormalization": by_channel,
    "Concat": concat,
    "Conv": convolution,
    "Gather": gather,
    "Pad": pad,
    "Shape": sizes,
    "Slice": sliced,
    "Split": split,
    "Transpose": transpose,
}
"""By operator. What is not here is refused where it meets frames."""
