"""Adaptive rounding of int8 weights: each weight is rounded up or down so that the layer's output
on calibration data changes least, and what remains of its mean is taken out of the bias.

Rounding one weight after another and letting the later ones make up for the error of the earlier
is optimal brain quantisation as Frantar et al. do it (GPTQ, 2022), here with the scales that the
quantiser has chosen, and for convolutions, whose patches take the place of rows. The correction of
the bias is that of Nagel et al. (2019), from measured means. The graph, its scales and its speed
stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.lib.stride_tricks import sliding_window_view
from onnx import numpy_helper

from lepton_compress.artifacts import Model, Observer, Split
from lepton_compress.compress.training import deterministic
from lepton_compress.load.forms import duplicate

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATCHES = 512
"""Of a layer, that one batch adds to its moments; they are drawn evenly."""
_BATCH = 4
_BLOCK = 64
"""Columns whose errors reach the columns behind them together."""
_DAMP = 0.01
"""Added to the diagonal of the moments, as a share of its mean, against overfitting rare inputs."""


@dataclass(frozen=True)
class Layer:
    """A Conv or Gemm with a constant weight.

    `groups` is 1 for a Gemm; a grouped convolution has moments for each group.
    """

    node: str
    operator: str
    input: str
    weight: str
    bias: str | None
    groups: int
    transposed: bool
    kernel: tuple[int, ...]
    pads: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]


@dataclass
class Moments:
    """Of a layer's inputs, patch by patch: `second` is (groups, width, width), `total` is
    (groups, width), both sums over `count` patches."""

    second: torch.Tensor
    total: torch.Tensor
    count: int

    def add(self, patches: torch.Tensor) -> None:
        """See patches (groups, width, count)."""
        self.second.baddbmm_(patches, patches.transpose(1, 2))
        self.total += patches.sum(2)
        self.count += patches.shape[2]


def adapt(
    original: Model,
    quantized: onnx.ModelProto,
    split: Split,
    *,
    samples: int,
    largest: int,
    threads: int,
    observer: Observer,
) -> int:
    """Round the int8 weights of a QDQ graph again, in place; how many layers there were.

    Args:
        original: the float graph that `quantized` was made from.
        quantized: with weights `NAME_quantized` int8 and scales `NAME_scale`, symmetric.
        split: calibration data.
        samples: at most this many.
        largest: the integers' largest magnitude, 127 for 8 bits.
    """
    held = {tensor.name: tensor for tensor in quantized.graph.initializer}
    layers = [each for each in find_layers(original.value) if f"{each.weight}_quantized" in held]
    shared = _used_twice(original.value)
    layers = [each for each in layers if each.weight not in shared]
    weights = {tensor.name: tensor for tensor in original.value.graph.initializer}
    # The number of threads decides the order of sums, and so the bytes of the artifact.
    with deterministic(0, threads):
        moments = measure(original, layers, split, samples, threads, observer)
        with observer.work("rounding", len(layers)) as progress:
            for layer in layers:
                weight = numpy_helper.to_array(weights[layer.weight])
                _round_layer(layer, weight, moments[layer.node], held, largest)
                progress.advance(note=layer.node)
    return len(layers)


def find_layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """Every two-dimensional Conv and every plain Gemm or MatMul with a constant weight."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in constants:
            continue
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        dims = constants[node.input[1]].dims
        if node.op_type == "Conv" and (
            len(dims) != 4 or given.get("auto_pad", b"NOTSET") != b"NOTSET"
        ):
            continue
        plain = given.get("alpha", 1.0) == 1.0 == given.get("beta", 1.0) and not given.get("transA")
        if node.op_type != "Conv" and (len(dims) != 2 or not plain):
            continue
        yield Layer(
            node=node.name,
            operator=node.op_type,
            input=node.input[0],
            weight=node.input[1],
            bias=node.input[2] if len(node.input) > 2 else None,
            groups=int(given.get("group", 1)),
            transposed=bool(given.get("transB", 0)),
            kernel=tuple(dims[2:]),
            pads=tuple(given.get("pads", (0, 0, 0, 0))),
            strides=tuple(given.get("strides", (1, 1))),
            dilations=tuple(given.get("dilations", (1, 1))),
        )


