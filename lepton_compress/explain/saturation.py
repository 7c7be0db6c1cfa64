"""How often a processor without 32-bit dot products would clip: its `vpmaddubsw` adds two products
of an unsigned activation and a signed weight in 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lepton_compress.explain.weights import Held
from lepton_compress.explain.wiring import Pair, Wiring, attribute

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_LIMIT = 32767
_PATCHES = 128
"""Places of the output that are looked at."""
_SAMPLES = 8


def saturating_share(
    node: onnx.NodeProto, weight: Held, pair: Pair, values: NDArray[Any]
) -> float | None:
    """Share of sums of two neighbouring products that leave 16 bits.

    Args:
        weight: int8, symmetric.
        pair: how the activation is rounded to uint8.
        values: float activations that the node takes, (samples, channels, height, width) or
            (samples, ..., features).

    Returns:
        None for a form that is not looked at: grouped convolutions run in another way.
    """
    import numpy as np

    if weight.integers is None or weight.dtype != "int8" or pair.dtype != "uint8":
        return None
    if node.op_type == "Conv":
        if attribute(node, "group", 1) > 1 or values.ndim != 4:
            return None
        rows = _patches(node, weight.values.shape, values[:_SAMPLES], pair)
        columns = weight.integers.transpose(0, 2, 3, 1).reshape(len(weight.integers), -1)
    else:
        flat = values.reshape(-1, values.shape[-1])[:_PATCHES]
        rows = _rounded(flat, pair)
        turned = node.op_type == "Gemm" and attribute(node, "transB", 0)
        columns = weight.integers if turned else weight.integers.T
    if columns.ndim != 2 or rows.shape[1] != columns.shape[1]:
        return None
    return _share(rows, columns.astype(np.int32))


def _share(rows: NDArray[Any], columns: NDArray[Any]) -> float:
    """Over all rows (places, depth) and columns (outputs, depth), in pairs along the depth."""
    depth = rows.shape[1] // 2 * 2
    if not depth:
        return 0.0
    beyond = count = 0
    for column in columns:
        products = rows[:, :depth] * column[:depth]
        sums = products[:, ::2] + products[:, 1::2]
        beyond += int((abs(sums) > _LIMIT).sum())
        count += sums.size
    return beyond / count


def _rounded(values: NDArray[Any], pair: Pair) -> NDArray[Any]:
    import numpy as np

    steps = np.round(values / pair.scale) + pair.zero_point
    return np.clip(steps, pair.lowest, pair.highest).astype(np.int32)


def _patches(
    node: onnx.NodeProto, shape: tuple[int, ...], values: NDArray[Any], pair: Pair
) -> NDArray[Any]:
    """(places, kernel height * kernel width * channels), channels innermost as the kernel reads."""
    import numpy as np

    pads = next((list(each.ints) for each in node.attribute if each.name == "pads"), [0] * 4)
    around = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    padded = np.pad(values, around)
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape[2:], axis=(2, 3))
    places = windows.transpose(0, 2, 3, 4, 5, 1)
    flat = places.reshape(-1, shape[2] * shape[3] * shape[1])
    step = max(1, len(flat) // _PATCHES)
    return _rounded(flat[::step][:_PATCHES], pair)


def activation_of(wiring: Wiring, node: onnx.NodeProto) -> Pair | None:
    """The pair that rounds what a node takes."""
    return wiring.pairs.get(wiring.origin(node.input[0]))
