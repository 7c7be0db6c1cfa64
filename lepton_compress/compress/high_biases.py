"""High-bias absorption (Nagel et al., 2019, section 4.1.3), with calibration data in place of the
statistics of batch normalisation.

Where a channel never falls below c > 0 before its Relu, relu(x) = relu(x - c) + c, and the c goes
through the next layer's weights into its bias: the values in between then have a smaller range.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.facts import Facts, attributes, facts_of
from lepton_compress.compress.noise import values

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYERS = ("Conv", "Gemm")


def absorb(
    model: Model, split: Split, keep: Collection[str], samples: int, threads: int
) -> dict[str, int]:
    """Move high biases in place; node to how many channels of it.

    Only between a Conv or Gemm with a bias of its own, a Relu, and layers of these kinds that take
    nothing but it; padded convolutions are left out, for at a border they do not meet the c.
    """
    graph = model.value.graph
    facts = facts_of(model, split)
    held = {each.name: each for each in graph.initializer}
    moved: dict[str, int] = {}
    pairs = [(node, after) for node in graph.node if (after := _after(facts, node, keep))]
    names = [node.output[0] for node, _ in pairs]
    least: dict[str, NDArray[np.float64]] = {}
    for batch in values(model, names, split, samples, threads) if names else ():
        for name, array in batch.items():
            low = array.min(axis=tuple(axis for axis in range(array.ndim) if axis != 1))
            least[name] = np.minimum(least.get(name, low), low)
    for node, after in pairs:
        shift = np.maximum(least[node.output[0]], 0)
        if not shift.any():
            continue
        moved[node.name] = int((shift > 0).sum())
        _write(held[node.input[2]], numpy_helper.to_array(held[node.input[2]]) - shift)
        for each in after:
            _carry(graph, held, each, shift)
    return moved


def _after(facts: Facts, node: onnx.NodeProto, keep: Collection[str]) -> list[onnx.NodeProto]:
    """The layers that take a shift over from a node, if all is as it must be."""
    if node.op_type not in _LAYERS or node.name in keep or facts.constant(node, 2) is None:
        return []
    relus = facts.takers.get(node.output[0], [])
    if [each.op_type for each in relus] != ["Relu"] or node.output[0] in facts.made:
        return []
    shape = facts.shapes[node.output[0]]
    own = facts.constants[node.input[2]].shape == (shape[1],) and facts.alone(node, 2)
    takers = facts.takers.get(relus[0].output[0], [])
    fits = own and takers and relus[0].output[0] not in facts.made
    return takers if fits and all(_takes(facts, each, keep) for each in takers) else []


def _takes(facts: Facts, node: onnx.NodeProto, keep: Collection[str]) -> bool:
    given = attributes(node)
    plain = not any(given.get("pads", ())) and given.get("auto_pad", b"NOTSET") in (
        b"NOTSET",
        b"VALID",
    )
    plain &= not given.get("transA") and given.get("alpha", 1.0) == 1.0 == given.get("beta", 1.0)
    if node.op_type not in _LAYERS or node.name in keep or not plain:
        return False
    biased = len(node.input) > 2 and node.input[2]
    outputs = facts.shapes[node.output[0]][1]
    own = not biased or (
        facts.constant(node, 2) is not None
        and facts.constants[node.input[2]].shape == (outputs,)
        and facts.alone(node, 2)
    )
    return own and facts.constant(node, 1) is not None


def _carry(
    graph: onnx.GraphProto,
    held: dict[str, onnx.TensorProto],
    node: onnx.NodeProto,
    shift: NDArray[Any],
) -> None:
    """Add to a layer's bias what its weights make of the shift."""
    weight = numpy_helper.to_array(held[node.input[1]]).astype(np.float64)
    if node.op_type == "Conv":
        groups = attributes(node).get("group", 1)
        taps = weight.sum(axis=tuple(range(2, weight.ndim)))
        rows = taps.reshape(groups, len(taps) // groups, -1)
        more = np.einsum("goi,gi->go", rows, shift.reshape(groups, -1)).reshape(-1)
    else:
        more = (weight if attributes(node).get("transB") else weight.T) @ shift
    if len(node.input) > 2 and node.input[2]:
        bias = held[node.input[2]]
        _write(bias, numpy_helper.to_array(bias) + more)
        return
    name = f"{node.input[1]}_shift"
    made = graph.initializer.add()
    made.name = name
    _write(made, more)
    held[name] = made
    del node.input[2:]
    node.input.append(name)


def _write(tensor: onnx.TensorProto, array: NDArray[Any]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
