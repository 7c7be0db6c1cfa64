"""What an int8 QDQ graph computes on x86 without VNNI, emulated on any machine.

`vpmaddubsw` multiplies unsigned bytes by signed ones and adds neighbouring products in a signed
16-bit integer that saturates; only then are sums widened to 32 bits. ONNX Runtime's AVX2 kernels
go through the inner dimension of a matrix product in such pairs (of a convolution: tap by tap, and
channel by channel within a tap). Depthwise convolutions have kernels of their own, which widen
before they multiply, and so has the product of two unsigned activations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_compress.artifacts import Model, Observer, Split
from lepton_compress.compress.account import signal_to_noise
from lepton_compress.compress.products import Product, find_products
from lepton_compress.compress.stages import Stages

LOWEST, HIGHEST = -(2**15), 2**15 - 1
_BATCH = 4
_HELD = 1 << 22
"""Pair sums held at once."""
_TOP = 255
"""The largest unsigned activation."""


@dataclass(frozen=True)
class Saturation:
    """What saturating arithmetic does to a graph's outputs, against exact integer arithmetic.

    Attributes:
        samples: how many were computed.
        nodes: node to the share of its pair sums that saturated.
        exact: nodes whose kernels do not saturate.
        flips: share of predictions (largest value along the last axis of the first float output)
            that differ; None where that axis has one value.
        output_sqnr_db: of the first float output; None where nothing differs.
    """

    samples: int
    nodes: dict[str, float]
    exact: tuple[str, ...]
    flips: float | None
    output_sqnr_db: float | None

    def told(self, bits: int) -> str:
        """One line about 8-bit weights, for people; `bits` is what the artifact has."""
        worst = max(self.nodes.values(), default=0.0)
        effect = "" if self.flips is None else f" and flips {100 * self.flips:.2g} % of predictions"
        instead = " (hence 7 bits)" if bits == 7 else ""
        return (
            f"without VNNI, arithmetic with 8-bit weights saturates in up to {100 * worst:.2g} % "
            f"of a node's pair sums{effect} on {self.samples} samples{instead}"
        )


@dataclass
class _Count:
    saturated: int = 0
    pairs: int = 0


@dataclass
class _Arithmetic:
    """Multiplies as a processor does; counts where it saturates."""

    saturating: bool
    counts: dict[str, _Count] = field(default_factory=dict)

    def __call__(self, product: Product, given: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if not self.saturating or product.depthwise:
            return exact_matmul(given, weights)
        made, saturated = saturating_matmul(given, weights)
        count = self.counts.setdefault(product.name, _Count())
        count.saturated += saturated
        count.pairs += len(given) * -(-weights.shape[0] // 2) * weights.shape[1]
        return made


def check(model: Model, split: Split, samples: int, observer: Observer) -> Saturation:
    """Compute a QDQ graph with exact and with saturating arithmetic and compare.

    Args:
        model: a QDQ graph with 8-bit activations and signed 8-bit weights.
        split: inputs (samples, ...) in the order of the model's inputs.
        samples: at most this many.
    """
    products = find_products(model.value)
    stages = Stages(model, products)
    exact, saturating = _Arithmetic(False), _Arithmetic(True)
    count = min(samples, len(split))
    wanted: list[np.ndarray] = []
    given: list[np.ndarray] = []
    with observer.work("checking saturation", count) as progress:
        for feeds in split.batches(_BATCH, count):
            for arithmetic, outputs in ((exact, wanted), (saturating, given)):
                outputs.append(_first_float(stages.run(feeds, arithmetic)))
            progress.advance(len(next(iter(feeds.values()))))
    reference, other = np.concatenate(wanted), np.concatenate(given)
    return Saturation(
        samples=count,
        nodes={name: each.saturated / each.pairs for name, each in saturating.counts.items()},
        exact=tuple(each.name for each in products if each.depthwise),
        flips=_flips(reference, other),
        output_sqnr_db=signal_to_noise(reference, other),
    )


def exact_matmul(given: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(rows, inner) uint8 by (inner, columns) int8 as int32, exactly."""
    # Sums of products of bytes are exact in float64, and float64 has a fast kernel.
    return (given.astype(np.float64) @ weights.astype(np.float64)).astype(np.int32)


def saturating_matmul(given: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """(rows, inner) uint8 by (inner, columns) int8 as int32, neighbouring products of the inner
    dimension added in a saturating 16-bit integer; and how many of these sums saturated.

    Only pairs of weights of one sign that sum up to 129 or more in magnitude can saturate (255 *
    128 fits), so that the exact product is corrected for these few.
    """
    made = exact_matmul(given, weights)
    even, odd = (weights[start::2].astype(np.int32) for start in (0, 1))
    odd = np.pad(odd, ((0, len(even) - len(odd)), (0, 0)))
    reach = _TOP * np.maximum(even, 0) + _TOP * np.maximum(odd, 0)
    depth = _TOP * np.minimum(even, 0) + _TOP * np.minimum(odd, 0)
    pairs, columns = np.nonzero((reach > HIGHEST) | (depth < LOWEST))
    saturated = 0
    step = max(1, _HELD // max(1, len(given)))
    for start in range(0, len(pairs), step):
        pair, column = pairs[start : start + step], columns[start : start + step]
        # An odd pair beyond the inner dimension does not exist: its weight would be zero.
        second = np.minimum(2 * pair + 1, given.shape[1] - 1)
        sums = given[:, 2 * pair] * even[pair, column] + given[:, second] * odd[pair, column]
        excess = sums - np.clip(sums, LOWEST, HIGHEST)
        saturated += int(np.count_nonzero(excess))
        np.subtract.at(made.T, column, excess.T)
    return made, saturated


def _first_float(outputs: dict[str, Any]) -> np.ndarray:
    arrays = list(outputs.values())
    found: np.ndarray = next((each for each in arrays if each.dtype.kind == "f"), arrays[0])
    return found


def _flips(reference: np.ndarray, given: np.ndarray) -> float | None:
    if reference.ndim < 2 or reference.shape[-1] < 2:
        return None
    return float((reference.argmax(axis=-1) != given.argmax(axis=-1)).mean())
