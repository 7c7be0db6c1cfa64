"""Small trained models as ONNX graphs, a plain quantiser for them, and the faults to plant.

Graphs are written by hand and quantised by ONNX Runtime's own quantiser with ranges given to it, so
that each fault is made exactly, whatever the tool's own steps would have refused to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

Array = NDArray[Any]
Range = tuple[float, float]
Weights = dict[str, Array]

OPERATORS = ["Add", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Mul", "Relu"]
OPERATORS += ["Reshape", "Transpose"]
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Array],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    output: tuple[str, Sequence[int | str]],
    input_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A checked model."""
    graph = helper.make_graph(
        list(nodes),
        "planted",
        [helper.make_tensor_value_info(name, input_type, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def node(kind: str, inputs: Sequence[str], output: str, name: str = "", **given: Any) -> Any:
    """A node with one output, named after it if no name is given."""
    return helper.make_node(kind, list(inputs), [output], name or f"{output}/{kind}", **given)


def train(net: Any, images: Array, labels: Array, epochs: int = 12) -> Any:
    """Train a torch classifier on arrays; the same each time."""
    import torch
    from torch.nn import functional

    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small only wait for a second thread
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(100):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            functional.cross_entropy(net(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    torch.set_num_threads(before)
    return net.eval()


def weights_of(net: Any) -> Weights:
    """A module's tensors, as float32 arrays."""
    return {name: each.detach().numpy().copy() for name, each in net.state_dict().items()}


def cnn(channels: int = 1) -> Any:
    """A convolution, a depthwise and a pointwise one, a classifier; to be trained."""
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 16, 10),
        )


def cnn_graph(
    weights: Weights, *, middle: str = "Relu", norm: Weights | None = None
) -> onnx.ModelProto:
    """The graph of `cnn`. `middle` takes the place of the second Relu; `norm` puts a batch
    normalisation behind the pointwise convolution."""
    channels = weights["0.weight"].shape[1]
    given = {"first": "0", "deep": "2", "point": "4", "dense": "8"}
    held = {
        f"{name}.{kind}": weights[f"{key}.{kind}"]
        for name, key in given.items()
        for kind in ("weight", "bias")
    }
    held["flat_shape"] = np.array([0, -1], np.int64)
    before_relu = "normed" if norm else "pointed"
    nodes = [
        node(
            "Conv", ["image", "first.weight", "first.bias"], "firsted", "first/Conv", pads=[1] * 4
        ),
        node("Relu", ["firsted"], "first_active"),
        node(
            "Conv",
            ["first_active", "deep.weight", "deep.bias"],
            "deeped",
            "deep/Conv",
            pads=[1] * 4,
            group=16,
        ),
        node(middle, ["deeped"], "deep_active"),
        node("Conv", ["deep_active", "point.weight", "point.bias"], "pointed", "point/Conv"),
        node("Relu", [before_relu], "point_active"),
        node("MaxPool", ["point_active"], "pooled", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", ["pooled", "flat_shape"], "flat"),
        node("Gemm", ["flat", "dense.weight", "dense.bias"], "scores", "dense/Gemm", transB=1),
    ]
    if norm:
        held |= norm
        names = ["pointed", *(f"norm.{each}" for each in ("scale", "bias", "mean", "var"))]
        nodes.insert(5, node("BatchNormalization", names, "normed", "norm/BatchNormalization"))
    return model_of(
        nodes,
        held,
        inputs={"image": ["batch", channels, 8, 8]},
        output=("scores", ["batch", 10]),
    )


def run(model: onnx.ModelProto, feeds: Mapping[str, Array], extra: Sequence[str] = ()) -> Weights:
    """Outputs by name, those of `extra` tensors included."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    for name in extra:
        if name not in held:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def ranges_of(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Range]:
    """Tensor to its smallest and largest value, zero included."""
    names = [each for made in model.graph.node for each in made.output if each]
    seen = {**run(model, feeds, names), **feeds}
    found = {
        name: (min(0.0, float(array.min())), max(0.0, float(array.max())))
        for name, array in seen.items()
        if array.dtype == np.float32
    }
    # As the tool's calibration does: what only a Relu takes is quantised as the Relu's output.
    for made in model.graph.node:
        if made.op_type == "Relu" and made.output[0] in found:
            found[made.input[0]] = found[made.output[0]]
    return found


def quantised(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    *,
    activations: str = "uint8",
    per_channel: bool = True,
    reduce_range: bool = False,
    operators: Sequence[str] = OPERATORS,
    spoil: Callable[[dict[str, Range]], None] | None = None,
) -> onnx.ModelProto:
    """Static int8 with QDQ nodes; `spoil` may change the ranges before they are used."""
    ranges = ranges_of(model, feeds)
    if spoil:
        spoil(ranges)
    tensors = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=per_channel,
        reduce_range=reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=_TYPES[activations],
        tensors_range=TensorsData(CalibrationMethod.MinMax, tensors),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=list(operators),
        extra_options={"ActivationSymmetric": activations == "int8", "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model  # type: ignore[no-any-return]


def coloured(images: Array) -> Array:
    """(n, 3, 8, 8): digits in a warm ink on a cool ground, so that the channels differ."""
    ink, ground = np.array([0.9, 0.5, 0.1]), np.array([0.0, 0.1, 0.35])
    shaped = (each.reshape(1, 3, 1, 1).astype(np.float32) for each in (ink, ground))
    front, back = shaped
    return images * front + (1 - images) * back


def tied(model: onnx.ModelProto, tensor: str) -> set[str]:
    """A tensor and those that must have its range: before its Relu, and behind a MaxPool."""
    found = {tensor}
    for made in [*model.graph.node, *model.graph.node]:
        ends = {made.input[0], made.output[0]}
        if made.op_type in ("Relu", "MaxPool", "Reshape") and ends & found:
            found |= ends
    return found


def recurrent_graph(images: Array, labels: Array, kind: str) -> onnx.ModelProto:
    """A recurrent layer over the rows of digits and two dense ones, trained."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(nn, kind)(8, 64, batch_first=True)
            self.hidden = nn.Linear(64, 64)
            self.dense = nn.Linear(64, 10)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            steps, _ = self.layer(rows)
            scores: torch.Tensor = self.dense(torch.relu(self.hidden(steps[:, -1])))
            return scores

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
    held = weights_of(train(net, images.reshape(-1, 8, 8), labels, epochs=6))
    # torch orders a GRU's gates r, z, n and an LSTM's i, f, g, o; ONNX z, r, h and i, o, f, c.
    order = [1, 0, 2] if kind == "GRU" else [0, 3, 1, 2]

    def gates(name: str) -> Array:
        return np.concatenate([np.split(held[f"layer.{name}_l0"], len(order))[i] for i in order])

    weights = {
        "layer.W": gates("weight_ih")[None],
        "layer.R": gates("weight_hh")[None],
        "layer.B": np.concatenate([gates("bias_ih"), gates("bias_hh")])[None],
        "first_axis": np.array([0], np.int64),
        **{f"{n}.{k}": held[f"{n}.{k}"] for n in ("hidden", "dense") for k in ("weight", "bias")},
    }
    extra: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}
    nodes = [
        node("Transpose", ["rows"], "by_step", perm=[1, 0, 2]),
        helper.make_node(
            kind,
            ["by_step", "layer.W", "layer.R", "layer.B"],
            ["", "last"],
            f"layer/{kind}",
            hidden_size=64,
            **extra,
        ),
        node("Squeeze", ["last", "first_axis"], "state"),
        node("Gemm", ["state", "hidden.weight", "hidden.bias"], "hid", "hidden/Gemm", transB=1),
        node("Relu", ["hid"], "hid_active"),
        node("Gemm", ["hid_active", "dense.weight", "dense.bias"], "scores", "d/Gemm", transB=1),
    ]
    return model_of(
        nodes, weights, inputs={"rows": ["batch", 8, 8]}, output=("scores", ["batch", 10])
    )


def small_graph(images: Array, labels: Array) -> onnx.ModelProto:
    """Two narrow dense layers, trained."""
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    held = weights_of(train(net, images.reshape(-1, 64), labels))
    nodes = [
        node("Gemm", ["row", "0.weight", "0.bias"], "hidden", "first/Gemm", transB=1),
        node("Relu", ["hidden"], "active"),
        node("Gemm", ["active", "2.weight", "2.bias"], "scores", "second/Gemm", transB=1),
    ]
    return model_of(nodes, held, inputs={"row": ["batch", 64]}, output=("scores", ["batch", 10]))


def tied_graph() -> tuple[onnx.ModelProto, Array]:
    """A next-token model of a noisy cycle whose embedding is its output layer too; and tokens."""
    import torch
    from torch import nn
    from torch.nn import functional

    words, width = 200, 32
    tokens = np.random.default_rng(0).integers(words, size=(400, 1))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(words, width)
            self.mix = nn.Linear(width, width)

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            mixed = torch.relu(self.mix(self.embedding(given[:, 0])))
            return functional.linear(mixed, self.embedding.weight)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
    held = weights_of(train(net, tokens, (tokens[:, 0] * 7 + 3) % words))
    weights = {
        "embedding.weight": held["embedding.weight"],
        "mix.weight": held["mix.weight"],
        "mix.bias": held["mix.bias"],
        "axis": np.array([1], np.int64),
    }
    nodes = [
        node("Squeeze", ["tokens", "axis"], "ids"),
        node("Gather", ["embedding.weight", "ids"], "embedded", "embedding/Gather"),
        node("Gemm", ["embedded", "mix.weight", "mix.bias"], "mixed", "mix/Gemm", transB=1),
        node("Relu", ["mixed"], "mixed_active"),
        node("Transpose", ["embedding.weight"], "turned", perm=[1, 0]),
        node("MatMul", ["mixed_active", "turned"], "scores", "output/MatMul"),
    ]
    graph = model_of(
        nodes,
        weights,
        inputs={"tokens": ["batch", 1]},
        output=("scores", ["batch", words]),
        input_type=TensorProto.INT64,
    )
    return graph, tokens
