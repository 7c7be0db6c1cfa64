"""The road from an ONNX graph to the bytes of a LiteRT file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compress.artifacts import Model
from lepton_compress.errors import InputError
from lepton_compress.export.flatbuffer import (
    convolution_operators,
    elementwise_operators,
    layouts,
    movement_operators,
    pool_operators,
    product_operators,
    recurrent_operators,
    reduction_operators,
    resize_operators,
)
from lepton_compress.export.flatbuffer.activations import dtype_of
from lepton_compress.export.flatbuffer.builder import (
    DEFAULT,
    Scale,
    Signature,
    Subgraph,
    options,
    pack,
)
from lepton_compress.export.flatbuffer.converter import Convert, Converter, Slot
from lepton_compress.export.flatbuffer.graph import Graph, Node, refuse
from lepton_compress.export.flatbuffer.origins import Origins
from lepton_compress.export.flatbuffer.rewrite import rewrite
from lepton_compress.export.flatbuffer.trace import trace
from lepton_compress.export.flatbuffer.weights import LEAST
from lepton_compress.export.places import places
from lepton_compress.layers import Layers

if TYPE_CHECKING:
    from lepton_compress.export.litert import Litert

OPERATORS: dict[str, Convert] = {
    **convolution_operators.OPERATORS,
    **elementwise_operators.OPERATORS,
    **movement_operators.OPERATORS,
    **pool_operators.OPERATORS,
    **product_operators.OPERATORS,
    **recurrent_operators.OPERATORS,
    **reduction_operators.OPERATORS,
    **resize_operators.OPERATORS,
}
"""ONNX operator to what converts it."""

_SPATIAL = {"AveragePool", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
_SPATIAL |= {"DepthToSpace", "InstanceNormalization", "Resize", "SpaceToDepth"}
_THROUGH = {"Add", "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Div", "Identity"}
_THROUGH |= {"LeakyRelu", "Mul", "Pad", "QuantizeLinear", "Relu", "Sub"}
METADATA = "lepton_compress"
"""Key of the ONNX metadata that says how inputs are made and what outputs mean."""
_TYPES = ("float32", "int32", "int16", "int8", "uint8", "bool")


def convert(model: Model, params: Litert) -> tuple[bytes, Layers]:
    """A LiteRT file that computes what the graph computes, and what its operators stand for.

    Raises:
        InputError: something in it has no counterpart in LiteRT.
    """
    if model.folder is not None:
        raise InputError(
            "its weights are too large for one LiteRT file", where="model", mend="export `onnx`"
        )
    main = _written(model, params, params.batch)
    given = {each.key: _held(each.value) for each in model.value.metadata_props}
    about = {
        METADATA: given.pop(METADATA, {}),  # readers without a schema look for this beginning
        "metadata": given,
        "inputs": {name: _about(main.graph, name, slot) for name, slot in main.inputs.items()},
        "outputs": {name: _about(main.graph, name, slot) for name, slot in main.outputs.items()},
    }
    tensors = tuple(main.converter.subgraph.tensors)
    subgraphs, signatures = list[Subgraph](), list[Signature]()
    for batch in (params.batch, *params.signatures):
        part = main if batch == params.batch else _written(model, params, batch)
        signatures.append(part.signature(len(subgraphs), "" if part is main else f"batch_{batch}"))
        subgraphs += part.converter.subgraphs
    packed = pack(subgraphs, signatures, about)
    held = main.origins.layers(tensors, places(model.value))
    return packed, replace(held, notes=tuple(_idle(main, params)))


def _idle(main: _Part, params: Litert) -> Iterator[str]:
    """What was asked and changes nothing."""
    slots = (*main.inputs.values(), *main.outputs.values())
    if params.borders == "int8" and not any(each.scale is not None for each in slots):
        yield "`borders: int8` changes nothing: no step has quantised its inputs and outputs"
    if params.narrows and not main.converter.narrows:
        least = "" if params.weights == "float16" else f" of {LEAST:,} numbers or more"
        yield f"`weights: {params.weights}` changes nothing: it has no float weights{least}"


@dataclass(frozen=True)
class _Part:
    """The graph at one batch, as subgraphs."""

    graph: Graph
    converter: Converter
    origins: Origins
    inputs: Mapping[str, Slot]
    outputs: Mapping[str, Slot]

    def signature(self, place: int, name: str) -> Signature:
        """How to call it, the first of its subgraphs being the `place`-th of the file."""
        for each in self.converter.subgraphs:
            each.prune()
            each.move(place)
        main = self.converter.subgraph
        sides = zip((self.inputs, self.outputs), (main.inputs, main.outputs), strict=True)
        held = [dict(zip(names, tensors, strict=True)) for names, tensors in sides]
        return Signature(name or DEFAULT, place, *held)


def _written(model: Model, params: Litert, batch: int) -> _Part:
    graph = trace(model.value, batch)
    rewrite(graph)
    converter = Converter(graph, params)
    origins, makers = Origins(converter), graph.makers()
    inputs = {name: _input(converter, name) for name in graph.inputs}
    for node in graph.nodes:
        if node.outputs[0] not in converter.absorbed:
            with origins.of(node):
                _convert(converter, node)
    outputs = {}
    for name in graph.outputs:
        with origins.of(makers.get(name)):
            outputs[name] = _output(converter, name)
        origins.output(name, outputs[name])
    subgraph = converter.subgraph
    subgraph.inputs = [slot.tensor for slot in inputs.values()]
    subgraph.outputs = [slot.tensor for slot in outputs.values()]
    return _Part(graph, converter, origins, inputs, outputs)


def _convert(converter: Converter, node: Node) -> None:
    function = OPERATORS.get(node.type)
    if function is None:
        raise refuse(node, "it has no counterpart there")
    function(converter, node)


def _input(converter: Converter, name: str) -> Slot:
    """The tensor of an input, and the value that the graph sees behind it."""
    graph, params = converter.graph, converter.params
    shape, dtype = graph.shapes[name], dtype_of(graph.dtypes[name])
    kind = converter.kinds.get(name)
    if kind is None and params.borders == "int8":
        kind = converter.wanted(name)
        dtype = kind.dtype if kind else dtype
    elif kind is not None and params.borders == "int8":
        dtype = kind.dtype
    if dtype not in _TYPES:
        raise InputError(f"input {name} is {dtype}, which LiteRT does not take", where="model")
    spatial = params.layout == "nhwc" and len(shape) == 4 and _is_spatial(graph, converter, name)
    order = layouts.last(4) if spatial else tuple(range(len(shape)))
    scale = kind.scale if kind else None
    if kind is not None and dtype.startswith("u"):
        scale = Scale(kind.scale.values, kind.scale.zero + 128)
    made = converter.slot(shape, dtype=dtype, order=order, scale=scale)
    converter.subgraph.tensors[made.tensor].name = name
    converter.give(name, converter.rounded(made, kind) if kind else made)
    return made


def _is_spatial(graph: Graph, converter: Converter, name: str) -> bool:
    """Whether an image operator takes a value, after others that work on each element."""
    seen, waiting = {name}, [name]
    while waiting:
        for node in converter.users.get(waiting.pop(), []):
            if node.type in _SPATIAL:
                return True
            if node.type in _THROUGH and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])
    return False


def _output(converter: Converter, name: str) -> Slot:
    """A tensor of its own for an output, in float unless the borders are integers."""
    slot, params = converter.take(name), converter.params
    order = slot.layout.storage(slot.shape)
    own = tuple(range(len(slot.shape)))
    keep = params.layout == "nhwc" and order == layouts.last(4)
    slot = converter.laid(slot, order if keep and order else own)
    if params.borders == "float32" and converter.graph.dtypes[name] == "float32":
        slot = converter.real(slot)
    elif slot.scale is not None and converter.graph.dtypes[name].startswith("u"):
        # The graph's own output is integers, and keeps its element type.
        slot = _unsigned(converter, slot)
    taken = converter.subgraph.tensors[slot.tensor]
    if taken.name or taken.data is not None:
        copied = converter.slot(slot.shape, like=slot, dtype=slot.dtype, scale=slot.scale)
        shape = converter.vector(slot.storage)
        chosen = options("Reshape", newShape=list(slot.storage))
        converter.add("RESHAPE", [slot, shape], [copied], chosen)
        slot = copied
    converter.subgraph.tensors[slot.tensor].name = name
    return slot


def _unsigned(converter: Converter, slot: Slot) -> Slot:
    if slot.scale is None or slot.dtype != "int8" or converter.params.borders == "int8":
        return slot
    scale = Scale(slot.scale.values, slot.scale.zero + 128)
    made = converter.slot(slot.shape, like=slot, dtype="uint8", scale=scale)
    converter.add("QUANTIZE", [slot], [made], options("Quantize"))
    return replace(made, layout=slot.layout)


def _held(value: str) -> Any:
    """Metadata as JSON, if it is that, so that it need not be parsed twice."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _about(graph: Graph, name: str, slot: Slot) -> dict[str, Any]:
    """What a host must know of an input or output."""
    own = tuple(range(len(slot.shape)))
    first = layouts.last(4) if len(slot.shape) == 4 else own
    moved = slot.storage == tuple(slot.shape[axis] for axis in first)
    order = first if moved and slot.storage != slot.shape else own
    if moved and slot.layout == layouts.permuted(slot.shape, first) and not slot.layout.is_plain:
        order = first
    held: dict[str, Any] = {"shape": list(slot.shape), "dtype": graph.borders[name]}
    if order != own:
        held["permutation"] = list(order)
    if slot.dtype != graph.borders[name]:
        held["held_as"] = slot.dtype
    if slot.scale is not None:
        held["scale"], held["zero_point"] = float(np.float32(slot.scale.values[0])), slot.scale.zero
    return held
