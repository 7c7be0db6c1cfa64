"""A graph over whole sequences rewritten into one over a single frame, which takes the states of
its recurrences and gives the next ones.

Each value is followed from the input: does it have frames, and along which axis? Recurrent nodes
run over a sequence of one; windows of frames (causal convolutions, means over time) become states;
what looks at the last frame alone makes the output. Where the input is a row of samples that the
graph cuts into overlapping frames, a step takes the samples of one hop, and the rest of the frame
is a state. Whatever else mixes frames is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from lepton_compress.artifacts import Model, TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.export import framing
from lepton_compress.export.along_time import RULES, picked
from lepton_compress.export.framing import Framing
from lepton_compress.export.recurrence import RECURRENT, recurrent
from lepton_compress.export.rewriting import (
    LONG,
    MANY,
    Last,
    MixingError,
    Rewriting,
    Sizes,
    Time,
    copied,
)
from lepton_compress.load import forms
from lepton_compress.targets.frames import METADATA, VERSION

_MEND = "export it with `recurrent: sequence`"


def stepwise(model: Model) -> Model:
    """The step graph of a graph, with what `targets.frames` needs in its metadata.

    Args:
        model: in the form "graph", whose inputs have the batch as their first axis.

    Raises:
        InputError: something in it mixes frames otherwise than by a recurrence or a window, it
            keeps nothing from frame to frame, or its tensors stay in files.
    """
    if model.folder is not None:
        raise InputError("is too large to be rewritten for one frame", where="model", mend=_MEND)
    shapes, dtypes = _measured(model)
    best: tuple[int, MixingError | None] = (-1, None)
    forgetful = False
    for spec, axis, framed in _seeds(model, shapes):
        on = Rewriting(model.value, shapes, dtypes, spec.shape[0])
        try:
            _walk(model.value, on, spec, axis, framed)
            outputs = _outputs(model, on)
        except MixingError as refused:
            best = max(best, (len(on.nodes), refused), key=lambda each: each[0])
            continue
        if on.states:
            return _assembled(model, on, spec, axis, framed, outputs)
        forgetful = True
    if best[1] is not None and not forgetful:
        raise _told(best[1])
    raise InputError(
        "keeps nothing from frame to frame: there is no recurrent layer over an input's frames",
        where="recurrent: step",
        mend=_MEND,
    )


def _told(refused: MixingError) -> InputError:
    node = refused.node
    return InputError(
        f"{node.name or node.output[0]} ({node.op_type}) {refused.reason}, "
        "so that the model cannot run frame by frame",
        where="recurrent: step",
        mend=refused.mend or _MEND,
    )


def _measured(model: Model) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes and element types of all values, every size a number."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model.value)
    del probe.graph.value_info[:]
    for value in [*probe.graph.input, *probe.graph.output]:
        for place, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                size.dim_value = MANY if place == 0 else LONG
    for node in probe.graph.node:
        if node.op_type == "DynamicQuantizeLSTM":  # whose shapes are an LSTM's
            node.op_type, node.domain = "LSTM", ""
            del node.input[4:]
    for value in probe.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(probe, data_prop=True).graph
    shapes, dtypes = {}, {}
    for value in [*inferred.value_info, *inferred.input, *inferred.output]:
        spec = forms.spec(value)
        dtypes[spec.name] = spec.dtype
        known = all(isinstance(size, int) for size in spec.shape)
        if known and value.type.tensor_type.HasField("shape"):
            shapes[spec.name] = tuple(int(size) for size in spec.shape)
    for tensor in probe.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
    return shapes, dtypes


def _seeds(
    model: Model, shapes: Mapping[str, tuple[int, ...]]
) -> list[tuple[TensorSpec, int, Framing | None]]:
    """Inputs and axes that may be the frames', the likeliest first."""
    found: list[tuple[TensorSpec, int, Framing | None]] = []
    for spec in model.inputs:
        if len(spec.shape) == 2 and isinstance(spec.shape[1], int):
            framed = framing.find(model.value, spec.name, shapes[spec.name])
            if framed is not None:
                found.insert(0, (spec, 1, framed))
                continue
        found += [(spec, axis, None) for axis in range(1, len(spec.shape))]
    return found


def _walk(
    model: onnx.ModelProto, on: Rewriting, spec: TensorSpec, axis: int, framed: Framing | None
) -> None:
    """Take over every node."""
    skipped = frozenset[str]()
    if framed is None:
        on.held[spec.name] = Time(axis)
        on.frames = on.shapes[spec.name][axis]
    else:
        _one_frame(on, spec, framed)
        on.held[framed.value] = Time(1)
        on.frames, skipped = framed.frames, framed.inside
    for node in model.graph.node:
        if set(node.output) & skipped:
            continue
        kinds = [on.held.get(name) for name in node.input]
        if any(set(_captured(each)) & set(on.held) for each in node.attribute):
            raise MixingError(node, "has branches that look at frames")
        if any(isinstance(kind, Sizes) for kind in kinds):
            picked(node, on)
        elif not any(isinstance(kind, Time) for kind in kinds):
            on.keep(copied(node), Last() if any(kinds) else None)
        elif node.op_type in RECURRENT:
            recurrent(node, on)
        elif node.op_type in RULES:
            RULES[node.op_type](node, on)
        else:
            raise MixingError(node, "is not known to work on each frame by itself")


