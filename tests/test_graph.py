"""Facts read off graphs, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lepton_compress import graph

Shape = Sequence[int | str]
MICROSOFT = "com.microsoft"


def zeros(*shape: int, dtype: Any = np.float32) -> NDArray[Any]:
    return np.zeros(shape, dtype)


def node(kind: str, inputs: str, outputs: str = "y", **given: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(" "), outputs.split(" "), **given)


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, NDArray[Any]],
    x: Shape = ("batch", 8),
    **more: Shape,
) -> onnx.ModelProto:
    """Takes x (and what else is named), gives y."""
    inputs = {"x": x, **more}
    held = helper.make_graph(
        list(nodes),
        "held",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    domains = {"": 20, MICROSOFT: 1, "else": 1}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(held, opset_imports=opsets, ir_version=10)


IMAGE = ("batch", 6, 10, 12)
CASES: dict[str, tuple[onnx.ModelProto, int, int | None]] = {
    # Eight outputs of 8 x 10 pixels, each of 6 x 3 x 3 weights.
    "Conv": (
        model([node("Conv", "x w b")], {"w": zeros(8, 6, 3, 3), "b": zeros(8)}, IMAGE),
        8 * 6 * 9 + 8,
        8 * 8 * 10 * 6 * 9,
    ),
    "strided": (
        model([node("Conv", "x w", strides=[2, 2], pads=[1] * 4)], {"w": zeros(8, 6, 3, 3)}, IMAGE),
        8 * 6 * 9,
        8 * 5 * 6 * 6 * 9,
    ),
    "depthwise": (
        model([node("Conv", "x w", group=6)], {"w": zeros(6, 1, 3, 3)}, IMAGE),
        6 * 9,
        6 * 8 * 10 * 9,
    ),
    "Conv1d": (
        model([node("Conv", "x w")], {"w": zeros(4, 6, 5)}, ("batch", 6, 20)),
        4 * 6 * 5,
        4 * 16 * 6 * 5,
    ),
    # Each input element meets every weight of its channel.
    "ConvTranspose": (
        model([node("ConvTranspose", "x w", strides=[2, 2])], {"w": zeros(6, 4, 2, 2)}, IMAGE),
        6 * 4 * 4,
        6 * 10 * 12 * 4 * 4,
    ),
    "Gemm": (
        model([node("Gemm", "x w b")], {"w": zeros(8, 5), "b": zeros(5)}),
        8 * 5 + 5,
        8 * 5,
    ),
    "Gemm, transB": (
        model([node("Gemm", "x w b", transB=1)], {"w": zeros(5, 8), "b": zeros(5)}),
        8 * 5 + 5,
        8 * 5,
    ),
    "MatMul": (
        model([node("MatMul", "x w")], {"w": zeros(8, 5)}, ("batch", 7, 8)),
        8 * 5,
        7 * 8 * 5,
    ),
    # Three heads: queries (7, 8) by keys (8, 9).
    "MatMul, batched": (
        model([node("MatMul", "x k")], {}, ("batch", 3, 7, 8), k=("batch", 3, 8, 9)),
        0,
        3 * 7 * 8 * 9,
    ),
    "MatMul by a vector": (model([node("MatMul", "x w")], {"w": zeros(8)}), 8, 8),
    "Relu": (model([node("Relu", "x")], {}), 0, 0),
    # One step meets the weights of all four gates, from the input and from the state.
    "LSTM": (
        model(
            [node("LSTM", "x w r", "y", hidden_size=4)],
            {"w": zeros(1, 16, 8), "r": zeros(1, 16, 4)},
            (10, "batch", 8),
        ),
        16 * 8 + 16 * 4,
        None,  # the batch is not its first dimension
    ),
    "LSTM over ten steps": (
        model(
            [node("Transpose", "x", "t", perm=[1, 0, 2]), node("LSTM", "t w r", hidden_size=4)],
            {"w": zeros(1, 16, 8), "r": zeros(1, 16, 4)},
            ("batch", 10, 8),
        ),
        16 * 8 + 16 * 4,
        10 * (16 * 8 + 16 * 4),
    ),
    "QDQ": (
        model(
            [
                node("QuantizeLinear", "x s z", "q"),
                node("DequantizeLinear", "q s z", "d"),
                node("DequantizeLinear", "w ws wz", "dw", axis=0),
                node("DequantizeLinear", "b bs", "db", axis=0),
                node("Conv", "d dw db"),
            ],
            {
                "s": zeros(),
                "z": zeros(dtype=np.uint8),
                "w": zeros(8, 6, 3, 3, dtype=np.int8),
                "ws": zeros(8),
                "wz": zeros(8, dtype=np.int8),
                "b": zeros(8, dtype=np.int32),
                "bs": zeros(8),
            },
            IMAGE,
        ),
        8 * 6 * 9 + 8,
        8 * 8 * 10 * 6 * 9,
    ),
    "MatMulNBits": (
        model(
            [
                node("MatMulNBits", "x w s z", domain=MICROSOFT, K=8, N=5, bits=4, block_size=16),
            ],
            {
                "w": zeros(5, 1, 8, dtype=np.uint8),
                "s": zeros(5),
                "z": zeros(5, dtype=np.uint8),
            },
            ("batch", 7, 8),
        ),
        8 * 5,
        7 * 8 * 5,
    ),
    "dynamic": (
        model(
            [
                node("DynamicQuantizeLinear", "x", "q s z"),
                node("MatMulInteger", "q w z", "i"),
                node("Cast", "i", "f", to=TensorProto.FLOAT),
                node("Mul", "s ws", "scales"),
                node("Mul", "f scales", "m"),
                node("Add", "m b"),
            ],
            {"w": zeros(8, 5, dtype=np.int8), "ws": zeros(5), "b": zeros(5)},
        ),
        8 * 5 + 5,
        8 * 5,
    ),
    "dynamic LSTM": (
        model(
            [
                node("Transpose", "x", "t", perm=[1, 0, 2]),
                helper.make_node(
                    "DynamicQuantizeLSTM",
                    ["t", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"],
                    ["y"],
                    domain=MICROSOFT,
                    hidden_size=4,
                ),
            ],
            {
                "w": zeros(1, 8, 16, dtype=np.int8),
                "r": zeros(1, 4, 16, dtype=np.int8),
                "b": zeros(1, 32),
                **{name: zeros(1, 16) for name in ("ws", "rs")},
                **{name: zeros(1, 16, dtype=np.int8) for name in ("wz", "rz")},
            },
            ("batch", 10, 8),
        ),
        16 * 8 + 16 * 4 + 32,
        10 * (16 * 8 + 16 * 4),
    ),
    "table in bytes": (
        model(
            [
                node("Gather", "w i", "g"),
                node("DequantizeLinear", "g s z", "d"),
                node("Add", "d x"),
            ],
            {
                "w": zeros(100, 8, dtype=np.int8),
                "i": zeros(1, dtype=np.int64),
                "s": zeros(),
                "z": zeros(dtype=np.int8),
            },
        ),
        100 * 8,
        0,
    ),
    "shapes are not learnt": (
        model([node("Reshape", "x shape")], {"shape": np.array([-1, 2, 4])}),
        0,
        0,
    ),
    "half": (
        model(
            [
                node("Cast", "x", "h", to=TensorProto.FLOAT16),
                node("MatMul", "h w", "m"),
                node("Cast", "m", "y", to=TensorProto.FLOAT),
            ],
            {"w": zeros(8, 5, dtype=np.float16)},
        ),
        8 * 5,
        8 * 5,
    ),
    "unknown shape": (
        model([node("MatMul", "x w")], {"w": zeros(8, 5)}, ("batch", "length", 8)),
        8 * 5,
        None,
    ),
    "unknown input of a known layer": (
        model(
            [node("Custom", "x", "c", domain="else"), node("Conv", "c w b")],
            {"w": zeros(8, 6, 3, 3), "b": zeros(8)},
            IMAGE,
        ),
        8 * 6 * 9 + 8,
        None,
    ),
    "an operator that is not worked out": (
        model([node("Einsum", "x w", equation="bi,ij->bj")], {"w": zeros(8, 5)}),
        8 * 5,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_parameters(name: str) -> None:
    held, parameters, _ = CASES[name]
    assert graph.parameter_count(held) == parameters


@pytest.mark.parametrize("name", CASES)
def test_multiply_accumulates_of_one_sample(name: str) -> None:
    held, _, macs = CASES[name]
    before = held.SerializeToString(deterministic=True)
    assert graph.multiply_accumulates(held) == macs
    assert held.SerializeToString(deterministic=True) == before


def test_a_shared_weight_is_one_parameter_and_two_multiplications() -> None:
    held = model([node("MatMul", "x w", "h"), node("MatMul", "h w")], {"w": zeros(8, 8)})
    assert graph.parameter_count(held) == 64
    assert graph.multiply_accumulates(held) == 128


def test_operators_are_counted_by_the_type_that_they_give() -> None:
    held = CASES["dynamic"][0]
    assert graph.operators(held) == {
        "Add": {"float32": 1},
        "Cast": {"float32": 1},
        "DynamicQuantizeLinear": {"uint8": 1},
        "MatMulInteger": {"int32": 1},
        "Mul": {"float32": 2},
    }


def test_operators_of_others_have_their_domain_and_an_unknown_type() -> None:
    held = model([node("Custom", "x", "c", domain="else"), node("Custom", "c", domain="else")], {})
    assert graph.operators(held) == {"else:Custom": {"?": 1, "float32": 1}}


def test_every_known_value_has_its_type_and_shape() -> None:
    specs = graph.value_specs(CASES["QDQ"][0])
    assert (specs["q"].dtype, specs["q"].shape) == ("uint8", IMAGE)
    assert (specs["w"].dtype, specs["w"].shape) == ("int8", (8, 6, 3, 3))
    assert (specs["d"].dtype, specs["d"].shape) == ("float32", IMAGE)


def test_an_output_without_tensor_type_is_left_out() -> None:
    held = model([node("SequenceConstruct", "x", "s"), node("SequenceAt", "s i")], {})
    held.graph.initializer.append(numpy_helper.from_array(zeros(dtype=np.int64), "i"))
    assert "s" not in graph.value_specs(held)
