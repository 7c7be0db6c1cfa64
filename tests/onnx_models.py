"""A small ONNX graph, built by hand, with what devices do not take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def network(
    path: Path, *, odd: str = "", sizes: tuple[int | str, ...] = ("batch", 8, 8, 8)
) -> Path:
    """Five operators, with `odd` a sixth in the middle, over pictures of eight channels."""
    draw = np.random.default_rng(0)
    weights = {"w": draw.normal(size=(8, 8, 3, 3)), "v": draw.normal(size=(128, 4))}
    make, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        make("Conv", ["x", "w"], ["c"], "net.conv", pads=[1] * 4),
        make("Relu", ["c"], ["r"], "net.relu"),
        *([make(odd, ["r"], ["o"], f"net.{odd.lower()}")] if odd else []),
        make(
            "MaxPool", ["o" if odd else "r"], ["p"], "net.pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        make("Flatten", ["p"], ["f"], "net.flat"),
        make("Gemm", ["f", "v"], ["y"], "net.dense"),
    ]
    made = helper.make_graph(
        nodes,
        "network",
        [value("x", TensorProto.FLOAT, sizes)],
        [value("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(made, ir_version=10, opset_imports=opsets), path)
    return path