def _captured(attribute: onnx.AttributeProto) -> list[str]:
    """Names that subgraphs read."""
    graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
    return [
        name
        for graph in graphs
        for node in graph.node
        for name in [*node.input, *(n for each in node.attribute for n in _captured(each))]
    ]


def _one_frame(on: Rewriting, spec: TensorSpec, framed: Framing) -> None:
    """The newest frame: what is kept of the samples before, and those of one hop."""
    row = spec.name
    if framed.window > framed.hop:
        kept = on.state(spec.dtype, [MANY, framed.window - framed.hop], spec.name)
        row = "step/frame"
        on.nodes.append(helper.make_node("Concat", [kept.input, spec.name], [row], row, axis=1))
        bounds = [on.add(_row(each)) for each in (framed.hop, framed.window, 1)]
        on.after.append(helper.make_node("Slice", [row, *bounds], [kept.output], f"{row}/keep"))
    cast = "step/cast"
    to = helper.np_dtype_to_tensor_dtype(_dtype(on.dtypes[framed.value]))
    on.nodes.append(helper.make_node("Cast", [row], [cast], cast, to=to))
    on.nodes.append(
        helper.make_node("Unsqueeze", [cast, on.add(_row(1))], [framed.value], "step/row")
    )


def _row(number: int) -> Any:
    import numpy as np

    return np.array([number], np.int64)


def _dtype(name: str) -> Any:
    import numpy as np

    return np.dtype(name)


def _outputs(model: Model, on: Rewriting) -> list[dict[str, Any]]:
    """What the metadata says of each output."""
    found = []
    for value in model.value.graph.output:
        spec, kind = forms.spec(value), on.held.get(value.name)
        maker = on.makers.get(value.name)
        if kind is None or maker is None:
            raise InputError(
                f"the output {spec.name} does not depend on the frames",
                where="recurrent: step",
                mend=_MEND,
            )
        if isinstance(kind, Sizes):
            raise MixingError(maker, "uses the number of frames")
        if isinstance(kind, Time) and kind != Time(kind.axis):
            raise MixingError(maker, "gives frames that are not along an axis of their own")
        axis = kind.axis if isinstance(kind, Time) else None
        found.append(
            {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "axis": axis}
        )
    return found


def _assembled(
    model: Model,
    on: Rewriting,
    spec: TensorSpec,
    axis: int,
    framed: Framing | None,
    outputs: Sequence[dict[str, Any]],
) -> Model:
    """The step graph with its metadata."""
    taken = {value.name for value in [*model.value.graph.input, *model.value.graph.output]}
    taken |= set(on.makers)
    clash = next((n for s in on.states for n in (s.input, s.output) if n in taken), None)
    if clash is not None:
        raise InputError(
            f"has a value named {clash!r}, which a state is to be named",
            where="recurrent: step",
            mend="name it otherwise",
        )
    made = onnx.ModelProto()
    made.CopyFrom(model.value)
    graph, step = made.graph, 1 if framed is None else framed.hop
    del graph.node[:], graph.value_info[:]
    graph.node.extend([*on.nodes, *on.after])
    graph.initializer.extend(on.added)
    for value in graph.input:
        if value.name == spec.name:
            _resize(value, axis, step)
    for value, about in zip(graph.output, outputs, strict=True):
        if about["axis"] is not None:
            _resize(value, about["axis"], 1)
    for state in on.states:
        kind = helper.np_dtype_to_tensor_dtype(_dtype(state.dtype))
        graph.input.append(helper.make_tensor_value_info(state.input, kind, state.shape))
        graph.output.append(helper.make_tensor_value_info(state.output, kind, state.shape))
    _drop_unused(graph)
    about = {
        "version": VERSION,
        "frame": {
            "input": spec.name,
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "axis": axis,
            "step": step,
            "lead": 0 if framed is None else framed.window - framed.hop,
        },
        "states": [_plain(state) for state in on.states],
        "outputs": list(outputs),
    }
    made.metadata_props.add(key=METADATA, value=json.dumps(about, sort_keys=True))
    onnx.checker.check_model(made)
    return Model("graph", made, *forms.signature(made))


def _plain(state: Any) -> dict[str, Any]:
    about = {"input": state.input, "output": state.output, "dtype": state.dtype}
    about |= {"shape": list(state.shape), "zero": state.source is None}
    return about | ({"source": state.source} if state.source else {})


def _resize(value: onnx.ValueInfoProto, axis: int, size: int) -> None:
    value.type.tensor_type.shape.dim[axis].Clear()
    value.type.tensor_type.shape.dim[axis].dim_value = size


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Nodes that nothing is made of any more, and initialisers that nobody reads."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
            wanted.update(name for each in node.attribute for name in _captured(each))
    held = [each for each in graph.initializer if each.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(held)
