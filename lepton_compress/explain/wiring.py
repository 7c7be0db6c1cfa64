"""Who gives and who takes each tensor of a graph, and its quantise/dequantise pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
BORDERS = (QUANTIZE, DEQUANTIZE, "DynamicQuantizeLinear")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RECURRENT = ("GRU", "LSTM", "RNN")
_LAST = 3  # tensors of this many axes are (batch, steps, channels)


def title(node: onnx.NodeProto) -> str:
    """A node's name, or that of what it gives."""
    return str(node.name or output_of(node))


def output_of(node: onnx.NodeProto) -> str:
    """The first output that it gives: some of a recurrent node's may be left out."""
    return next((str(name) for name in node.output if name), "")


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    return next((int(each.i) for each in node.attribute if each.name == name), default)


def channel_axis(axes: int) -> int:
    """The axis of an activation's channels: 1 of images and of rows, the last one of sequences."""
    return axes - 1 if axes == _LAST else min(1, axes - 1)


def output_axis(node: onnx.NodeProto, axes: int) -> int:
    """The axis of a weight's output channels."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return 1 if node.op_type == "ConvTranspose" else axes - 1


def is_depthwise(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Whether each filter of a convolution reads one channel only."""
    return node.op_type == "Conv" and attribute(node, "group", 1) > 1 and shape[1] == 1


@dataclass(frozen=True)
class Pair:
    """An activation rounded and brought back.

    Attributes:
        tensor: float, before; `output`: float, after the first dequantise node.
        scale, zero_point: one for the whole tensor.
        dtype: that it is rounded to.
    """

    tensor: str
    output: str
    dtype: str
    scale: float
    zero_point: int
    lowest: int
    highest: int

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and largest value that it can hold."""
        return (
            (self.lowest - self.zero_point) * self.scale,
            (self.highest - self.zero_point) * self.scale,
        )


class Wiring:
    """The tensors of one graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in filter(None, node.input):
                self.users.setdefault(name, []).append(node)
        self.inputs = {value.name for value in model.graph.input}
        self.outputs = {value.name for value in model.graph.output}

    @cached_property
    def constants(self) -> dict[str, onnx.TensorProto]:
        """Initialisers, and what Constant nodes hold."""
        held = {tensor.name: tensor for tensor in self.model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                for each in node.attribute:
                    if each.name == "value":
                        held[node.output[0]] = each.t
        return held

    def array(self, name: str) -> NDArray[Any]:
        """A constant's values."""
        import onnx

        return onnx.numpy_helper.to_array(self.constants[name])

    def computing(self) -> Iterator[onnx.NodeProto]:
        """The nodes that are neither borders nor constants, in order."""
        yield from (n for n in self.nodes if n.op_type not in (*BORDERS, "Constant"))

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """Rounded tensor to its pair; activations with one scale only."""
        found = {}
        for node in self.nodes:
            if node.op_type == QUANTIZE and node.input[0] not in self.constants:
                pair = self._pair(node)
                if pair:
                    found[pair.tensor] = pair
        return found

    def _pair(self, node: onnx.NodeProto) -> Pair | None:
        import numpy as np

        after = [n for n in self.users.get(node.output[0], []) if n.op_type == DEQUANTIZE]
        known = all(name in self.constants for name in node.input[1:] if name)
        if not known or not after:
            return None
        scale = self.array(node.input[1])
        zero = self.array(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
        if scale.size != 1 or zero.dtype.kind not in "iu":
            return None
        limits = np.iinfo(zero.dtype)
        return Pair(
            node.input[0],
            after[0].output[0],
            zero.dtype.name,
            float(scale.reshape(())),
            int(zero.reshape(())),
            int(limits.min),
            int(limits.max),
        )

    def origin(self, tensor: str) -> str:
        """The tensor in front of any borders that `tensor` comes from."""
        while (node := self.producer.get(tensor)) is not None and node.op_type in BORDERS:
            tensor = node.input[0]
        return tensor

    def after(self, tensor: str) -> str:
        """The float tensor that the nodes behind `tensor` really take: that after its pair."""
        return self.pairs[tensor].output if tensor in self.pairs else tensor
