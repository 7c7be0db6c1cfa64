"""What the measuring benchmark measures: a graph of so many layers, and a result to judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH = 256


def chain(path: Path, layers: int) -> None:
    """Dense layers of 256 by 256 with a Relu each, one after the other; float32, batch 1."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    draw = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number in range(layers):
        values = draw.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"m{number}"]))
        last = "y" if number == layers - 1 else f"r{number}"
        nodes.append(helper.make_node("Relu", [f"m{number}"], [last]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "chain",
        [value("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [value("y", TensorProto.FLOAT, ["batch", WIDTH])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model)
    save(model, path)


def result_file(path: Path) -> None:
    """A result as a run writes it."""
    from lepton_compress.report.folder import to_json
    from tests.report.results import result

    path.write_text(to_json(result()))
