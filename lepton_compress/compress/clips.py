"""Clips whose upper bound calibration data do not come near, replaced by Relu."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnx import numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.noise import values

NEAR = 0.8
"""Share of the bound; what comes nearer keeps the Clip."""


def replace(model: Model, split: Split, keep: Collection[str], threads: int) -> list[str]:
    """Turn them into Relus in place, all calibration samples seen; their names."""
    graph = model.value.graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    bounds: dict[str, float] = {}
    for node in graph.node:
        ends = [held.get(name) for name in node.input[1:]]
        known = len(ends) == 2 and all(each is not None and each.size == 1 for each in ends)
        if node.op_type == "Clip" and node.name not in keep and known:
            low, high = (float(np.asarray(each).reshape(-1)[0]) for each in ends)
            if low == 0 < high:
                bounds[node.name] = high
    nodes = {node.name: node for node in graph.node if node.name in bounds}
    reached = dict.fromkeys(nodes, 0.0)
    names = [node.input[0] for node in nodes.values()]
    for batch in values(model, names, split, len(split), threads) if names else ():
        for name, node in nodes.items():
            reached[name] = max(reached[name], float(batch[node.input[0]].max()))
    unreached = [name for name in nodes if reached[name] < NEAR * bounds[name]]
    for name in unreached:
        nodes[name].op_type = "Relu"
        del nodes[name].input[1:]
    return unreached
