"""Small float networks as ONNX graphs, data for them, and what a step is run with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Dataset, Model, Split, StepContext, StepOutcome
from lepton_compress.load.forms import call, duplicate, signature
from lepton_compress.registry import get

OPSET = 20


class Silent:
    """An observer, and its progress, that tell nobody."""

    @contextlib.contextmanager
    def work(self, label: str, total: int | None = None) -> Iterator[Silent]:
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None: ...

    def note(self, text: str) -> None: ...


def apply(step: str, model: Model, split: Split, /, **parameters: Any) -> StepOutcome:
    """Run a built-in step as the pipeline does, and hold it to its contract."""
    plugin = get("step", step)
    context = StepContext(
        data=Dataset(split, split, split, "none"),
        original=lambda: duplicate(model),
        seed=0,
        threads=1,
        observer=Silent(),
    )
    before = model.value.SerializeToString(deterministic=True)
    outcome: StepOutcome = plugin.function(model, plugin.params(**parameters), context)
    assert model.value.SerializeToString(deterministic=True) == before, "the model was touched"
    after = outcome.model.value.SerializeToString(deterministic=True)
    assert outcome.changed == (after != before)
    return outcome


def outputs(model: Model, split: Split, count: int = 1000) -> np.ndarray:
    """The first output for up to `count` samples."""
    return next(iter(call(model, next(split.batches(count))).values()))


def decibels(reference: np.ndarray, given: np.ndarray) -> float:
    noise = np.square(reference.astype(np.float64) - given).sum()
    return float(10 * np.log10(np.square(reference, dtype=np.float64).sum() / noise))


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    given: tuple[str, int, list[Any]],
    made: tuple[str, list[Any]],
    *,
    opset: int = OPSET,
    contributed: bool = False,
) -> Model:
    """A graph of one input and one float output, checked."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(given[0], given[1], given[2])],
        [helper.make_tensor_value_info(made[0], TensorProto.FLOAT, made[1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid("com.microsoft", 1)] if contributed else []
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return Model("graph", model, *signature(model))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights that keep the variance of what they are multiplied with."""
    inner = int(np.prod(shape[1:]))
    made: np.ndarray = (rng.normal(size=shape) / np.sqrt(inner)).astype(np.float32)
    return made


def cnn(*, opset: int = OPSET, seed: int = 0) -> tuple[Model, Split]:
    """Conv, ReLU, depthwise Conv, ReLU6, strided grouped Conv, pooling, Gemm."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {
        "w1": normal(rng, 8, 3, 3, 3),
        "b1": normal(rng, 8),
        "w2": normal(rng, 8, 1, 3, 3),
        "b2": normal(rng, 8),
        "w3": normal(rng, 16, 4, 3, 3),
        "w4": normal(rng, 5, 16),
        "b4": normal(rng, 5),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    pads: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", **pads),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", group=8, **pads),
        helper.make_node("Clip", ["c2", "low", "high"], ["r2"], "relu6"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "grouped", group=2, strides=[2, 2], **pads),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["scores"], "scores", transB=1),
    ]
    size = ["batch", 3, 10, 10]
    model = model_of(
        nodes, weights, ("x", TensorProto.FLOAT, size), ("scores", ["batch", 5]), opset=opset
    )
    return model, Split({"x": rng.normal(size=(64, 3, 10, 10)).astype(np.float32)})


def mlp(inner: int = 24, *, seed: int = 0) -> tuple[Model, Split]:
    """MatMul, Add, ReLU, Gemm; `inner` is the width of the input."""
    rng = np.random.default_rng(seed)
    weights = {"w1": normal(rng, inner, 32), "b1": normal(rng, 32), "w2": normal(rng, 4, 32)}
    weights["b2"] = normal(rng, 4)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m"], "hidden"),
        helper.make_node("Add", ["m", "b1"], ["a"], "bias"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["scores"], "scores", transB=1),
    ]
    model = model_of(
        nodes, weights, ("x", TensorProto.FLOAT, ["batch", inner]), ("scores", ["batch", 4])
    )
    return model, Split({"x": rng.normal(size=(96, inner)).astype(np.float32)})


