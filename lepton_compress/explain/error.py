"""Signal to quantisation noise, layer by layer: the artifact against its float reference on the
same inputs, and each rounding of an activation by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lepton_compress.accounts import RangeAccount
from lepton_compress.explain.observe import Observed, batches
from lepton_compress.explain.wiring import DEQUANTIZE, QUANTIZE, Pair, Wiring, channel_axis

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from lepton_compress.artifacts import Split

    Values = Mapping[str, NDArray[Any]]

_CALIBRATED = 128
"""Calibration samples to look at."""
_EXACT = 120.0
"""Decibels that stand for no difference that float32 could show."""


def decibels(signal: float, noise: float) -> float | None:
    """10 log10 of their ratio, at most `_EXACT`; None without a signal."""
    if not signal or not math.isfinite(signal + noise):
        return None
    return min(_EXACT, 10 * math.log10(signal / noise)) if noise else _EXACT


@dataclass
class Noise:
    """Energy of a tensor and of the difference to it, summed over batches."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Another batch. Tensors of different shapes do not belong together and are left out."""
        import numpy as np

        if reference.shape == other.shape:
            wide = reference.astype(np.float64)
            self.signal += float(np.square(wide).sum())
            self.noise += float(np.square(wide - other).sum())

    @property
    def db(self) -> float | None:
        """Signal to noise."""
        return decibels(self.signal, self.noise)


@dataclass
class Rounding:
    """What one pair does to the values that come, by channel, summed over batches."""

    pair: Pair
    low: NDArray[Any] | None = None
    high: NDArray[Any] | None = None
    signal: NDArray[Any] | None = None
    noise: NDArray[Any] | None = None
    clipped: float = 0.0
    beyond: int = 0
    count: int = 0
    calibrated: list[float] = field(default_factory=list)
    calibrated_beyond: int = 0
    calibrated_count: int = 0

    def add(self, values: NDArray[Any]) -> None:
        """Another batch of the float reference's values."""
        import numpy as np

        axis = channel_axis(values.ndim)
        flat = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64)
        pair = self.pair
        steps = np.round(flat / pair.scale) + pair.zero_point
        rounded = (np.clip(steps, pair.lowest, pair.highest) - pair.zero_point) * pair.scale
        error = np.square(flat - rounded)
        outside = _outside(flat, pair)
        low, high = flat.min(axis=1), flat.max(axis=1)
        energy, noise = np.square(flat).sum(axis=1), error.sum(axis=1)
        if self.low is None or self.high is None:
            self.low, self.high, self.signal, self.noise = low, high, energy, noise
        else:
            self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
            self.signal, self.noise = self.signal + energy, self.noise + noise
        self.clipped += float(error[outside].sum())
        self.beyond += int(outside.sum())
        self.count += flat.size

    def calibrate(self, values: NDArray[Any]) -> None:
        """A batch of the same tensor on calibration samples."""
        held = [*self.calibrated, float(values.min()), float(values.max())]
        self.calibrated = [min(held), max(held)]
        self.calibrated_beyond += int(_outside(values, self.pair).sum())
        self.calibrated_count += values.size

    def account(self, inputs: set[str]) -> RangeAccount | None:
        """What was seen; None if nothing was."""
        import numpy as np

        if self.low is None or self.high is None or self.signal is None or self.noise is None:
            return None
        reach = np.maximum(abs(self.low), abs(self.high))
        live = reach > 0
        by_channel = [
            db for s, n in zip(self.signal, self.noise, strict=True) if (db := decibels(s, n))
        ]
        total = float(self.noise.sum())
        known = len(self.calibrated) == 2
        return RangeAccount(
            tensor=self.pair.tensor,
            dtype=self.pair.dtype,
            range=self.pair.range,
            seen=(float(self.low.min()), float(self.high.max())),
            beyond=self.beyond / self.count,
            calibrated=(self.calibrated[0], self.calibrated[1]) if known else None,
            beyond_calibrated=self.calibrated_beyond / self.calibrated_count if known else None,
            sqnr_db=decibels(float(self.signal.sum()), total),
            clipping=self.clipped / total if total else 0.0,
            channels=len(reach),
            spread=float(reach.max() / np.median(reach[live])) if live.any() else 1.0,
            median_channel_db=float(np.median(by_channel)) if by_channel else None,
            constant=int((self.low == self.high).sum()),
            largest_channel=int(reach.argmax()),
            is_input=self.pair.tensor in inputs,
        )


def _outside(values: NDArray[Any], pair: Pair) -> Any:
    """Which values lie outside a range by more than one step, which rounding alone may do."""
    low, high = pair.range
    return (values < low - pair.scale) | (values > high + pair.scale)


@dataclass(frozen=True)
class Compared:
    """What one pass over the samples found.

    Attributes:
        samples: how many were run.
        layers: tensor of the artifact to the SQNR of what the nodes behind it take.
        roundings: by rounded tensor.
        outputs: SQNR of the outputs as the artifact really runs, all fused.
        arithmetic: the same against the artifact computed node by node.
        changed: share of samples with another largest output; None where outputs are no scores.
        first: the reference's activations on the first batch, by the artifact's tensor.
    """

    samples: int
    layers: dict[str, float | None]
    roundings: dict[str, Rounding]
    outputs: float | None
    arithmetic: float | None
    changed: float | None
    first: dict[str, NDArray[Any]]


