"""A graph with what stands around it built in: it takes raw samples and gives answers."""

from __future__ import annotations

import json

import numpy as np
import onnx

from lepton_compress.artifacts import Model
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from lepton_compress.preprocess.around import Around
from lepton_compress.preprocess.form import METADATA
from lepton_compress.preprocess.nodes import Nodes

OLDEST = 18
"""Operator set that the nodes are written for; later ones keep their meaning."""


def attach(model: Model, around: Around) -> Model:
    """A copy of a graph with the nodes of `around`, and what `predict` needs in its metadata.

    Raises:
        InputError: the graph is of an operator set that is too old.
    """
    graph = type(model.value)()
    graph.CopyFrom(model.value)
    opset = next((each.version for each in graph.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST:
        raise InputError(
            f"is of operator set {opset}; preprocessing inside it needs {OLDEST}",
            where="model",
            mend="export it again with a later one",
        )
    named = dict(zip((spec.name for spec in model.inputs), inputs_of(model, around), strict=True))
    for name, given in named.items():
        if given is not None:
            _before(graph.graph, name, given, around)
    outputs = [forms.spec(value) for value in model.value.graph.output]
    _behind(graph.graph, around, model)
    about = {"version": 1, **around.about(outputs)}
    about["inputs"] = {
        name: about["inputs"][given] for name, given in named.items() if given is not None
    }
    about["files"] = [file.name for file in around.files]
    graph.metadata_props.add(key=METADATA, value=json.dumps(about, sort_keys=True))
    return Model("graph", graph, *forms.signature(graph), model.folder)


def inputs_of(model: Model, around: Around) -> list[str | None]:
    """For each input of the model, the name that `around` has for it."""
    names = [spec.name for spec in model.inputs]
    if len(names) == 1 == len(around.before):  # a single input may have any name on either side
        return list(around.before)
    return [name if name in around.before else None for name in names]


def prefix(name: str) -> str:
    """Of the nodes that stand before an input."""
    return f"{name}/preprocess"


def _before(graph: onnx.GraphProto, name: str, given: str, around: Around) -> None:
    """Put the nodes in front of the input `name`, which takes raw samples from now on."""
    each = around.before[given]
    if each.build is None:
        return
    nodes = Nodes(prefix(name))
    made = each.build(nodes, name)
    _rename(graph, name, made)
    value = next(value for value in graph.input if value.name == name)
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(each.raw.dtype))
    shape = list(each.raw.shape)
    value.CopyFrom(onnx.helper.make_tensor_value_info(name, dtype, shape))
    held = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes.nodes, *held])
    graph.initializer.extend(nodes.constants)


def _behind(graph: onnx.GraphProto, around: Around, model: Model) -> None:
    """Put the nodes behind the outputs."""
    specs = [forms.spec(value) for value in graph.output]
    bound = around.bind(specs)
    given: list[onnx.ValueInfoProto] = []
    for value, spec in zip(list(graph.output), specs, strict=True):
        if spec.name not in bound:
            given.append(value)
            continue
        nodes = Nodes(f"{spec.name}/postprocess")
        inner = f"{spec.name}/before"
        made = bound[spec.name].build(nodes, inner)
        if made[spec.name] == inner:  # nothing is done to the output itself
            made[spec.name] = spec.name
            for node in nodes.nodes:
                node.input[:] = [spec.name if each == inner else each for each in node.input]
        else:
            _rename(graph, spec.name, inner)
        final = {old: new for new, old in made.items()}
        for node in nodes.nodes:
            node.input[:] = [final.get(each, each) for each in node.input]
            node.output[:] = [final.get(each, each) for each in node.output]
        graph.node.extend(nodes.nodes)
        graph.initializer.extend(nodes.constants)
        given += [_value(value, name, spec.name) for name in made]
    del graph.output[:]
    graph.output.extend(given)


def _value(value: onnx.ValueInfoProto, name: str, output: str) -> onnx.ValueInfoProto:
    """The output itself keeps its type and shape; what is added is a whole number a sample."""
    if name == output:
        return value
    first = forms.spec(value).shape[0]
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [first])


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Call a value otherwise wherever nodes take or give it, those of subgraphs included."""
    for node in graph.node:
        node.input[:] = [new if each == old else each for each in node.input]
        node.output[:] = [new if each == old else each for each in node.output]
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for each in inner:
                _rename(each, old, new)
    for value in graph.value_info:
        value.name = new if value.name == old else value.name
