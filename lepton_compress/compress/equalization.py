"""Cross-layer equalisation of an ONNX graph (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", 2019), on whole regions of values rather than pairs of layers, so
that residual connections and several consumers need no case of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compress.artifacts import Model, Observer, Split, StepOutcome
from lepton_compress.compress import clips, facts, high_biases, noise
from lepton_compress.compress.facts import Facts
from lepton_compress.compress.prepare import prepare
from lepton_compress.compress.regions import INPUT, LINEAR, Region, channels, region_of
from lepton_compress.errors import PluginError
from lepton_compress.load.forms import duplicate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lepton_compress.compress.equalize import Equalize

    Arrays = dict[str, NDArray[Any]]

EVEN = 1e-3
"""A largest change of a factor, as a logarithm, at which a round is the last."""
MOST = 1e4
"""The largest factor, and its reciprocal the smallest: a dead channel is not blown up."""
_SHOWN = 4
_TINY = 1e-7
"""Share of the largest weight below which a channel counts as dead."""
EXACT = 1e-3
"""Largest relative difference of the outputs that rounding of float32 can explain."""


def equalize(
    model: Model, calibration: Split, params: Equalize, *, threads: int, observer: Observer
) -> StepOutcome:
    """The equalised graph of a float graph.

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
        PluginError: the outputs changed.
    """
    ready = prepare(model, calibration, params.keep, "equalize")
    made, notes = duplicate(ready.model), [*ready.notes]
    exact = True
    if params.clips == "unreached":
        replaced = clips.replace(made, ready.split, params.keep, threads)
        exact &= not replaced
        notes += [
            f"{name} is a Relu now: on calibration data nothing comes near its bound"
            for name in replaced
        ]
    graph = made.value.graph
    copies = facts.apart(graph)
    known = facts.facts_of(made, ready.split)
    found, obstacles = _regions(made, known, params.keep)
    arrays: Arrays = dict(known.constants)
    factors, rounds = _even(found, arrays, params.iterations, observer)
    moved = [i for i, each in enumerate(factors) if np.abs(np.log(each)).max() > EVEN]
    if not moved and not params.absorb_biases and exact:
        return StepOutcome(model, changed=False, notes=(_why_not(found, obstacles), *notes))
    if not moved:
        arrays = dict(known.constants)
    facts.store(graph, known, arrays, copies)
    absorbed = {}
    if params.absorb_biases:
        absorbed = high_biases.absorb(made, ready.split, params.keep, params.samples, threads)
        exact &= not absorbed
        notes += [_told(node, each) for node, each in absorbed.items()]
    if not moved and not absorbed and exact:
        return StepOutcome(model, changed=False, notes=(_why_not(found, obstacles), *notes))
    statistics = {
        "rounds": rounds,
        "pairs": [_pair(found[i], known.constants, arrays, factors[i]) for i in moved],
        "held": obstacles,
        "absorbed": absorbed,
        **_noise(ready.model, made, known, found, ready.split, params.samples, threads),
    }
    notes += _worst(statistics)
    apart = noise.difference(ready.model, made, ready.split, params.samples, threads)
    statistics["difference"] = apart
    if exact and apart is not None and apart > EXACT:
        raise PluginError(f"equalize changed the outputs by {apart:.2g} of their largest")
    notes += [f"not equalised: {_listed(obstacles)}"] if obstacles else []
    return StepOutcome(made, changed=True, statistics=statistics, notes=tuple(notes))


def _regions(
    model: Model, known: Facts, keep: Collection[str]
) -> tuple[list[Region], dict[str, str]]:
    """Regions with layers on both sides, and values between two layers with what holds them."""
    found: list[Region] = []
    obstacles: dict[str, str] = {}
    seen: set[str] = set()
    for node in model.value.graph.node:
        axis = channels(known, node)
        if axis is None or node.input[0] in seen:
            continue
        region = region_of(known, node.input[0], axis)
        seen.update(region.values)
        makers = [each for each in region.sites if each.side == "makes" and each.weighs]
        region = _between_layers(region, keep)
        if region.size:
            found.append(region)
        elif makers or INPUT not in region.obstacles:
            others = [
                f"{each.node.name} ({each.node.op_type})"
                for each in region.sites
                if each.side == "makes" and each.node.op_type not in LINEAR
            ]
            obstacles[node.input[0]] = ", ".join([*region.obstacles, *others][:2])
    return found, obstacles


def _between_layers(region: Region, keep: Collection[str]) -> Region:
    """The region with only those labels free that layers alone make and take."""
    good = np.ones(region.size + 1, bool)
    for side in ("makes", "takes"):
        met = np.zeros(region.size + 1, bool)
        for site in region.sites:
            if site.side != side:
                continue
            if site.node.op_type not in LINEAR or site.node.name in keep:
                good[site.labels] = False
            elif site.weighs:
                met[site.labels] = True
        good &= met
    good[0] = False
    kept = [name for name in keep if name in {site.node.name for site in region.sites}]
    named = tuple(f"{name} (named in `keep`)" for name in kept)
    return region.only(good, named)


def _even(
    found: list[Region], arrays: Arrays, most: int, observer: Observer
) -> tuple[list[NDArray[np.float64]], int]:
    """Factors of each region, applied to the arrays, and the number of rounds."""
    factors = [np.ones(each.size + 1) for each in found]
    with observer.work("equalising", most) as progress:
        for count in range(1, most + 1):
            change = 0.0
            for region, total in zip(found, factors, strict=True):
                made, taken = (region.spread(arrays, side) for side in ("makes", "takes"))
                alive = (made > _TINY * made.max()) & (taken > _TINY * taken.max())
                alive[0] = False
                step = np.ones(region.size + 1)
                step[alive] = np.sqrt(made[alive] / taken[alive])
                step = np.clip(total * step, 1 / MOST, MOST) / total
                region.scale(arrays, step)
                total *= step
                change = max(change, float(np.abs(np.log(step)).max()))
            progress.advance()
            if change < EVEN:
                return factors, count
    return factors, most


def _pair(
    region: Region, before: Mapping[str, Any], after: Mapping[str, Any], factors: NDArray[Any]
) -> dict[str, Any]:
    def worst(arrays: Mapping[str, Any]) -> float:
        """How many times the largest channel exceeds the smallest, on the worse side."""
        sides = [region.spread(arrays, side)[1:] for side in ("makes", "takes")]
        alive = [each[each > _TINY * each.max()] for each in sides]
        return round(max(float(each.max() / each.min()) for each in alive), 2)

    return {
        "from": region.nodes("makes"),
        "to": region.nodes("takes"),
        "channels": region.size,
        "factors": [float(f"{end:.4g}") for end in (factors[1:].min(), factors[1:].max())],
        "spread": {"before": worst(before), "after": worst(after)},
    }


def _noise(
    before: Model,
    after: Model,
    known: Facts,
    found: list[Region],
    split: Split,
    samples: int,
    threads: int,
) -> dict[str, Any]:
    """By node and by value: signal to noise in decibels, before and after."""
    now = facts.facts_of(after, split).constants
    sites: dict[str, tuple[str, int]] = {}
    for site in (site for region in found for site in region.sites if site.weighs):
        axis = next((a for a, size in enumerate(site.labels.shape) if size > 1), 0)
        sites.setdefault(site.node.name, (site.name, axis))
    axes: dict[str, int] = {}
    for node in (site.node for region in found for site in region.sites if site.side == "takes"):
        taken = channels(known, node)
        if taken is not None:
            axes[node.input[0]] = taken
    pairs = [noise.of_activations(each, axes, split, samples, threads) for each in (before, after)]
    return {
        "weights_sqnr_db": {
            name: [noise.of_weight(each[weight], axis) for each in (known.constants, now)]
            for name, (weight, axis) in sites.items()
        },
        "activations_sqnr_db": {name: [each[name] for each in pairs] for name in axes},
    }


def _worst(statistics: Mapping[str, Any]) -> list[str]:
    """By which to tell whether it was worth it: one line for weights, one for activations."""
    told = []
    for kind in ("weights", "activations"):
        pairs = [pair for pair in statistics[f"{kind}_sqnr_db"].values() if None not in pair]
        if pairs:
            before, after = (min(each) for each in zip(*pairs, strict=True))
            told.append(
                f"the worst of the {kind} keeps {after:.1f} dB when rounded with one scale for all "
                f"channels, {before:.1f} dB before"
            )
    return told


def _why_not(found: list[Region], obstacles: Mapping[str, str]) -> str:
    if found:
        return "the channels are even already"
    held = f" ({_listed(obstacles)})" if obstacles else ""
    return f"no two layers with only Relu and its like between them{held}"


def _listed(obstacles: Mapping[str, str]) -> str:
    shown = [f"{value}, held by {why}" for value, why in list(obstacles.items())[:_SHOWN]]
    more = [f"and {len(obstacles) - _SHOWN} more"] if len(obstacles) > _SHOWN else []
    return "; ".join(shown + more)


def _told(node: str, channels: int) -> str:
    return f"{channels} biases of {node} moved into the next layer, by what calibration data show"