def compare(
    artifact: Wiring,
    reference: Wiring,
    run: Any,
    evaluation: Split,
    calibration: Split | None,
    samples: int,
) -> Compared:
    """Run both on the same samples.

    Args:
        artifact, reference: the quantised graph and its float counterpart.
        run: a function from feeds to the artifact's outputs by name, as the runtime really runs it.
        evaluation: samples to compare on; inputs (samples, ...).
        calibration: samples that the ranges come from; their values' ranges are told too.
        samples: at most this many of either.

    Raises:
        InputError: a graph does not run, or does not accept the data.
    """
    names = matched(artifact, reference)
    plain = Observed(reference.model, list(names.values()), fused=True)
    rounded = Observed(artifact.model, [artifact.after(name) for name in names])
    roundings = {name: Rounding(pair) for name, pair in artifact.pairs.items() if name in names}
    layers = {name: Noise() for name in names}
    ends, arithmetic, changed = Noise(), Noise(), _Changes()
    first: dict[str, NDArray[Any]] = {}
    count = 0
    for feeds in batches(artifact.model, evaluation, samples, (plain, rounded)):
        wanted, given, real = plain.run(feeds), rounded.run(feeds), run(feeds)
        for name, other in names.items():
            if other in wanted and artifact.after(name) in given:
                layers[name].add(wanted[other], given[artifact.after(name)])
                first.setdefault(name, wanted[other])
        for name, rounding in roundings.items():
            if names[name] in wanted:
                rounding.add(wanted[names[name]])
        for name in real.keys() & wanted.keys():
            ends.add(wanted[name], real[name])
            arithmetic.add(given[name], real[name])
            changed.add(wanted[name], real[name])
        count += len(next(iter(feeds.values())))
    _calibrated(plain, names, roundings, reference, calibration, samples)
    return Compared(
        count,
        {name: noise.db for name, noise in layers.items()},
        roundings,
        ends.db,
        arithmetic.db,
        changed.share,
        first,
    )


def _calibrated(
    plain: Observed,
    names: Mapping[str, str],
    roundings: Mapping[str, Rounding],
    reference: Wiring,
    calibration: Split | None,
    samples: int,
) -> None:
    """Let each rounding see the calibration samples too."""
    if calibration is None:
        return
    for feeds in batches(reference.model, calibration, max(samples, _CALIBRATED), (plain,)):
        values = plain.run(feeds)
        for name, rounding in roundings.items():
            if names[name] in values:
                rounding.calibrate(values[names[name]])


class _Changes:
    """How many samples have their largest output elsewhere."""

    def __init__(self) -> None:
        self.count, self.other = 0, 0

    def add(self, reference: np.ndarray, other: np.ndarray) -> None:
        if reference.ndim > 1 and reference.shape[-1] > 1 and reference.shape == other.shape:
            differs = reference.argmax(axis=-1) != other.argmax(axis=-1)
            self.count, self.other = self.count + differs.size, self.other + int(differs.sum())

    @property
    def share(self) -> float | None:
        return self.other / self.count if self.count else None


def matched(artifact: Wiring, reference: Wiring) -> dict[str, str]:
    """Tensor of the artifact to the reference's tensor of the same name, before or after its
    pair: a quantiser may rename what it wraps."""
    held = {*reference.producer, *reference.inputs}
    found: dict[str, str] = {}
    wanted = [name for node in artifact.computing() for name in node.output if name]
    for name in dict.fromkeys([*artifact.pairs, *wanted]):
        # After it first: where a Relu was merged into the pair, the values differ.
        same = next((each for each in (artifact.after(name), name) if each in held), None)
        if same is not None:
            found[name] = same
    return found


def coverage(artifact: Wiring, reference: Wiring, names: Sequence[str]) -> float:
    """Share of the tensors `names` that the reference has too."""
    found = matched(artifact, reference)
    return sum(name in found for name in names) / max(1, len(names))


def without_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float: its activations are not rounded, its weights are the dequantised
    ones.

    A quantiser drops a Relu whose work the rounding does. It stands here again wherever a range
    begins at zero, and a Clip where it ends at six as well.
    """
    import onnx

    wiring = Wiring(model)
    rounded = {
        node.output[0]: wiring.pairs[node.input[0]]
        for node in wiring.nodes
        if node.op_type == QUANTIZE and node.input[0] in wiring.pairs
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    padded = set[str]()
    for node in wiring.nodes:
        if node.output[0] in rounded:
            continue
        pair = rounded.get(node.input[0]) if node.input else None
        if pair and node.op_type == "Pad":
            # Channels that fill up what a kernel takes at a time; in float they are zeros.
            given = f"{node.output[0]}_unrounded"
            copy.graph.node.append(_unrounded(copy, pair, given))
            again = onnx.helper.make_node("Pad", [given, node.input[1]], node.output, node.name)
            copy.graph.node.append(again)
            padded.add(node.output[0])
        elif pair and node.op_type == DEQUANTIZE:
            copy.graph.node.append(_unrounded(copy, pair, node.output[0]))
        elif node.op_type == DEQUANTIZE and node.input[0] in padded:
            same = onnx.helper.make_node("Identity", node.input[:1], node.output, node.name)
            copy.graph.node.append(same)
        else:
            copy.graph.node.append(node)
    return copy


def _unrounded(model: onnx.ModelProto, pair: Pair, output: str) -> onnx.NodeProto:
    """What a pair does beside rounding."""
    import numpy as np
    import onnx

    low, high = pair.range
    given, operator = [pair.tensor], "Relu" if low == 0 else "Identity"
    if low == 0 and abs(high - _SIX) < pair.scale:
        names = [f"{output}_lowest", f"{output}_highest"]
        for name, end in zip(names, (0.0, _SIX), strict=True):
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(np.array(end, np.float32), name)
            )
        given, operator = [*given, *names], "Clip"
    return onnx.helper.make_node(operator, given, [output], f"{output}/{operator}")


_SIX = 6.0
"""Where a Relu6 ends."""
