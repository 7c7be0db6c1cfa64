"""What was trained under fake quantisation, put into the graph: integers as they are, scales and
zero points bit for bit. The result is read back and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType

from lepton_compress.artifacts import Model
from lepton_compress.compress import static_int8
from lepton_compress.compress.fake_quantization import LEVELS
from lepton_compress.compress.observed import Range
from lepton_compress.compress.placement import Placement, rounded
from lepton_compress.errors import PluginError
from lepton_compress.load.forms import duplicate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lepton_compress.compress.fake_quantization import Layer
    from lepton_compress.compress.quantize import Quantize

Step = tuple[float, int]
"""A scale, exactly a float32, and an unsigned zero point."""
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_WHERE = "step quantize_aware"


@dataclass(frozen=True)
class Carried:
    """The quantised graph, and the ranges that it holds by tensor."""

    model: Model
    ranges: dict[str, Range]


@dataclass(frozen=True)
class _Weight:
    """An initialiser of the float graph as it will be quantised: integers of the initialiser's
    shape, and their scale, one or one for each place along `axis`."""

    name: str
    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int | None


def carry(
    lowered: Model,
    placement: Placement,
    steps: Mapping[str, Step],
    layers: Mapping[str, Layer],
    params: Quantize,
    activations: str,
    bits: int,
) -> Carried:
    """The quantised graph of a trained network.

    Args:
        lowered: its float graph, with a type for every value.
        placement: where it was rounded.
        steps: tensor of `placement.values` to its scale and zero point.
        layers: ONNX node to the layer that was trained; each is settled here.
        params: how to quantise.
        activations: "uint8" or "int8".
        bits: of the weights.

    Raises:
        PluginError: the graph is another than the one that the places are of, or holds other
            numbers than were trained.
    """
    patched = duplicate(lowered)
    weights = _patch(patched.value.graph, placement, layers)
    ranges = {}
    given: dict[str, list[dict[str, Any]]] = {}
    shift = 128 if activations == "int8" else 0
    for name, source in placement.sources.items():
        scale, zero = steps[source]
        ranges[name] = (-zero * scale, (LEVELS - zero) * scale)
        given[name] = [_override(activations, scale, zero - shift)]
    for weight in weights:
        each = [_override("int8", float(scale), 0) for scale in weight.scale.reshape(-1)]
        if weight.axis is not None:
            each = [{**one, "axis": weight.axis} for one in each]
        given[weight.name] = each
    # ONNX Runtime asks for the range of what it replaces by a clipped value, too.
    every = dict.fromkeys(
        (name for node in patched.value.graph.node for name in node.output), (-1.0, 1.0)
    )
    kept = params.model_copy(update={"keep": list(placement.reasons)})
    made = static_int8.insert(patched, {**every, **ranges}, kept, activations, bits, given=given)
    check(made.value, placement, steps, weights, shift)
    return Carried(made, ranges)


def _override(kind: str, scale: float, zero: int) -> dict[str, Any]:
    return {
        "quant_type": _TYPES[kind],
        "scale": np.array(scale, np.float32),
        "zero_point": np.array(zero, np.dtype(kind)),
    }


def _patch(
    graph: onnx.GraphProto,
    placement: Placement,
    layers: Mapping[str, Layer],
) -> list[_Weight]:
    """Give each node the weight and bias that were trained, as initialisers of its own."""
    nodes = {node.name: node for node in graph.node}
    made = []
    for name, layer in layers.items():
        node = nodes.get(name)
        if node is None or node.input[0] not in placement.sources:
            raise PluginError(f"the trained graph has no rounded node {name!r}", where=_WHERE)
        integers, scale, bias = (None if each is None else each.numpy() for each in layer.settle())
        assert integers is not None  # noqa: S101 - for the type checker
        assert scale is not None  # noqa: S101 - for the type checker
        turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not _turned(node))
        floats = integers * scale
        axis = None if scale.size == 1 else int(turned)
        if turned:
            floats, integers = floats.T, integers.T
        weight, shift = f"{name}/weight", f"{name}/bias"
        node.input[1] = weight
        _add(graph, weight, floats)
        if bias is not None:
            del node.input[2:]
            node.input.append(shift)
            _add(graph, shift, bias)
        made.append(_Weight(weight, integers.astype(np.int8), scale.reshape(-1), axis))
    used = {name for node in graph.node for name in node.input}
    unused = [each for each in graph.initializer if each.name not in used]
    for each in unused:
        graph.initializer.remove(each)
    return made


def _turned(gemm: onnx.NodeProto) -> bool:
    return any(each.name == "transB" and each.i for each in gemm.attribute)


def _add(graph: onnx.GraphProto, name: str, array: NDArray[Any]) -> None:
    held = np.ascontiguousarray(array, np.float32)
    graph.initializer.append(numpy_helper.from_array(held, name))


def check(
    graph: onnx.ModelProto,
    placement: Placement,
    steps: Mapping[str, Step],
    weights: list[_Weight],
    shift: int,
) -> None:
    """Read a quantised graph's numbers back and compare.

    Args:
        shift: what is added to a zero point to make it unsigned.

    Raises:
        PluginError: they are not those that were trained, or stand elsewhere.
    """
    held = {each.name: each for each in graph.graph.initializer}

    def read(name: str) -> NDArray[Any]:
        return numpy_helper.to_array(held[name])

    found = rounded(graph)
    strange = sorted(found.keys() ^ placement.sources.keys())
    if strange:
        raise PluginError(
            f"the trained graph rounds other values than training did: {strange[0]}", where=_WHERE
        )
    for name, node in found.items():
        scale, zero = steps[placement.sources[name]]
        if (float(read(node.input[1])), int(read(node.input[2])) + shift) != (scale, zero):
            raise PluginError(f"the graph holds another range of {name}", where=_WHERE)
    for weight in weights:
        same = np.array_equal(read(f"{weight.name}_quantized"), weight.integers)
        scale_of = read(f"{weight.name}_scale").reshape(-1)
        if not same or not np.array_equal(scale_of, weight.scale):
            raise PluginError(f"the graph holds other integers for {weight.name}", where=_WHERE)
