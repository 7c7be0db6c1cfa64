"""QuantizeLinear and DequantizeLinear as what XNNPACK's partitioner looks for."""

from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators that are called below

from lepton_compress.export.aten.network import Convert, Made, Network, refuse
from lepton_compress.export.flatbuffer.graph import Node

_OPS = torch.ops.quantized_decomposed
LOWEST, HIGHEST = -128, 127
_HALF = 128


def dequantized_weight(
    integers: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor
) -> torch.Tensor:
    """Float weights of int8 ones, a scale for each of the first axis."""
    made: torch.Tensor = _OPS.dequantize_per_channel(
        integers, scales, zeros, 0, LOWEST, HIGHEST, torch.int8
    )
    return made


def _step(net: Network, node: Node) -> tuple[float, int, bool]:
    """Scale, zero point in int8, and whether the graph holds these integers as uint8."""
    scale = net.constant(node, 1, "scale")
    if scale.size != 1:
        raise refuse(node, "XNNPACK has one scale for an activation, not one for each channel")
    zero = net.graph.constants.get(node.input(2))
    kind = zero.dtype.name if zero is not None else "uint8"
    if kind not in ("int8", "uint8"):
        mend = "quantise activations to 8 bits"
        raise refuse(node, f"XNNPACK does not compute with {kind} activations", mend)
    point = int(zero.item()) if zero is not None else 0
    lowered = kind == "uint8"
    return float(scale.item()), point - _HALF if lowered else point, lowered


def quantize(net: Network, node: Node) -> torch.Tensor:
    """To int8."""
    scale, zero, lowered = _step(net, node)
    if lowered:
        net.lowered.add(node.outputs[0])
    made: torch.Tensor = _OPS.quantize_per_tensor(
        net.value(node.inputs[0]), scale, zero, LOWEST, HIGHEST, torch.int8
    )
    return made


def rounded(net: Network, node: Node, value: torch.Tensor) -> torch.Tensor:
    """A float value as a QuantizeLinear node rounds it, in float."""
    scale, zero, _ = _step(net, node)
    held = _OPS.quantize_per_tensor(value, scale, zero, LOWEST, HIGHEST, torch.int8)
    made: torch.Tensor = _OPS.dequantize_per_tensor(held, scale, zero, LOWEST, HIGHEST, torch.int8)
    return made


def dequantize(net: Network, node: Node) -> Made:
    """To float32, for each node that takes it: XNNPACK's partitioner makes one part of the node
    behind it, and would then give others the integers."""
    name = node.inputs[0]
    if name not in net.lowered and net.graph.dtypes[name] != "int8":
        raise refuse(node, f"it takes {net.graph.dtypes[name]} that no QuantizeLinear made")
    scale, zero, _ = _step(net, node)
    integers = net.value(name)

    def made() -> torch.Tensor:
        found: torch.Tensor = _OPS.dequantize_per_tensor(
            integers, scale, zero, LOWEST, HIGHEST, torch.int8
        )
        return found

    return made


OPERATORS: dict[str, Convert] = {"QuantizeLinear": quantize, "DequantizeLinear": dequantize}
