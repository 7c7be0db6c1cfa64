"""Ranges of a graph's activations, in one streaming pass over calibration data.

Every method sees each batch once and keeps a histogram of fixed size for each tensor, so that
memory does not grow with the number of samples and no method costs much more than min-max.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime import OrtValue

from lepton_compress.artifacts import Model, Observer, Split
from lepton_compress.compress.observed import DRAWN, ENOUGH, LEAST, PARTS, Observed, Range
from lepton_compress.compress.session import observing
from lepton_compress.errors import InputError
from lepton_compress.graph import value_specs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BYTES = 32 * 2**20
"""Activations held at once decide the batch size."""

_PASS = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_CLIPPING = ("Relu", "Clip")
_CLIPPED = 1e-3
"""Share of values that the entropy method may clip. Where values gather at the ends of their range,
as after a clipping activation, divergence alone would clip most of them."""
_NARROWEST = 1e-30
"""Below this, a 255th of the range is no normal float32."""
_SHARES = np.linspace(0.2, 1.0, 81)
_COARSE = 8


@dataclass(frozen=True)
class Calibration:
    """Ranges, and where they come from.

    Attributes:
        method: a name in `METHODS`.
        samples: how many were seen.
        ranges: tensor to the range to quantise over; holds zero.
        seen: tensor to its smallest and largest value.
        constant: tensors that never varied.
        observed: tensor to all that was seen of it.
        passed: tensor to the one that it takes its range from.
    """

    method: str
    samples: int
    ranges: dict[str, Range]
    seen: dict[str, Range]
    constant: tuple[str, ...]
    observed: Mapping[str, Observed] = field(default_factory=dict)
    passed: Mapping[str, str] = field(default_factory=dict)


def calibrate(
    model: Model,
    split: Split,
    *,
    method: str,
    operators: Collection[str],
    keep: Collection[str] = (),
    samples: int,
    threads: int,
    observer: Observer,
) -> Calibration:
    """Ranges of the float activations that `operators` take and give.

    Args:
        model: a graph.
        split: calibration data; inputs (samples, ...).
        keep: nodes that stay in float.
        samples: at most this many.

    Raises:
        InputError: an activation is NaN or infinite.
    """
    wanted, passed = tensors(model.value, operators, keep)
    observed = observe(
        model,
        wanted,
        split,
        histogram=method not in ("minmax", "moving_average"),
        samples=samples,
        threads=threads,
        observer=observer,
    )
    return Calibration(
        method,
        min(samples, len(split)),
        chosen_ranges(observed, method, passed),
        {name: (each.low, each.high) for name, each in observed.items()},
        tuple(name for name, each in observed.items() if each.low == each.high),
        observed,
        passed,
    )


def chosen_ranges(
    observed: Mapping[str, Observed], method: str, passed: Mapping[str, str]
) -> dict[str, Range]:
    """The range of every tensor, of those included that take it from another."""
    ranges = {name: with_zero(METHODS[method](each)) for name, each in observed.items()}
    for name in passed:
        source = name
        while source in passed:
            source = passed[source]
        if source in ranges:
            ranges[name] = ranges[source]
    return ranges


def observe(
    model: Model,
    names: list[str],
    split: Split,
    *,
    histogram: bool,
    samples: int,
    threads: int,
    observer: Observer,
) -> dict[str, Observed]:
    """What the float values `names` of a graph hold over at most `samples` samples.

    Raises:
        InputError: one is NaN or infinite.
    """
    axes = _channels(model.value)
    observed = {name: Observed(axis=axes.get(name)) for name in names}
    seen = 0
    with observer.work("calibrating", min(samples, len(split))) as progress:
        drawn = DRAWN

        def see(batch: Mapping[str, NDArray[Any]], offset: int, index: int) -> None:
            for name, array in batch.items():
                observed[name].see(array, offset, index, histogram=histogram, drawn=drawn)

        # One batch is looked at while the next one is computed.
        with ThreadPoolExecutor(1) as aside:
            looking: Future[None] | None = None
            for index, (count, batch) in enumerate(_run(model, names, split, samples, threads)):
                if looking is not None:
                    looking.result()
                else:  # the first batch tells how many there are
                    batches = -(-min(samples, len(split)) // count)
                    drawn = min(DRAWN, max(LEAST, ENOUGH // batches))
                looking = aside.submit(see, batch, seen, index)
                seen += count
                progress.advance(count)
            if looking is not None:
                looking.result()
    for name, each in observed.items():
        each.gather()
        if not np.isfinite([each.low, each.high]).all():
            raise InputError(f"{name} is NaN or infinite on some sample", where="calibration data")
    return observed


def symmetric(chosen: Range) -> Range:
    """The range widened to reach as far below zero as above, so that zero is its middle."""
    reach = max(abs(chosen[0]), abs(chosen[1]))
    return -reach, reach


def _channels(graph: onnx.ModelProto) -> dict[str, int]:
    """Value to the axis of its channels, of those that a layer with weights takes."""
    constant = {tensor.name for tensor in graph.graph.initializer}
    layers = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}
    dims = {name: len(each.shape) for name, each in value_specs(graph).items()}
    return {
        node.input[0]: layers[node.op_type] % dims[node.input[0]]
        for node in graph.graph.node
        if node.op_type in layers and node.input[1] in constant and dims.get(node.input[0], 0) > 1
    }


def tensors(
    graph: onnx.ModelProto, operators: Collection[str], keep: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """Tensors to observe, and those that take their range from another."""
    specs = value_specs(graph)
    constant = {tensor.name for tensor in graph.graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    wanted: dict[str, None] = {}
    passed: dict[str, str] = {}
    for node in graph.graph.node:
        if node.op_type not in operators or node.name in keep:
            continue
        if node.op_type in _PASS:
            passed[node.output[0]] = node.input[0]
        # What a clipping node alone takes is never stored: it is quantised as the clipped value.
        after = users.get(node.output[0], []) if node.op_type not in _CLIPPING else []
        if after and all(each.op_type in _CLIPPING and each.name not in keep for each in after):
            passed[node.output[0]] = after[0].output[0]
        for name in (*node.input, *node.output):
            if name in specs and specs[name].dtype == "float32" and name not in constant:
                wanted[name] = None
    return [name for name in wanted if name not in passed], passed


def _run(
    model: Model, wanted: list[str], split: Split, samples: int, threads: int
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """The wanted values, batch by batch, with the number of samples of each batch."""
    session = observing(model.value, wanted, threads)
    fed = [spec.name for spec in model.inputs]
    computed = [name for name in wanted if name not in fed]
    data = split.named(fed)

    def activations(feeds: Mapping[str, NDArray[Any]]) -> tuple[int, dict[str, NDArray[Any]]]:
        # Without names the runtime would give every output.
        given = {name: OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        values = session.run_with_ort_values(computed, given) if computed else []
        # Not copied: that would take as long as a third of computing them.
        arrays = [np.from_dlpack(each) for each in values]
        made = dict(zip(computed, arrays, strict=True))
        count = len(next(iter(feeds.values())))
        return count, made | {name: feeds[name] for name in wanted if name in fed}

    _, first = activations(next(data.batches(1)))
    size = max(1, sum(array.nbytes for array in first.values()))
    # As many batches as parts, where there are enough samples.
    most = max(1, min(32, BYTES // size, min(samples, len(split)) // PARTS))
    yield from map(activations, data.batches(most, samples))


def with_zero(chosen: Range) -> Range:
    """Zero must be exact: padding and clipping produce it."""
    low, high = float(min(chosen[0], 0.0)), float(max(chosen[1], 0.0))
    return (low, high) if high - low > _NARROWEST else (low, low + 1e-6)


def _minmax(seen: Observed) -> Range:
    return seen.low, seen.high


def _moving_average(seen: Observed) -> Range:
    return seen.average or (seen.low, seen.high)


def _percentile(seen: Observed) -> Range:
    """Leaves out the outermost 0.001 % on either side."""
    bins = len(seen.counts)
    edges = np.linspace(-seen.limit, seen.limit, bins + 1)
    share = np.cumsum(seen.counts) / seen.counts.sum()
    low = edges[np.searchsorted(share, 1e-5)]
    high = edges[min(int(np.searchsorted(share, 1 - 1e-5)) + 1, bins)]
    return max(float(low), seen.low), min(float(high), seen.high)


def _narrowed(seen: Observed, cost: Callable[[float, float], float]) -> Range:
    """The range of least cost that keeps from 20 % to all of each side: both sides together first,
    then each alone, which matters for lopsided tensors."""
    wide_low, wide_high = min(seen.low, 0.0), max(seen.high, 0.0)
    best = _best_share(lambda share: cost(wide_low * share, wide_high * share))
    low, high = wide_low * best, wide_high * best
    if low < 0 < high:
        high = wide_high * _best_share(lambda share: cost(low, wide_high * share))
        low = wide_low * _best_share(lambda share: cost(wide_low * share, high))
    return low, high


def _best_share(cost: Callable[[float], float]) -> float:
    """The share of least cost: a coarse search, then a fine one around what it found. Of equals
    the largest."""
    coarse = range(len(_SHARES) - 1, -1, -_COARSE)
    middle = min(coarse, key=lambda index: cost(float(_SHARES[index])))
    around: list[float] = _SHARES[max(0, middle - _COARSE + 1) : middle + _COARSE].tolist()[::-1]
    return min(around, key=cost)


def _mse(seen: Observed) -> Range:
    """Least mean squared error of quantising the histogram to 256 levels."""
    centres, weights = _occupied(seen)

    def error(low: float, high: float) -> float:
        step = max((high - low) / 255, 1e-30)
        zero = np.round(-low / step)
        rounded = (np.clip(np.round(centres / step) + zero, 0, 255) - zero) * step
        return float(np.square(rounded - centres) @ weights)

    return _narrowed(seen, error)


def _entropy(seen: Observed) -> Range:
    """Least Kullback-Leibler divergence between the histogram and its quantised form (Migacz,
    "8-bit inference with TensorRT", 2017)."""
    centres, weights = _occupied(seen)

    half = seen.limit / len(
        seen.counts
    )  # a value stands for its bin, whose middle may lie beyond the range

    def divergence(low: float, high: float) -> float:
        inside = (centres >= low - half) & (centres <= high + half)
        if not inside.any():
            return np.inf
        spread = (np.clip(centres, low, high) - low) / max(high - low, 1e-30) * 256
        level = np.minimum(spread.astype(int), 255)
        # Within a level the quantised form is flat over the bins that hold something.
        mass = np.bincount(level[inside], weights[inside], 256)
        kept = np.bincount(level[inside], minlength=256)
        flat = np.where(inside, mass[level] / np.maximum(kept[level], 1), 0.0)
        # What lies outside is clipped onto the outermost bins of the reference alone, so that
        # clipping much costs much.
        reference = np.where(inside, weights, 0.0)
        ends = np.flatnonzero(inside)[[0, -1]]
        reference[ends[0]] += weights[centres < low - half].sum()
        reference[ends[1]] += weights[centres > high + half].sum()
        if weights[~inside].sum() > _CLIPPED:
            return np.inf
        held = reference > 0
        flat = np.maximum(flat / flat.sum(), 1e-12)
        return float((reference[held] * np.log(reference[held] / flat[held])).sum())

    return _narrowed(seen, divergence)


def _occupied(seen: Observed) -> tuple[Floats, Floats]:
    """Centres and shares of the bins that hold something."""
    held = seen.counts > 0
    return seen.centres()[held], seen.counts[held] / seen.counts.sum()


METHODS: dict[str, Callable[[Observed], Range]] = {
    "minmax": _minmax,
    "moving_average": _moving_average,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
"""How a range is chosen from what was seen."""
