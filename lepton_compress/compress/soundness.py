"""Whether the calibration data can be trusted: how much the ranges depend on which samples were
drawn, which channels never vary, and whether the evaluation data stay within what was seen.

The first is told from halves of the data, whose statistics the one pass has kept apart: of half
the samples a range varies by a spread, of all of them by about that over the square root of two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compress.artifacts import Model, Observer, Split
from lepton_compress.compress.calibration import (
    METHODS,
    Calibration,
    chosen_ranges,
    observe,
    symmetric,
    with_zero,
)
from lepton_compress.compress.observed import PARTS, Observed, Range, coarse, merged

if TYPE_CHECKING:
    from lepton_compress.compress.quantize import Quantize

TOLERATED = 0.08
"""Share of a range's width by which it may depend on the samples, in the median tensor."""
EVALUATED = 32
"""Evaluation samples that are compared, drawn evenly."""
LEFT = 0.25
"""Share of a range's width by which evaluation data must leave it to count."""
MANY = 0.5
"""Share of the tensors from which on it is no matter of single ones."""
NARROW = 0.5
"""Share of a range's width below which evaluation data use too little of it."""
_NAMED = 5


def account(
    model: Model,
    calibrated: Calibration,
    evaluation: Split | None,
    *,
    threads: int,
    observer: Observer,
) -> tuple[dict[str, Any], list[str]]:
    """Statistics and notes about the calibration data.

    Args:
        model: the float graph.
        calibrated: with what was observed.
        evaluation: inputs that the model takes, if they are to be compared; they decide about
            nothing.
    """
    spread = spreads(calibrated.observed, calibrated.method)
    flat = constant_channels(calibrated.observed)
    statistics: dict[str, Any] = {"range_spread": spread, "constant_channels": flat}
    notes = _too_few(spread, calibrated.samples)
    for name, channels in list(flat.items())[:_NAMED]:
        count = len(calibrated.observed[name].lows)  # type: ignore[arg-type]
        listed = ", ".join(map(str, channels[:_NAMED])) + (", ..." if channels[_NAMED:] else "")
        notes.append(
            f"{len(channels)} of {count} channels of {name} never vary on the calibration data "
            f"({listed})"
        )
    if len(flat) > _NAMED:
        notes.append(f"{len(flat) - _NAMED} more tensors have channels that never vary")
    if evaluation is not None:
        statistics["evaluation"], told = _evaluated(
            model, calibrated, evaluation, threads, observer
        )
        notes += told
    return statistics, notes


def spreads(observed: Mapping[str, Observed], method: str) -> dict[str, float | None]:
    """Tensor to how far its range differs between halves of the calibration data, as a share of
    its width; None where there are too few batches, or it never varies.

    Three ways to part eight parts in halves, such that each two share half of their parts.
    """
    found: dict[str, float | None] = {}

    def chosen(seen: Observed) -> Range:
        return METHODS[method](coarse(seen))

    for name, each in observed.items():
        if len(each.parts) < PARTS or each.low == each.high:
            found[name] = None
            continue
        halves = [
            with_zero(chosen(merged([p for i, p in enumerate(each.parts) if i & bit == s])))
            for bit in (1, 2, 4)
            for s in (0, bit)
        ]
        ends = np.ptp(np.array(halves), axis=0)
        low, high = with_zero(chosen(each))
        found[name] = round(float(ends.max() / (high - low)), 4)
    return found


