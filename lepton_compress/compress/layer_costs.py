"""What the rounding of each layer, alone, costs the outputs of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import numpy_helper

from lepton_compress.artifacts import Model, Progress, Split
from lepton_compress.compress.account import SAMPLES
from lepton_compress.compress.block_graph import Layer
from lepton_compress.load.forms import call, duplicate


def costs(
    model: Model,
    layers: Sequence[Layer],
    rounded: Mapping[str, np.ndarray],
    split: Split,
    progress: Progress,
) -> dict[str, float]:
    """By layer: the energy of the change of the float outputs when its weight alone is rounded,
    relative to the energy of the outputs; measured on calibration samples.

    Args:
        rounded: by layer the weight (outputs, inputs) that its blocks stand for.
    """
    feeds = next(split.named([spec.name for spec in model.inputs]).batches(SAMPLES))
    wanted = call(model, feeds)
    found = {}
    for layer in layers:
        given = call(_with_weight(model, layer, rounded[layer.node]), feeds)
        found[layer.node] = _change(wanted, given)
        progress.advance(note=layer.node)
    return found


def _with_weight(model: Model, layer: Layer, weight: np.ndarray) -> Model:
    made = duplicate(model)
    graph = made.value.graph
    node = next(node for node in graph.node if node.name == layer.node)
    turned = next((each.i for each in node.attribute if each.name == "transB"), 0)
    name, array = f"{layer.node}_rounded", weight if turned else weight.T
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    node.input[1] = name
    return made


def _change(wanted: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> float:
    floats = [name for name, array in wanted.items() if array.dtype.kind == "f"]
    energy = sum(float(np.square(wanted[name], dtype=np.float64).sum()) for name in floats)
    apart = sum(
        float(np.square(wanted[name].astype(np.float64) - given[name]).sum()) for name in floats
    )
    return apart / energy if energy else 0.0
