"""Small LiteRT flatbuffers, built by hand: int8, float, with what devices do not take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from lepton_compress import layers
from lepton_compress.targets.flatbuffer import operators

TYPES = {"float32": 0, "int32": 2, "uint8": 3, "bool": 6, "int8": 9}


@dataclass
class Writer:
    """Tensors and operators of one subgraph, in the order in which they are added."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    codes: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "int8",
        scale: float = 0.0,
        zero: int = 0,
    ) -> int:
        """A tensor that is computed, or an input; without a scale it is not quantised."""
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(shape), TYPES[dtype]
        made.buffer = 0
        if scale:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.array([scale], np.float32)
            made.quantization.zeroPoint = np.array([zero], np.int64)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, name: str, values: NDArray[Any], scale: float = 0.0) -> int:
        """A tensor with its values in the file."""
        index = self.tensor(name, values.shape, values.dtype.name, scale)
        held = schema.BufferT()
        held.data = np.frombuffer(values.tobytes(), np.uint8)
        self.buffers.append(held)
        self.tensors[index].buffer = len(self.buffers) - 1
        return index

    def add(
        self,
        operator: str,
        takes: Sequence[int],
        gives: Sequence[int],
        options: str = "",
        **values: Any,
    ) -> None:
        """An operator, by the name that the schema gives it."""
        number = getattr(schema.BuiltinOperator, operator)
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = number, 1
        code.deprecatedBuiltinCode = min(number, 127)
        self.codes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = len(self.codes) - 1
        made.inputs, made.outputs = list(takes), list(gives)
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in values.items():
                setattr(made.builtinOptions, name, value)
        self.operators.append(made)

    def write(self, path: Path, takes: Sequence[int], gives: Sequence[int]) -> Path:
        """The whole as a file."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs, graph.outputs = list(takes), list(gives)
        model = schema.ModelT()
        model.version, model.description = 3, "test"
        model.operatorCodes, model.subgraphs, model.buffers = self.codes, [graph], self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def network(path: Path, channels: int = 8, odd: str = "", *, float_edges: bool = False) -> Path:
    """An int8 network: convolution, pooling, a dense layer and a softmax.

    Args:
        path: of the file.
        channels: of the convolution.
        odd: an operator of one input to put in front of the softmax, by the schema's name.
        float_edges: whether inputs and outputs are float, and converted.
    """
    draw, made = np.random.default_rng(0), Writer()
    weights = draw.integers(-127, 128, (channels, 3, 3, 4), dtype=np.int8)
    given = first = made.tensor("image", (1, 8, 8, 4), scale=0.02, zero=-3)
    if float_edges:
        first = made.tensor("pixels", (1, 8, 8, 4), "float32")
        made.add("QUANTIZE", [first], [given])
    kernel = made.constant("net.conv.weight", weights, 0.01)
    bias = made.constant("net.conv.bias", np.arange(channels, dtype=np.int32), 0.0002)
    mapped = made.tensor("net.conv", (1, 8, 8, channels), scale=0.05, zero=-128)
    made.add(
        "CONV_2D",
        [given, kernel, bias],
        [mapped],
        "Conv2DOptions",
        strideW=1,
        strideH=1,
        fusedActivationFunction=1,
    )
    pooled = made.tensor("net.pool", (1, 4, 4, channels), scale=0.05, zero=-128)
    window = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
    made.add("MAX_POOL_2D", [mapped], [pooled], "Pool2DOptions", **window)
    flat = made.tensor("net.flat", (1, 16 * channels), scale=0.05, zero=-128)
    shape = made.constant("net.flat.shape", np.array([1, 16 * channels], np.int32))
    made.add("RESHAPE", [pooled, shape], [flat], "ReshapeOptions", newShape=[1, 16 * channels])
    dense = draw.integers(-127, 128, (5, 16 * channels), dtype=np.int8)
    matrix = made.constant("net.dense.weight", dense, 0.005)
    shift = made.constant("net.dense.bias", np.arange(5, dtype=np.int32), 0.00025)
    scores = made.tensor("net.dense", (1, 5), scale=0.5, zero=0)
    made.add("FULLY_CONNECTED", [flat, matrix, shift], [scores], "FullyConnectedOptions")
    if odd:
        through = made.tensor(f"net.{odd.lower()}", (1, 5), scale=0.5, zero=0)
        made.add(odd, [scores], [through])
        scores = through
    out = made.tensor("probabilities", (1, 5), scale=1 / 256, zero=-128)
    made.add("SOFTMAX", [scores], [out], "SoftmaxOptions", beta=1.0)
    if float_edges:
        shares = made.tensor("shares", (1, 5), "float32")
        made.add("DEQUANTIZE", [out], [shares])
        out = shares
    return made.write(path, [first], [out])


def name_layers(path: Path, **nodes: str) -> None:
    """Leave the JSON beside a file that says what its operators stand for, by their types."""
    held = operators(path, schema.Model, schema.BuiltinOperator)
    found = tuple(
        layers.Layer(each.type, each.name, number, nodes.get(each.type, ""), "", ())
        for number, each in enumerate(held)
    )
    layers.beside(path).write_text(layers.to_json(layers.Layers(found)))


def float_network(path: Path, *, integer_weights: bool = False) -> Path:
    """A dense layer in float, or with weights in int8 alone."""
    made = Writer()
    given = made.tensor("image", (1, 12), "float32")
    draw = np.random.default_rng(0)
    weights: NDArray[Any] = draw.normal(size=(3, 12)).astype(np.float32)
    if integer_weights:
        weights = draw.integers(-127, 128, (3, 12), dtype=np.int8)
    matrix = made.constant("dense.weight", weights, 0.01 if integer_weights else 0.0)
    shift = made.constant("dense.bias", np.zeros(3, np.float32))
    out = made.tensor("scores", (1, 3), "float32")
    made.add("FULLY_CONNECTED", [given, matrix, shift], [out], "FullyConnectedOptions")
    return made.write(path, [given], [out])
