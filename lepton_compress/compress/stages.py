"""A graph computed by ONNX Runtime but for some nodes, which are computed here.

A node's stage is the largest number of such nodes on any way to it, so that the others of a stage
are one graph, run at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime

from lepton_compress.artifacts import Model

if TYPE_CHECKING:
    from lepton_compress.compress.products import Multiply, Product

Values = dict[str, np.ndarray]


@dataclass
class _Stage:
    nodes: list[onnx.NodeProto]
    products: list[Product]
    gives: tuple[str, ...]
    session: onnxruntime.InferenceSession | None = None


class Stages:
    """The stages of a graph, ready to run."""

    def __init__(self, model: Model, products: Sequence[Product]) -> None:
        self.model = model
        self.constants = {each.name: each for each in model.value.graph.initializer}
        self.stages = self._split({each.name: each for each in products})

    def run(self, feeds: Mapping[str, np.ndarray], multiply: Multiply) -> Values:
        """The graph's outputs by name, with the products computed by `multiply`."""
        values: Values = dict(feeds)
        for stage in self.stages:
            if stage.gives:
                if stage.session is None:
                    stage.session = self._session(stage, values)
                fed = {each.name: values[each.name] for each in stage.session.get_inputs()}
                made = stage.session.run(list(stage.gives), fed)
                values |= dict(zip(stage.gives, made, strict=True))
            for each in stage.products:
                bias = self._value(each.bias, values) if each.bias else None
                values[each.made] = each.compute(values[each.given], bias, multiply)
        return {name: values[name] for name in self.model.outputs}

    def _value(self, name: str, values: Values) -> np.ndarray:
        if name in values:
            return values[name]
        return onnx.numpy_helper.to_array(self.constants[name])

    def _split(self, products: Mapping[str, Product]) -> list[_Stage]:
        level: defaultdict[str, int] = defaultdict(int)
        nodes: defaultdict[int, list[onnx.NodeProto]] = defaultdict(list)
        mine: defaultdict[int, list[Product]] = defaultdict(list)
        needed = set(self.model.outputs)
        for node in self.model.value.graph.node:
            here = max((level[name] for name in _inputs(node)), default=0)
            product = products.get(node.name)
            if product is None:
                nodes[here].append(node)
            else:
                mine[here].append(product)
                needed |= {product.given} | ({product.bias} if product.bias else set())
            level.update(dict.fromkeys(node.output, here + (product is not None)))
        for here, some in nodes.items():
            needed |= {name for node in some for name in _inputs(node) if level[name] < here}
        return [
            _Stage(nodes[here], mine[here], tuple(_needed(nodes[here], needed)))
            for here in range(max([*nodes, *mine]) + 1)
        ]

    def _session(self, stage: _Stage, values: Values) -> onnxruntime.InferenceSession:
        inputs = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype), None
            )
            for name in dict.fromkeys(name for node in stage.nodes for name in _inputs(node))
            if name in values
        ]
        used = {name for node in stage.nodes for name in _inputs(node)}
        graph = onnx.helper.make_graph(
            stage.nodes,
            "stage",
            inputs,
            [onnx.ValueInfoProto(name=name) for name in stage.gives],
            [tensor for name, tensor in self.constants.items() if name in used],
        )
        whole = onnx.helper.make_model(
            graph,
            opset_imports=self.model.value.opset_import,
            ir_version=self.model.value.ir_version,
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(
            whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def _needed(nodes: Sequence[onnx.NodeProto], needed: set[str]) -> Iterator[str]:
    return (name for node in nodes for name in node.output if name in needed)


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """What a node takes, its subgraphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        inner: list[Any] = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in inner:
            for each in graph.node:
                yield from _inputs(each)
