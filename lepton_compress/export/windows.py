"""Operators that look at a window of frames: what a step keeps of those before."""

from __future__ import annotations

import onnx

from lepton_compress.export.rewriting import (
    LONG,
    Last,
    MixingError,
    Rewriting,
    Time,
    attributes,
    copied,
    put,
)


def reduced(node: onnx.NodeProto, on: Rewriting) -> None:
    """Over the features of each frame; or over time, by a window of as many frames as a sequence
    has: after these the result is the sequence's, and from then on of the latest ones."""
    on.only(node, 0)
    time = on.time(node)
    axis, shape = time.axis, on.shape(node, node.input[0])
    held = attributes(node)
    given = on.constant(node, 1) if len(node.input) > 1 else held.get("axes")
    if given is None:
        raise MixingError(node, "reduces over the batch too")
    over = {int(each) % len(shape) for each in given}
    if axis not in over:
        shift = 0 if held.get("keepdims", 1) else sum(each < axis for each in over)
        on.keep(copied(node), time.at(axis - shift))
        return
    on.axis(node)
    if shape[axis] == LONG:
        raise MixingError(node, "looks at all frames of a sequence that may be of any length")
    made = copied(node)
    made.input[0] = on.window(node, axis, shape[axis])
    on.keep(made, Last())


def convolution(node: onnx.NodeProto, on: Rewriting) -> None:
    """Over features; or over time if it is causal, by a window of the frames that it looks at."""
    on.only(node, 0)
    axis, held = on.axis(node, lead=True), attributes(node)
    spatial = axis - 2
    if spatial < 0:
        raise MixingError(node, "sums over frames")
    rank = len(on.shape(node, node.input[0])) - 2
    kernel = on.shape(node, node.input[1])[2:][spatial]
    reach = (kernel - 1) * list(held.get("dilations", [1] * rank))[spatial]
    pads = list(held.get("pads", [0] * (2 * rank)))
    if held.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise MixingError(node, "pads by itself", "give the padding of the convolution in numbers")
    ahead = pads[spatial] + on.time(node, lead=True).lead
    if list(held.get("strides", [1] * rank))[spatial] != 1:
        raise MixingError(node, "skips frames")
    if pads[rank + spatial] > 0:
        raise MixingError(
            node,
            f"looks at {pads[rank + spatial]} later frames",
            "make it causal: pad on the left alone",
        )
    if ahead != reach:
        raise MixingError(
            node,
            f"gives {reach - ahead} frames fewer than it takes",
            f"make it causal: pad {reach} frames on the left",
        )
    pads[spatial] = 0
    made = copied(node)
    put(made, "pads", pads)
    made.input[0] = on.window(node, axis, reach + 1)
    on.keep(made, Time(axis))


def pad(node: onnx.NodeProto, on: Rewriting) -> None:
    """Zeros in front of the first frame, for a causal convolution."""
    on.only(node, 0)
    axis = on.axis(node)
    rank = len(on.shape(node, node.input[0]))
    width, value, axes = (on.constant(node, index) for index in (1, 2, 3))
    if width is None:
        raise MixingError(node, "is of an operator set before 11")
    over = [int(each) % rank for each in (range(rank) if axes is None else axes)]
    if axis not in over or attributes(node).get("mode", b"constant") != b"constant":
        if axis in over and (width[over.index(axis)] or width[len(over) + over.index(axis)]):
            raise MixingError(node, "pads the sequence with frames of its own")
        on.keep(copied(node), Time(axis))
        return
    place = over.index(axis)
    before, behind = int(width[place]), int(width[len(over) + place])
    if before < 0 or behind or (before and value is not None and value.any()):
        raise MixingError(node, "pads the sequence otherwise than with zeros in front")
    left = width.copy()
    left[place] = 0
    on.keep(on.with_constant(node, 1, left), Time(axis, before))
