"""The weights of an artifact as they stand on disk, against the float ones they were made from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lepton_compress.accounts import POOR_DB, SharedWeight, Stored, WeightAccount
from lepton_compress.explain.error import decibels
from lepton_compress.explain.wiring import (
    BORDERS,
    DEQUANTIZE,
    RECURRENT,
    WEIGHTED,
    Wiring,
    output_axis,
    title,
)

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_INTEGERS = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "MatMulNBits")
_PLACE = {"QLinearConv": 3, "QLinearMatMul": 3}
_SMALL = 1024
"""Bytes below which a shared tensor is no matter."""
_DEAD = 1e-6
"""Share of the largest weight below which a channel's weights are all as good as zero."""


@dataclass(frozen=True)
class Held:
    """A node's weight in memory.

    Attributes:
        tensor: its name in the file.
        values: float, dequantised.
        integers: as stored, or None for a float weight.
        zero_point: of the integers; one for all, or shaped to broadcast.
        per_channel: whether the scale has several values.
    """

    tensor: str
    dtype: str
    values: NDArray[Any]
    integers: NDArray[Any] | None
    zero_point: Any
    per_channel: bool


def weight_of(wiring: Wiring, node: onnx.NodeProto) -> Held | None:
    """The constant weight of a node, dequantised if a dequantise node gives it."""
    if node.op_type not in (*WEIGHTED, *RECURRENT, *_INTEGERS) or len(node.input) < 2:
        return None
    name = node.input[_PLACE.get(node.op_type, 1)]
    if name in wiring.constants:
        values = wiring.array(name)
        return Held(name, values.dtype.name, values, None, 0, False)
    made = wiring.producer.get(name)
    if made is None or made.op_type != DEQUANTIZE:
        return None
    if not all(each in wiring.constants for each in made.input if each):
        return None
    return _dequantised(wiring, made)


def _dequantised(wiring: Wiring, node: onnx.NodeProto) -> Held:
    import numpy as np

    stored = wiring.array(node.input[0])
    scale = wiring.array(node.input[1])
    zero = wiring.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    axis = next((int(each.i) for each in node.attribute if each.name == "axis"), 1)
    blocks = next((int(each.i) for each in node.attribute if each.name == "block_size"), 0)
    if blocks:
        scale, zero = (np.repeat(each, blocks, axis) for each in (scale, zero))
        cut = tuple(slice(0, size) for size in stored.shape)
        scale, zero = scale[cut], zero[cut] if zero.ndim == stored.ndim else zero
    elif scale.size > 1:
        shape = [1] * stored.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
    wide = stored.astype(np.float32) - zero.astype(np.float32)
    return Held(node.input[0], stored.dtype.name, wide * scale, stored, zero, scale.size > 1)


def account(
    artifact: Wiring, node: onnx.NodeProto, reference: Wiring | None
) -> WeightAccount | None:
    """A node's weight, compared with the float one of the reference's node of the same name."""
    import numpy as np

    held = weight_of(artifact, node)
    if held is None:
        return None
    values = held.values
    # A recurrent layer has a second weight, for its own state.
    again = [name for name in node.input[2:3] if name in artifact.constants]
    names = [held.tensor, *(again if node.op_type in RECURRENT else [])]
    about = WeightAccount(
        name=held.tensor,
        dtype=held.dtype,
        bytes=sum(_stored_bytes(artifact.constants[name]) for name in names),
        range=(float(values.min()), float(values.max())),
        per_channel=held.per_channel,
    )
    if node.op_type not in WEIGHTED:
        return about
    wanted = _float_weight(reference, node)
    if wanted is not None and wanted.ndim == values.ndim:
        # Channels may have been added that only fill up what a kernel takes at a time.
        values = values[tuple(slice(0, size) for size in wanted.shape)]
    rows = _rows(values, node)
    exact = rows if wanted is None else _rows(wanted, node)
    reach = np.abs(exact).max(axis=1)
    live = reach > _DEAD * reach.max()
    noise = _noise(rows, exact) if held.integers is not None and wanted is not None else []
    clear = [db for db, alive in zip(noise[1:], live, strict=False) if alive and db is not None]
    peak = 0
    if held.integers is not None:
        peak = int(np.abs(held.integers.astype(np.int32) - held.zero_point).max())
    return WeightAccount(
        name=about.name,
        dtype=about.dtype,
        bytes=about.bytes,
        range=about.range,
        per_channel=about.per_channel,
        channels=len(rows),
        spread=float(reach.max() / np.median(reach[live])) if live.any() else 1.0,
        dead=int((~live).sum()),
        sqnr_db=noise[0] if noise else None,
        worst_channel_db=min(clear, default=None),
        poor_channels=sum(db < POOR_DB for db in clear),
        peak=peak,
    )


