"""Recurrent nodes of a graph: over one frame, with their states as inputs and outputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lepton_compress.export.rewriting import (
    MANY,
    Last,
    MixingError,
    Rewriting,
    Time,
    attributes,
    copied,
)

RECURRENT = ("GRU", "LSTM", "RNN", "DynamicQuantizeLSTM")
_LENGTHS, _HIDDEN, _CELL = 4, 5, 6
"""Places of the inputs that a step has its own way with: in all four operators the same."""
_MOVES = ("Cast", "Expand", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze")


def recurrent(node: onnx.NodeProto, on: Rewriting) -> None:
    """The node for one frame. Its states are zero at first, as they must be in the whole-sequence
    graph."""
    held = attributes(node)
    on.only(node, 0, _HIDDEN, _CELL)
    axis = on.axis(node)
    direction = held.get("direction", b"forward").decode()
    if direction != "forward":
        raise MixingError(
            node,
            f"runs {'backwards' if direction == 'reverse' else 'both ways'} in time",
            "train the model with a forward recurrence",
        )
    if axis != (1 if held.get("layout", 0) else 0):
        raise MixingError(node, "does not run along the frames of the input")
    made = copied(node)
    made.input.extend([""] * (_CELL + 1 - len(made.input)))
    if made.input[_LENGTHS]:
        raise MixingError(node, "takes lengths of sequences", "export it without `sequence_lens`")
    made.output.extend([""] * (3 - len(made.output)))
    hidden = int(held["hidden_size"])
    shape = [MANY, 1, hidden] if held.get("layout", 0) else [1, MANY, hidden]
    cells = node.op_type in ("LSTM", "DynamicQuantizeLSTM")
    for place in range(2 if cells else 1):
        given = made.input[_HIDDEN + place]
        if given and not _zero(given, on):
            raise MixingError(node, "starts from a state that is not zero", "start it from zeros")
        state = on.state(on.dtypes[node.input[0]], shape)
        made.input[_HIDDEN + place] = state.input
        if made.output[1 + place]:  # used inside the graph, too
            name = made.output[1 + place]
            on.held[name] = Last()
        else:
            name = made.output[1 + place] = f"step/{state.output}"
        on.after.append(
            helper.make_node("Identity", [name], [state.output], f"step/{state.output}")
        )
    for last in range(len(made.input) - 1, -1, -1):
        if made.input[last]:
            break
        del made.input[last]
    if not cells:
        del made.output[2:]
    on.keep(made, Time(axis), Last())


def _zero(name: str, on: Rewriting) -> bool:
    """Whether a value is zero everywhere, of whatever size."""
    tensor = on.constants.get(name)
    if tensor is not None:
        return not np.any(numpy_helper.to_array(tensor))
    maker = on.makers.get(name)
    if maker is None:
        return False
    if maker.op_type == "ConstantOfShape":
        value = attributes(maker).get("value")
        return value is None or not np.any(numpy_helper.to_array(value))
    return maker.op_type in _MOVES and _zero(maker.input[0], on)
