"""Where a quantised graph rounds, told for the traced module: which of its values, and which of
its layers' weights. What the graph would round but training cannot follow stays in float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx

from lepton_compress.artifacts import Model
from lepton_compress.compress import static_int8
from lepton_compress.compress.calibration import tensors
from lepton_compress.compress.observed import Range
from lepton_compress.compress.quantize import Quantize
from lepton_compress.graph import value_specs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lepton_compress.compress.traced import Traced

_ATEN = torch.ops.aten
_LAYERS = (
    _ATEN.conv1d.default,
    _ATEN.conv1d.padding,
    _ATEN.conv2d.default,
    _ATEN.conv2d.padding,
    _ATEN.linear.default,
)
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVES = ("Flatten", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
"""They give values that they take, which need no rounding again."""
_SUFFIX = "_QuantizeLinear_Input"
"""What ONNX Runtime appends to an output's name to name what is rounded."""


@dataclass(frozen=True)
class TracedLayer:
    """A convolution or dense layer: its operator, and the batch normalisation that alone takes
    what it gives."""

    operator: fx.Node
    norm: fx.Node | None

    @property
    def last(self) -> fx.Node:
        """Where its outcome stands."""
        return self.norm or self.operator


@dataclass(frozen=True)
class Placement:
    """Where to round.

    Attributes:
        values: ONNX tensor to the value to round; each has a range of its own.
        shared: ONNX tensor to a further value to round, over the range of its source.
        sources: rounded ONNX tensor to that tensor of `values` whose range it has.
        bounds: of `values`: what a clipping operator leaves of it.
        layers: ONNX node to the layer whose weight to round.
        inputs: ONNX node of a layer to that tensor of `values` whose range its input has.
        reasons: ONNX node to why it stays in float.
    """

    values: dict[str, fx.Node]
    shared: dict[str, fx.Node]
    sources: dict[str, str]
    bounds: dict[str, Range]
    layers: dict[str, TracedLayer]
    inputs: dict[str, str]
    reasons: dict[str, str]


def place(
    traced: Traced, lowered: Model, matched: Mapping[str, fx.Node], params: Quantize
) -> Placement:
    """Work out the places of a module from its graph.

    Args:
        lowered: the graph, with a type for every value.
        matched: ONNX tensor to the value it is.
        params: how the graph will be quantised.
    """
    layers = {each.last: each for each in find_layers(traced.graph)}
    graph = lowered.value
    held: dict[str, TracedLayer] = {}
    reasons = dict.fromkeys(params.keep, "named in `keep`")
    float_constants = {
        each.name for each in graph.graph.initializer if each.data_type == onnx.TensorProto.FLOAT
    }
    constants = {each.name for each in graph.graph.initializer}
    specs = value_specs(graph)
    for node in graph.graph.node:
        if node.op_type not in static_int8.OPERATORS or node.name in reasons:
            continue
        layer = layers.get(matched[node.output[0]]) if node.output[0] in matched else None
        given = [name for name in node.input if name and name not in constants]
        values = [name for name in (*given, *node.output) if _is_float(specs, name)]
        why = ""
        if any(name not in matched for name in values):
            why = "training sees what it takes or gives as part of another operator, or as constant"
        elif node.op_type in _WEIGHTED and node.input[1] in constants:
            if layer is None or not _fits(node, layer):
                why = f"training does not round the weights of this {node.op_type}"
            else:
                held[node.name] = layer
        elif node.op_type in ("Add", "Concat", "Mul") and float_constants & set(node.input):
            why = "it takes a constant, which training does not round"
        if why:
            reasons[node.name] = why
    kept = params.model_copy(update={"keep": list(reasons)})
    wanted, passed = tensors(graph, static_int8.OPERATORS, kept.keep)
    trial = static_int8.insert(
        lowered, dict.fromkeys((*wanted, *passed), (-1.0, 1.0)), kept, "uint8", 8
    )
    sources = {}
    for name, node in rounded(trial.value).items():
        # ONNX Runtime's quantiser lets some operators give what they give in their input's steps.
        source = node.input[1].removesuffix("_scale")
        while source in passed:
            source = passed[source]
        sources[name] = source
    clipped = {
        node.input[0]
        for node in graph.graph.node
        if node.op_type in ("Clip", "Relu") and node.name not in reasons
    }
    moved = {node.output[0] for node in graph.graph.node if node.op_type in _MOVES}
    return Placement(
        values={name: matched[name] for name in dict.fromkeys(sources.values())},
        shared={
            name: matched[name]
            for name, source in sources.items()
            if name != source and name not in moved and name in matched and name not in clipped
        },
        sources=sources,
        bounds=_bounds(graph, reasons),
        layers=held,
        inputs={
            node.name: sources[node.input[0]] for node in graph.graph.node if node.name in held
        },
        reasons=reasons,
    )


def rounded(quantized: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Float tensors that a QDQ graph rounds, by the name that they have in the float graph."""
    constants = {each.name for each in quantized.graph.initializer}
    return {
        node.input[0].removesuffix(_SUFFIX): node
        for node in quantized.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    }


def find_layers(graph: fx.GraphModule) -> Iterator[TracedLayer]:
    """Every convolution and dense layer with a weight of its own, in order."""
    for node in graph.graph.nodes:
        if node.target not in _LAYERS or tensor_of(graph, node.args[1]) is None:
            continue
        user = next(iter(node.users), None)
        alone = user is not None and len(node.users) == 1
        # Behind a dense layer the channels must be where a convolution has them.
        flat = node.target != _ATEN.linear.default or node.meta["val"].ndim == 2
        norm = user if alone and flat and _normalises(user, node) else None
        yield TracedLayer(node, norm)


def tensor_of(graph: fx.GraphModule, node: Any) -> torch.Tensor | None:
    """The parameter or buffer that a node stands for; None if it is none."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    found: Any = graph
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found if isinstance(found, torch.Tensor) else None


def _normalises(user: fx.Node | None, given: fx.Node) -> bool:
    return (
        user is not None
        and user.target == _ATEN.batch_norm.default
        and user.args[0] is given
        and user.args[3] is not None
        and not user.args[5]
    )


def _fits(node: onnx.NodeProto, layer: TracedLayer) -> bool:
    """Whether the layer's weight and bias can be put into the node as they are."""
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    dense = layer.operator.target == _ATEN.linear.default
    if node.op_type == "Conv":
        return not dense
    if node.op_type == "Gemm":
        plain = given.get("alpha", 1.0) == 1.0 == given.get("beta", 1.0)
        return dense and plain and not given.get("transA")
    bias = layer.operator.args[2] if len(layer.operator.args) > 2 else None
    return node.op_type == "MatMul" and dense and bias is None and layer.norm is None


def _bounds(graph: onnx.ModelProto, kept: Mapping[str, str]) -> dict[str, Range]:
    """What the clipping operators leave, which the ends of a range stand for in the artifact."""
    constants = {each.name: each for each in graph.graph.initializer}
    found = {}
    for node in graph.graph.node:
        if node.name in kept or node.op_type not in ("Clip", "Relu"):
            continue
        low, high = (0.0 if node.op_type == "Relu" else -np.inf), np.inf
        ends = [*node.input[1:], "", ""][:2] if node.op_type == "Clip" else ["", ""]
        if ends[0] in constants:
            low = float(numpy_helper.to_array(constants[ends[0]]))
        if ends[1] in constants:
            high = float(numpy_helper.to_array(constants[ends[1]]))
        found[node.output[0]] = (low, high)
    return found


def _is_float(specs: Mapping[str, Any], name: str) -> bool:
    return name in specs and specs[name].dtype == "float32"
