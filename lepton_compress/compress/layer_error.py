"""What 8 bits cost a layer on calibration data, for one choice of factors after another: its input
rounded with one scale, its weight with one for each output channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from lepton_compress.artifacts import Model, Observer, Split
from lepton_compress.compress.facts import attributes
from lepton_compress.compress.noise import rounded, rounded_weight, values

if TYPE_CHECKING:
    from numpy.typing import NDArray

HELD = 8
"""Samples that errors are computed on."""
_BYTES = 4 * 2**20
"""At most this much of one value is held, but never less than a sample."""


@dataclass(frozen=True)
class Seen:
    """Of a value: the largest magnitude of each channel, and some samples."""

    largest: NDArray[np.float64]
    samples: NDArray[np.float32]


def see(
    model: Model,
    axes: Mapping[str, int],
    split: Split,
    *,
    samples: int,
    threads: int,
    observer: Observer,
) -> dict[str, Seen]:
    """What the values named in `axes` (value to the axis of its channels) hold.

    Raises:
        InputError: one is NaN or infinite.
    """
    largest: dict[str, NDArray[np.float64]] = {}
    held: dict[str, NDArray[np.float32]] = {}
    with observer.work("measuring channels", min(samples, len(split))) as progress:
        for batch in values(model, list(axes), split, samples, threads):
            for name, array in batch.items():
                others = tuple(each for each in range(array.ndim) if each != axes[name])
                reach = np.abs(array).max(axis=others).astype(np.float64)
                largest[name] = np.maximum(largest.get(name, reach), reach)
                if name not in held:
                    count = max(1, min(HELD, _BYTES * len(array) // max(1, array.nbytes)))
                    held[name] = array[:count].copy()
            progress.advance(len(next(iter(batch.values()))))
    return {name: Seen(largest[name], held[name]) for name in axes}


class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul by itself, without its bias."""

    def __init__(self, model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        self.name, self.input, self.weight = node.name, node.input[0], node.input[1]
        turned = node.op_type == "Gemm" and attributes(node).get("transB", 0)
        self.outputs = 0 if node.op_type == "Conv" or turned else 1
        alone = onnx.NodeProto()
        alone.CopyFrom(node)
        del alone.input[:], alone.output[:]
        alone.input.extend(["x", "w"])
        alone.output.append("y")
        value, kind = helper.make_tensor_value_info, TensorProto.FLOAT
        graph = helper.make_graph(
            [alone],
            "layer",
            [value("x", kind, None), value("w", kind, None)],
            [value("y", kind, None)],
        )
        made = helper.make_model(
            graph, opset_imports=model.opset_import, ir_version=model.ir_version
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, given: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float32]:
        """What it makes of an input, with a weight of the same shape as its own."""
        feeds = {"x": given.astype(np.float32), "w": weight.astype(np.float32)}
        made: NDArray[np.float32] = self._session.run(None, feeds)[0]
        return made


def relative_error(
    layers: Sequence[Layer],
    samples: NDArray[np.float32],
    weights: Mapping[str, NDArray[Any]],
    shrunk: NDArray[np.float32],
    grown: Mapping[str, NDArray[Any]],
) -> float:
    """Sum over layers of the energy of the error over that of the output.

    Args:
        samples: of the input, as it is.
        weights: constant to its values, as they are.
        shrunk, grown: input and weights with the factors moved between them; these are rounded.
    """
    total = 0.0
    given = rounded(shrunk, float(shrunk.min()), float(shrunk.max()))
    for layer in layers:
        wanted = layer.run(samples, weights[layer.weight])
        made = layer.run(given, rounded_weight(grown[layer.weight], layer.outputs))
        signal = float(np.square(wanted, dtype=np.float64).sum())
        total += float(np.square(wanted - made, dtype=np.float64).sum()) / max(signal, 1e-30)
    return total