def measure(
    model: Model,
    layers: list[Layer],
    split: Split,
    samples: int,
    threads: int,
    observer: Observer,
) -> dict[str, Moments]:
    """Moments by node, in one pass over the data."""
    graph = duplicate(model).value
    fed = [spec.name for spec in model.inputs]
    shown = {value.name for value in graph.graph.output}
    wanted = [name for name in dict.fromkeys(each.input for each in layers) if name not in fed]
    for name in wanted:
        if name not in shown:
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            graph.graph.output.append(value)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: dict[str, Moments] = {}
    with observer.work("measuring inputs", -(-min(samples, len(split)) // _BATCH)) as progress:
        for feeds in split.named(fed).batches(_BATCH, samples):
            arrays = session.run(wanted, dict(feeds)) if wanted else []
            known = dict(feeds) | dict(zip(wanted, arrays, strict=True))
            for layer in layers:
                patches = _patches(layer, known[layer.input])
                if layer.node not in found:
                    groups, width, _ = patches.shape
                    second = torch.zeros(groups, width, width)
                    found[layer.node] = Moments(second, torch.zeros(groups, width), 0)
                found[layer.node].add(patches)
            progress.advance()
    return found


def _patches(layer: Layer, array: NDArray[Any]) -> torch.Tensor:
    """What the layer's weights meet: (groups, width of a patch, count)."""
    if layer.operator != "Conv":
        rows = array.reshape(-1, array.shape[-1])
        drawn = rows[:: _stride(len(rows))].T[None]
        return torch.from_numpy(np.array(drawn, dtype=np.float32, order="C"))
    top, left, bottom, right = layer.pads
    padded = np.pad(array, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (tall, wide), (down, across) = layer.dilations, layer.strides
    reach = ((layer.kernel[0] - 1) * tall + 1, (layer.kernel[1] - 1) * wide + 1)
    # A view: only the patches that are drawn are ever copied.
    windows = sliding_window_view(padded, reach, (2, 3))[:, :, ::down, ::across, ::tall, ::wide]
    batch, _, rows, columns = windows.shape[:4]
    count = batch * rows * columns
    image, row, column = np.unravel_index(
        np.arange(0, count, _stride(count)), (batch, rows, columns)
    )
    drawn = windows[image, :, row, column].reshape(len(row), layer.groups, -1)
    return torch.from_numpy(np.array(drawn.transpose(1, 2, 0), dtype=np.float32, order="C"))


def _stride(count: int) -> int:
    # Odd, so that it does not stay in step with the rows of an image.
    return max(1, count // PATCHES) | 1


def _round_layer(
    layer: Layer,
    weight: NDArray[Any],
    moments: Moments,
    held: Mapping[str, onnx.TensorProto],
    largest: int,
) -> None:
    """Replace a layer's integers, and its bias if that is an int32."""
    turned = layer.operator != "Conv" and not layer.transposed
    rows = torch.from_numpy(np.array(weight.T if turned else weight, dtype=np.float32, copy=True))
    outputs = rows.shape[0]
    flat = rows.reshape(layer.groups, outputs // layer.groups, -1)
    scale = torch.from_numpy(numpy_helper.to_array(held[f"{layer.weight}_scale"]).copy())
    steps = scale.reshape(-1).expand(outputs).reshape(layer.groups, -1, 1)
    integers = round_weights(flat, steps, moments.second, largest)
    made = integers.reshape(rows.shape).to(torch.int8).numpy()
    _replace(held[f"{layer.weight}_quantized"], made.T if turned else made)
    bias = held.get(f"{layer.bias}_quantized") if layer.bias else None
    if bias is not None:
        means = (moments.total / moments.count)[:, :, None]
        shift = ((flat - integers * steps) @ means).reshape(-1).numpy()
        step = numpy_helper.to_array(held[f"{layer.bias}_quantized_scale"]).reshape(-1)
        whole = numpy_helper.to_array(bias) + np.round(shift / step).astype(np.int64)
        limits = np.iinfo(np.int32)
        _replace(bias, np.clip(whole, limits.min, limits.max).astype(np.int32))


def round_weights(
    weight: torch.Tensor, scale: torch.Tensor, second: torch.Tensor, largest: int
) -> torch.Tensor:
    """Integers (groups, outputs, width) that keep the outputs closest.

    Args:
        weight: (groups, outputs, width).
        scale: (groups, outputs, 1).
        second: (groups, width, width), the sum of outer products of what the weights meet.
        largest: the integers' largest magnitude.
    """
    hessian = second.double()
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    damp = (_DAMP * diagonal.mean(1, keepdim=True)).clamp(min=1e-9).expand_as(diagonal)
    # A weight that meets only zeros may take any value: its row of the moments is made harmless.
    dead = (diagonal == 0).double()
    hessian = hessian + torch.diag_embed(damp + dead)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse).transpose(1, 2).float()
    left = weight.clone()
    integers = torch.zeros_like(weight)
    for start in range(0, weight.shape[2], _BLOCK):
        stop = min(start + _BLOCK, weight.shape[2])
        errors = torch.empty_like(left[:, :, start:stop])
        for index in range(start, stop):
            column = left[:, :, index]
            rounded = (column / scale[:, :, 0]).round().clamp(-largest, largest)
            # A weight that is exactly zero was made so, and stays.
            rounded = rounded * (weight[:, :, index] != 0)
            integers[:, :, index] = rounded
            error = (column - rounded * scale[:, :, 0]) / upper[:, index, index, None]
            left[:, :, index:stop] -= error[:, :, None] * upper[:, index, None, index:stop]
            errors[:, :, index - start] = error
        # The columns behind the block take its errors all at once, as one product.
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return integers


def _replace(tensor: onnx.TensorProto, array: NDArray[Any]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def _used_twice(model: onnx.ModelProto) -> set[str]:
    """Weights that several nodes share; there is no rounding that suits all of them."""
    seen: set[str] = set()
    twice: set[str] = set()
    for node in model.graph.node:
        for name in node.input:
            (twice if name in seen else seen).add(name)
    return twice & {tensor.name for tensor in model.graph.initializer}
