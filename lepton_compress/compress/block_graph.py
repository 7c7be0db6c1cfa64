"""Matrix products of an ONNX graph with constant weights, and MatMulNBits nodes in their place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lepton_compress.artifacts import Model
from lepton_compress.compress.absorb import Site, inputs_of
from lepton_compress.compress.blocks import Blocks, pack
from lepton_compress.graph import infer_shapes
from lepton_compress.load.external import array_of

if TYPE_CHECKING:
    from lepton_compress.compress.quantize_weights import QuantizeWeights

DOMAIN = "com.microsoft"
LEVELS = {"float32": 0, "int8": 4}
"""What a product is computed in, as the operator's accuracy_level."""

Divided = Mapping[str, tuple[np.ndarray, tuple[Site, ...] | None]]


@dataclass(frozen=True)
class Layer:
    """A matrix product with a constant weight, (outputs, inputs) float32."""

    node: str
    input: str
    bias: str | None
    tensor: onnx.TensorProto
    turned: bool
    folder: Path | None

    @property
    def weight(self) -> np.ndarray:
        """The weight, read-only, in any layout; of a large graph mapped anew each time, so that
        what was read of it leaves memory with it."""
        array = array_of(self.tensor, self.folder)
        return array if self.turned else array.T

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        first, second = self.tensor.dims
        return (first, second) if self.turned else (second, first)

    @property
    def size(self) -> int:
        """How many weights."""
        return self.shape[0] * self.shape[1]


def find_layers(model: Model) -> Iterator[Layer]:
    """Every MatMul and Gemm whose second input is a constant float matrix."""
    graph = model.value.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            continue
        tensor = constants[node.input[1]]
        if len(tensor.dims) != 2 or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        plain = given.get("alpha", 1.0) == 1.0 == given.get("beta", 1.0) and not given.get("transA")
        if node.op_type == "Gemm" and not plain:
            continue
        bias = node.input[2] if len(node.input) > 2 else None
        turned = bool(given.get("transB"))
        yield Layer(node.name, node.input[0], bias or None, tensor, turned, model.folder)


def rewrite(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    made: Mapping[str, Blocks],
    divided: Divided,
    params: QuantizeWeights,
    compute: str,
) -> onnx.ModelProto:
    """The graph with a MatMulNBits node (and an Add for a Gemm's bias) in the place of each layer.

    Args:
        model: is changed.
        made: by node its blocks.
        divided: by input of layers what its values are divided by, and where (None: by a Mul).
    """
    divisors = {
        site: scales for scales, sites in divided.values() if sites is not None for site in sites
    }
    rows = {site.node: by for site, by in divisors.items() if site.node in made and site.place == 1}
    held: dict[str, list[onnx.TensorProto]] = {}
    for layer in layers:
        blocks = made[layer.node]
        if layer.node in rows:  # its outputs are divided: so are the scales of their blocks
            scales = blocks.scales / rows[layer.node][:, None]
            blocks = replace(blocks, scales=scales.astype(np.float32))
        packed, zeros = pack(blocks, params.block_size)
        parts = {"B": packed, "scales": blocks.scales.reshape(-1)}
        parts |= {} if params.symmetric else {"zero_points": zeros}
        held[layer.node] = [
            numpy_helper.from_array(array, f"{layer.node}_{part}") for part, array in parts.items()
        ]
    _divide(model.graph, {s: by for s, by in divisors.items() if s.node not in rows or s.place > 1})
    factors = _factors(model.graph, divided)
    bits = {name: blocks.bits for name, blocks in made.items()}
    return put_blocks(model, layers, held, factors, bits, params, compute)


def _divide(graph: onnx.GraphProto, divisors: Mapping[Site, np.ndarray]) -> None:
    """Divide constants of nodes; each becomes the node's own, as others may share it."""
    nodes = {node.name: node for node in graph.node}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for site, by in divisors.items():
        node = nodes[site.node]
        array = numpy_helper.to_array(constants[node.input[site.place]])
        shape = [-1 if axis == site.axis else 1 for axis in range(array.ndim)]
        name = f"{site.node}_input{site.place}_divided"
        graph.initializer.append(
            numpy_helper.from_array((array / by.reshape(shape)).astype(np.float32), name)
        )
        node.input[site.place] = name


def _factors(graph: onnx.GraphProto, divided: Divided) -> dict[str, str]:
    """Put a Mul in the place of each division that nothing takes up: input to what it becomes."""
    made = {}
    for value, (scales, sites) in divided.items():
        if sites is None:
            factor = numpy_helper.from_array((1 / scales).astype(np.float32), f"{value}_factors")
            graph.initializer.append(factor)
            made[value] = f"{value}_multiplied"
    return made


def put_blocks(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    held: Mapping[str, Collection[onnx.TensorProto]],
    factors: Mapping[str, str],
    bits: Mapping[str, int],
    params: QuantizeWeights,
    compute: str,
) -> onnx.ModelProto:
    """The graph with a MatMulNBits node over the tensors `held` in the place of each layer, of so
    many bits; an input among `factors` is multiplied first."""
    # Shape inference stops at an operator it does not know; what it found before stays.
    model = infer_shapes(model)
    graph = model.graph
    shapes = {value.name: value for value in (*graph.value_info, *graph.output)}
    by_name = {layer.node: layer for layer in layers}
    nodes: list[onnx.NodeProto] = []
    multiplied: set[str] = set()
    for node in graph.node:
        if node.name not in by_name:
            nodes.append(node)
            continue
        layer, parts = by_name[node.name], held[node.name]
        graph.initializer.extend(parts)
        source = layer.input
        if source in factors:
            source = factors[layer.input]
            if source not in multiplied:
                multiplied.add(source)
                given = [layer.input, f"{layer.input}_factors"]
                nodes.append(helper.make_node("Mul", given, [source], f"{node.name}_factors"))
        product = f"{node.name}_product" if layer.bias else node.output[0]
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                [source, *(part.name for part in parts)],
                [product],
                name=node.name,
                domain=DOMAIN,
                K=layer.shape[1],
                N=layer.shape[0],
                bits=bits[node.name],
                block_size=params.block_size,
                accuracy_level=LEVELS[compute],
            )
        )
        if layer.bias:
            if node.output[0] in shapes:
                graph.value_info.add().CopyFrom(shapes[node.output[0]])
                graph.value_info[-1].name = product
            given = [product, node.input[2]]
            nodes.append(helper.make_node("Add", given, [node.output[0]], f"{node.name}_bias"))
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)
    if not any(each.domain == DOMAIN for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the constants that nothing takes."""
    used = {name for node in graph.node for name in inputs_of(node)}
    used |= {value.name for value in graph.output}
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in used:
            del graph.initializer[place]