def _rows(values: NDArray[Any], node: onnx.NodeProto) -> NDArray[Any]:
    """(output channels, rest)."""
    import numpy as np

    axis = output_axis(node, values.ndim)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _noise(rows: NDArray[Any], wanted: NDArray[Any]) -> list[float | None]:
    """SQNR of all, then of each output channel; empty for weights of another shape."""
    import numpy as np

    if wanted.shape != rows.shape:
        return []
    exact = wanted.astype(np.float64)
    signal, noise = np.square(exact).sum(axis=1), np.square(exact - rows).sum(axis=1)
    total = decibels(float(signal.sum()), float(noise.sum()))
    return [total, *(decibels(float(s), float(n)) for s, n in zip(signal, noise, strict=True))]


def _float_weight(reference: Wiring | None, node: onnx.NodeProto) -> NDArray[Any] | None:
    if reference is None:
        return None
    same = next(
        (n for n in reference.nodes if n.op_type == node.op_type and title(n) == title(node)), None
    )
    held = weight_of(reference, same) if same is not None else None
    return held.values if held is not None and held.integers is None else None


def stored(wiring: Wiring) -> dict[str, Stored]:
    """Element type to the tensors on disk, scales and zero points included."""
    import onnx

    found: defaultdict[str, list[int]] = defaultdict(list)
    for tensor in wiring.model.graph.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        found[dtype].append(_stored_bytes(tensor))
    return {dtype: Stored(len(sizes), sum(sizes)) for dtype, sizes in sorted(found.items())}


def _stored_bytes(tensor: onnx.TensorProto) -> int:
    import math

    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    bits = 4 if dtype.name.endswith("int4") else 8 * dtype.itemsize
    return int(math.prod(tensor.dims)) * int(bits) // 8


def shared(wiring: Wiring) -> tuple[SharedWeight, ...]:
    """Float tensors that tie several nodes together, largest first."""
    import onnx

    total = sum(_stored_bytes(each) for each in wiring.model.graph.initializer) or 1
    scales = {name for n in wiring.nodes if n.op_type in BORDERS for name in n.input[1:]}
    found = []
    for tensor in wiring.model.graph.initializer:
        size = _stored_bytes(tensor)
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2 or size < _SMALL:
            continue
        if tensor.name in scales:
            continue
        copy, others = _copy_of(wiring, tensor.name)
        users = [*_takers(wiring, tensor.name), *others]
        if len(users) > 1:
            name = tensor.name
            found.append(SharedWeight(name, size, size / total, tuple(dict.fromkeys(users)), copy))
    return tuple(sorted(found, key=lambda each: -each.bytes))


def _takers(wiring: Wiring, tensor: str) -> list[str]:
    """Nodes that compute with a tensor, through borders, transposes and reshapes."""
    found = []
    for node in wiring.users.get(tensor, []):
        if node.op_type in (*BORDERS, "Transpose", "Reshape", "Identity", "Cast"):
            found += _takers(wiring, node.output[0])
        else:
            found.append(title(node))
    return found


def _copy_of(wiring: Wiring, tensor: str) -> tuple[str, list[str]]:
    """A quantised tensor with the values of a float one, as it stands or transposed, and the
    nodes that take it."""
    import numpy as np

    values = wiring.array(tensor)
    for node in wiring.nodes:
        if node.op_type != DEQUANTIZE or not all(n in wiring.constants for n in node.input if n):
            continue
        if wiring.constants[node.input[0]].dims[:] not in (
            list(values.shape),
            list(values.shape[::-1]),
        ):
            continue
        held = _dequantised(wiring, node).values
        for form in (held, held.T):
            if form.shape == values.shape and np.abs(form - values).max() <= np.ptp(values) / 100:
                return node.input[0], _takers(wiring, node.output[0])
    return "", []
