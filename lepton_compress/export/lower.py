"""From torch to an ONNX graph: traced, cleaned, and stripped of everything that would make two
exports of one model differ."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from lepton_compress import __version__
from lepton_compress.artifacts import Model, Split
from lepton_compress.errors import InputError, PluginError
from lepton_compress.export.places import layer_of
from lepton_compress.export.quiet import quiet

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""From 23 on attention is exported as one operator, which no quantiser takes apart."""

_BATCH = 2
"""Of the traced example. A batch of one would be taken for a constant."""


def lower(model: Model, samples: Split) -> Model:
    """The graph of a module or exported program, with a dynamic batch.

    Args:
        model: in the form "module" or "program".
        samples: at least two samples to trace with.

    Raises:
        InputError: an operator or a construct of its forward() cannot be exported.
    """
    with quiet("torch.onnx", "torch.export", "onnxscript"):
        exported = _export(model, samples)
    _check_batch(exported)
    graph = clean(exported)
    names = tuple(value.name for value in graph.graph.output)
    if model.outputs and names != model.outputs:
        raise PluginError(f"the exporter named the outputs {names}, not {model.outputs}")
    return Model("graph", graph, model.inputs, names)


def clean(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A simplified copy: constants folded, dead and doubled nodes gone, nodes named by the layer
    they come from, and neither paths nor tool names left inside.

    Raises:
        InputError: the simplified graph does not compute the same.
    """
    import onnx
    import onnxsim

    named = tidy(graph)
    try:
        simplified, same = onnxsim.simplify(named)
    except Exception as error:  # the library raises what its C++ side gives it
        raise InputError(f"onnxsim cannot simplify the graph: {error}", where="model") from error
    if not same:
        raise InputError("onnxsim changed what the graph computes", where="model")
    cleaned: onnx.ModelProto = simplified
    _strip(cleaned)
    _name_nodes(cleaned.graph)  # those that onnxsim has put in
    cleaned.producer_name, cleaned.producer_version = "lepton-compress", __version__
    onnx.checker.check_model(cleaned)
    return cleaned


def tidy(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with its nodes named, and neither paths nor metadata inside; nothing is computed."""
    named = type(graph)()
    named.CopyFrom(graph)
    _name_nodes(named.graph)
    _strip(named)
    named.producer_name, named.producer_version = "lepton-compress", __version__
    return named


def _export(model: Model, samples: Split) -> onnx.ModelProto:
    import torch

    names = [spec.name for spec in model.inputs]
    feeds = next(samples.named(names).batches(_BATCH))
    given = {name: torch.from_numpy(array.copy()) for name, array in feeds.items()}
    batch = torch.export.Dim("batch")
    options: dict[str, Any] = {
        "dynamo": True,
        "verbose": False,
        "opset_version": OPSET,
        "external_data": False,
        "input_names": names,
        "output_names": list(model.outputs) or None,
    }
    try:
        if model.form == "program":
            program = torch.onnx.export(model.value, **options)
        else:
            shapes = {name: {0: batch} for name in names}
            program = torch.onnx.export(model.value, kwargs=given, dynamic_shapes=shapes, **options)
    except Exception as error:  # the exporter wraps errors of every kind
        cause = error.__cause__ or error
        raise InputError(
            f"torch.onnx cannot export it: {type(cause).__name__}: {_headline(cause)}",
            where="model",
            mend="replace the construct that it names, or give the model as an ONNX file",
        ) from error
    if program is None:
        raise InputError("torch.onnx gave no program", where="model")
    return program.model_proto


def _check_batch(graph: onnx.ModelProto) -> None:
    """The exporter keeps a batch that forward() insists on, and does not say so."""
    for value in graph.graph.input:
        first = value.type.tensor_type.shape.dim[:1]
        if first and not first[0].dim_param:
            raise InputError(
                f"its forward() works for a batch of {first[0].dim_value} alone",
                where="model",
                mend="let forward() take the number of samples from its input's shape",
            )


def _headline(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name each node `layer/Operator`, from the scopes that the exporter leaves in its metadata. A
    graph of another exporter keeps its names; where they are missing or doubled they are made up.
    """
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    for node in graph.node:
        layer = layer_of(node)
        name = f"{layer}/{node.op_type}" if layer else node.op_type
        if layer is None:
            name = node.name or node.op_type
        node.name, seen[name] = name, seen[name] + 1
        while node.name in taken:
            seen[name] += 1
            node.name = f"{name}_{seen[name] - 1}"
        taken.add(node.name)


def _strip(model: onnx.ModelProto) -> None:
    """Remove documentation and metadata, which hold stack traces with paths."""
    holders: list[Any] = [model, *model.functions]
    for function in model.functions:
        holders += function.node
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        holders += [graph, *graph.node, *graph.input, *graph.output]
        holders += [*graph.value_info, *graph.initializer]
        attributes = [each for node in graph.node for each in node.attribute]
        for each in attributes:  # the bodies of branches and loops
            each.doc_string = ""
            graphs += [each.g] if each.HasField("g") else each.graphs
    for holder in holders:
        holder.doc_string = ""
        del holder.metadata_props[:]