def resample(observed: Mapping[str, Observed], seed: int) -> dict[str, Observed]:
    """What would have been seen of a resampled calibration set: the parts drawn with replacement,
    the same ones for every tensor."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(PARTS, size=PARTS)
    return {
        name: merged([each.parts[index % len(each.parts)] for index in drawn])
        for name, each in observed.items()
    }


def resampled(
    calibrated: Calibration, params: Quantize, noise: Callable[[Mapping[str, Range]], float | None]
) -> list[float | None]:
    """Signal to quantisation noise of the outputs, in decibels, for each of `params.resamples`
    calibration sets drawn from this one with replacement.

    Args:
        noise: of the outputs, quantised over the ranges given.
    """
    found = []
    for seed in range(params.resamples):
        drawn = resample(calibrated.observed, seed)
        ranges = chosen_ranges(drawn, calibrated.method, calibrated.passed)
        if params.symmetric:
            ranges = {name: symmetric(each) for name, each in ranges.items()}
        found.append(noise(ranges))
    return found


def told_of(resampled: Sequence[float | None], own: float | None) -> list[str]:
    """One line about the resampled calibrations; none where they have no number."""
    known = [each for each in resampled if each is not None]
    if not known or own is None:
        return []
    ends = f"{min(known):.1f} to {max(known):.1f} dB (with the whole set {own:.1f} dB)"
    return [f"with {len(known)} resampled calibration sets the outputs keep {ends}"]


def constant_channels(observed: Mapping[str, Observed]) -> dict[str, list[int]]:
    """Tensor to the channels that never vary, of the tensors that layers take and that vary."""
    found = {}
    for name, each in observed.items():
        if each.lows is not None and each.highs is not None and each.low != each.high:
            flat = np.flatnonzero(each.lows == each.highs).tolist()
            if flat:
                found[name] = flat
    return found


def _too_few(spread: Mapping[str, float | None], samples: int) -> list[str]:
    known = {name: each for name, each in spread.items() if each is not None}
    if not known:
        few = samples < PARTS and bool(spread)
        return [f"{samples} calibration samples are too few to tell how far ranges vary"] * few
    typical = float(np.median(list(known.values()))) / np.sqrt(2)
    if typical <= TOLERATED:
        return []
    worst = max(known, key=lambda name: known[name])
    needed = int(np.ceil(samples * (typical / TOLERATED) ** 2))
    said = (
        f"{samples} calibration samples are too few: with others the range of the median tensor "
        f"would differ by about {100 * typical:.0f} % of its width, that of {worst} by "
        f"{100 * known[worst] / np.sqrt(2):.0f} %; at least {needed} would bring it under "
        f"{100 * TOLERATED:.0f} % (estimated from halves of the data)"
    )
    return [said]


def _evaluated(
    model: Model, calibrated: Calibration, evaluation: Split, threads: int, observer: Observer
) -> tuple[dict[str, Any], list[str]]:
    """How evaluation data compare with what calibration data held."""
    rows = np.unique(np.linspace(0, len(evaluation) - 1, EVALUATED).astype(int))
    drawn = Split({name: array[rows] for name, array in evaluation.inputs.items()})
    seen = observe(
        model,
        list(calibrated.observed),
        drawn,
        histogram=False,
        samples=EVALUATED,
        threads=threads,
        observer=observer,
    )
    over, width = {}, {}
    for name, (low, high) in calibrated.seen.items():
        span, each = high - low, seen[name]
        if span:
            over[name] = round(max(low - each.low, each.high - high, 0.0) / span, 4)
            width[name] = (each.high - each.low) / span
    left = {name: share for name, share in over.items() if share > LEFT}
    used = round(float(np.median(list(width.values()))), 4) if width else None
    found = {"samples": len(rows), "left": left, "of": len(over), "median_width": used}
    notes = []
    if left and len(left) >= MANY * len(over):
        worst = max(left, key=lambda name: left[name])
        notes.append(
            f"evaluation data leave what calibration data held in {len(left)} of {len(over)} "
            f"tensors, {worst} by {100 * left[worst]:.0f} % of its width: the calibration data are "
            "unlike them, or too few"
        )
    elif used is not None and used < NARROW:
        notes.append(
            f"evaluation data use {100 * used:.0f} % of the width that calibration data held, in "
            "the median tensor: the calibration data are unlike them (normalised differently, say)"
        )
    return found, notes