def recurrent(
    kind: str, *, directions: int = 1, computed: bool = False, seed: int = 0
) -> tuple[Model, Split]:
    """A recurrent layer and a Gemm on its last step; `computed` hides the weights behind a node."""
    rng = np.random.default_rng(seed)
    gates, hidden, width = {"LSTM": 4, "GRU": 3}[kind], 16, 6
    weights = {
        "w": normal(rng, directions, gates * hidden, width) * 4,
        "r": normal(rng, directions, gates * hidden, hidden) * 4,
        "b": normal(rng, directions, 2 * gates * hidden),
        "v": normal(rng, 3, hidden * directions),
        "last": np.array(-1),
        "flat": np.array([0, -1]),
    }
    nodes = [helper.make_node("Identity", ["w"], ["wi"], "weights")] if computed else []
    nodes += [
        helper.make_node("Transpose", ["x"], ["t"], "steps_first", perm=[1, 0, 2]),
        helper.make_node(
            kind,
            ["t", "wi" if computed else "w", "r", "b"],
            ["y"],
            "layer",
            hidden_size=hidden,
            direction="bidirectional" if directions == 2 else "forward",
        ),
        helper.make_node("Gather", ["y", "last"], ["h"], "last_step", axis=0),
        helper.make_node("Transpose", ["h"], ["ht"], "batch_first", perm=[1, 0, 2]),
        helper.make_node("Reshape", ["ht", "flat"], ["hf"], "flatten"),
        helper.make_node("Gemm", ["hf", "v"], ["scores"], "scores", transB=1),
    ]
    model = model_of(
        nodes, weights, ("x", TensorProto.FLOAT, ["batch", 5, width]), ("scores", ["batch", 3])
    )
    return model, Split({"x": rng.normal(size=(48, 5, width)).astype(np.float32)})


def transformer(*, fused: bool, seed: int = 0) -> tuple[Model, Split]:
    """Embedding of tokens (batch, 6), one attention layer, and a classifier. `fused` takes ONNX
    Runtime's own Attention, behind which shape inference knows no types."""
    rng = np.random.default_rng(seed)
    width, heads = 32, 4
    weights = {
        "table": rng.normal(size=(40, width)).astype(np.float32),
        "qkv": normal(rng, width, 3 * width) * 5,
        "qkv_bias": normal(rng, 3 * width),
        "up": normal(rng, width, 48),
        "up_bias": normal(rng, 48),
        "down": normal(rng, 48, width),
        "head": normal(rng, width, 4),
        "gain": np.ones(width, np.float32),
        "shift": np.zeros(width, np.float32),
        "first": np.array(0),
    }
    nodes = [helper.make_node("Gather", ["table", "tokens"], ["e"], "embedding")]
    if fused:
        sizes = [width] * 3
        nodes.append(
            helper.make_node(
                "Attention",
                ["e", "qkv", "qkv_bias"],
                ["mixed"],
                "attention",
                domain="com.microsoft",
                num_heads=heads,
                qkv_hidden_sizes=sizes,
            )
        )
    else:
        nodes += _attention(weights, heads, width)
    nodes += [
        helper.make_node("Add", ["e", "mixed"], ["s"], "residual"),
        helper.make_node("LayerNormalization", ["s", "gain", "shift"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "up"], ["u"], "up"),
        helper.make_node("Add", ["u", "up_bias"], ["ub"], "up_bias"),
        helper.make_node("Relu", ["ub"], ["ua"], "up_relu"),
        helper.make_node("MatMul", ["ua", "down"], ["d"], "down"),
        helper.make_node("Gather", ["d", "first"], ["c"], "first_token", axis=1),
        helper.make_node("MatMul", ["c", "head"], ["scores"], "head"),
    ]
    model = model_of(
        nodes,
        weights,
        ("tokens", TensorProto.INT64, ["batch", 6]),
        ("scores", ["batch", 4]),
        contributed=fused,
    )
    return model, Split({"tokens": rng.integers(0, 40, size=(48, 6))})


def _attention(weights: dict[str, np.ndarray], heads: int, width: int) -> list[onnx.NodeProto]:
    weights["split"] = np.array([0, 0, heads, width // heads])
    weights["joined"] = np.array([0, 0, width])
    weights["factor"] = np.array((width // heads) ** -0.5, np.float32)
    nodes = [
        helper.make_node("MatMul", ["e", "qkv"], ["p"], "project"),
        helper.make_node("Add", ["p", "qkv_bias"], ["pb"], "project_bias"),
        helper.make_node("Split", ["pb"], ["q", "k", "v"], "parts", axis=2, num_outputs=3),
    ]
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            helper.make_node("Reshape", [name, "split"], [f"{name}s"], f"{name}_split"),
            helper.make_node("Transpose", [f"{name}s"], [f"{name}h"], f"{name}_heads", perm=order),
        ]
    return [
        *nodes,
        helper.make_node("MatMul", ["qh", "kh"], ["a"], "match"),
        helper.make_node("Mul", ["a", "factor"], ["as"], "scaled"),
        helper.make_node("Softmax", ["as"], ["ap"], "softmax"),
        helper.make_node("MatMul", ["ap", "vh"], ["o"], "mix"),
        helper.make_node("Transpose", ["o"], ["ot"], "heads_back", perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["ot", "joined"], ["mixed"], "join"),
    ]
