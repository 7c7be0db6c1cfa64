"""A model of any size with its weights in a file beside it, written without being in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, save

from lepton_compress.load.external import TensorFile

RECIPE = """\
version: 1
name: large
model: {{onnx: model.onnx}}
data: {{npz: {{path: data.npz, inputs: [x], targets: y, calibration: 25 %, evaluation: 50 %}}}}
metrics: [accuracy]
variants:
{variants}
gates: {{drop: 100 %}}
measure: {{rounds: 5, cap: 1 s}}
"""


def write(folder: Path, *, width: int, layers: int, variants: str) -> int:
    """Writes model.onnx with its data, data.npz and recipe.yaml; gives the weights' bytes.

    The model: x (batch, 16), a product to `width`, `layers` square products with ReLU between
    them, one of them as a Gemm with a bias, and a product to three scores.
    """
    rng = np.random.default_rng(0)
    square = (rng.normal(size=(width, width)).astype(np.float32) * (2 / width) ** 0.5).astype("f4")
    total, last = 0, "x"
    nodes, tensors = [], []
    with TensorFile(folder / "weights.bin") as file:
        shapes = [(16, width), *[(width, width)] * layers, (width, 3)]
        for place, shape in enumerate(shapes):
            name = f"layer{place}"
            # Another order of the same rows, so that no two tensors are alike.
            array = np.roll(square, 7 * place, axis=0)[: shape[0], : shape[1]]
            tensors.append(file.write(f"{name}_weight", array))
            total += array.nbytes
            given = [last, f"{name}_weight"]
            if place == 1:
                bias = rng.normal(size=width).astype(np.float32)
                tensors.append(file.write(f"{name}_bias", bias))
                given.append(f"{name}_bias")
            operator = "Gemm" if place == 1 else "MatMul"
            nodes.append(helper.make_node(operator, given, [f"{name}_out"], name))
            last = f"{name}_out"
            if place <= layers:
                nodes.append(helper.make_node("Relu", [last], [f"{name}_active"], f"{name}_relu"))
                last = f"{name}_active"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "large",
        [value("x", TensorProto.FLOAT, ["batch", 16])],
        [value(last, TensorProto.FLOAT, ["batch", 3])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    save(model, folder / "model.onnx")
    x = rng.normal(size=(32, 16)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=rng.integers(3, size=32))
    (folder / "recipe.yaml").write_text(RECIPE.format(variants=variants))
    return total
