"""SmoothQuant (Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for
Large Language Models", 2023) on an ONNX graph.

Channel c of what a layer takes is divided by s[c] = x[c]^alpha / w[c]^(1 - alpha), where x and w
are the largest magnitudes of the channel and of the weights that meet it, and the weights are
multiplied by s[c]. What must shrink with it is found by `regions.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lepton_compress.artifacts import Model, Observer, Split, StepOutcome
from lepton_compress.compress import facts, layer_error, noise
from lepton_compress.compress.facts import Facts
from lepton_compress.compress.prepare import prepare
from lepton_compress.compress.regions import INPUT, Region, channels, region_of
from lepton_compress.compress.weight_channels import weight_channels
from lepton_compress.errors import PluginError
from lepton_compress.load.forms import duplicate, signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lepton_compress.compress.smooth import Smooth

    Arrays = dict[str, NDArray[Any]]
    Factors = NDArray[np.float64]

ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))
MOST = 1e4
"""The largest factor, and its reciprocal the smallest."""
EXACT = 1e-3
"""Largest relative difference of the outputs that rounding of float32 can explain."""
_MOST_SHOWN = 4


@dataclass(frozen=True)
class Input:
    """A value that layers with constant weights take.

    Attributes:
        value: its name.
        axis, dims: of its channels, and of all.
        labels: (channels,) the region's label of each; 0 where the factor is one.
        layers: the nodes that take it and have a weight for each channel.
    """

    value: str
    axis: int
    dims: int
    labels: NDArray[np.int64]
    layers: tuple[onnx.NodeProto, ...]


@dataclass(frozen=True)
class Place:
    """Inputs of layers that shrink together; without sites a multiplication must be inserted."""

    region: Region
    inputs: tuple[Input, ...]


def smooth(
    model: Model, calibration: Split, params: Smooth, *, threads: int, observer: Observer
) -> StepOutcome:
    """The smoothed graph of a float graph.

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
        PluginError: the outputs changed.
    """
    ready = prepare(model, calibration, params.keep, "smooth")
    made = duplicate(ready.model)
    graph = made.value.graph
    copies = facts.apart(graph)
    known = facts.facts_of(made, ready.split)
    places, held = find_places(made, known, params)
    if not places:
        reason = f"nothing takes the factors up ({_listed(held)})" if held else "it has no layers"
        return StepOutcome(model, changed=False, notes=(reason, *ready.notes))
    axes = {each.value: each.axis for place in places for each in place.inputs}
    seen = layer_error.see(
        made, axes, ready.split, samples=params.samples, threads=threads, observer=observer
    )
    search = _Search(made.value, dict(known.constants), seen, params)
    told: dict[str, Any] = {}
    left: dict[str, str] = {}
    with observer.work("smoothing", len(places)) as progress:
        for place in places:
            chosen = search.choose(place)
            name = place.inputs[0].value
            if isinstance(chosen, str):
                left[name] = chosen
            else:
                told[name] = search.apply(place, *chosen)
            progress.advance(note=name)
    if not told:
        return StepOutcome(model, changed=False, notes=(_why_not(left, held), *ready.notes))
    facts.store(graph, known, search.arrays, copies)
    for each, factors in search.inserted:
        _insert(graph, each, factors)
    onnx.checker.check_model(made.value)
    made = Model("graph", made.value, *signature(made.value))
    apart = noise.difference(ready.model, made, ready.split, layer_error.HELD, threads)
    if apart is not None and apart > EXACT:
        raise PluginError(f"smooth changed the outputs by {apart:.2g} of their largest")
    statistics = {"smoothed": told, "left": left, "held": held, "difference": apart}
    # That nothing stands before an input needs no telling.
    worth = {value: why for value, why in held.items() if why != INPUT}
    notes = [*ready.notes, *([f"not smoothed: {_listed(worth)}"] if worth else [])]
    return StepOutcome(made, changed=True, statistics=statistics, notes=tuple(notes))


def find_places(model: Model, known: Facts, params: Smooth) -> tuple[list[Place], dict[str, str]]:
    """Values to smooth in the graph's order, and those that cannot be, with the reason."""
    places: list[Place] = []
    held: dict[str, str] = {}
    seen: set[str] = set()
    for node in model.value.graph.node:
        axis = channels(known, node)
        if axis is None or node.input[0] in seen:
            continue
        value = node.input[0]
        region = _allowed(region_of(known, value, axis), params.keep)
        inputs = [_input(known, name, labels) for name, labels in region.values.items()]
        free = tuple(each for each in inputs if each is not None and each.labels.any())
        if free:
            seen.update(region.values)
            # The first in the graph's order stands for all of them.
            places.append(Place(region, tuple(sorted(free, key=lambda each: each.value != value))))
            continue
        seen.add(value)
        only = _input(known, value, np.ones(known.shapes[value], np.int64))
        kept = {each.name for each in known.takers[value]} & set(params.keep)
        if only is not None and params.insert and not kept:
            count = known.shapes[value][axis]
            apart = replace(only, labels=np.arange(1, count + 1))
            places.append(Place(Region(count, {}, (), region.obstacles), (apart,)))
        else:
            held[value] = ", ".join(region.obstacles[:2])
    return places, held


def _input(known: Facts, value: str, labels: NDArray[np.int64]) -> Input | None:
    """The value as an input of layers; None if none takes it."""
    takers = known.takers.get(value, ())
    layers = [n for n in takers if n.input[0] == value and channels(known, n) is not None]
    layers = [node for node in layers if known.alone(node, 1)]
    if not layers:
        return None
    axis = channels(known, layers[0])
    assert axis is not None  # noqa: S101 - as just asked
    row = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)[:, 0]
    return Input(value, axis, labels.ndim, row, tuple(layers))


def _allowed(region: Region, keep: Collection[str]) -> Region:
    """The region without the labels that nodes in `keep` meet."""
    good = np.ones(region.size + 1, bool)
    good[0] = False
    named: dict[str, None] = {}
    for site in region.sites:
        if site.node.name in keep:
            good[site.labels] = False
            named[f"{site.node.name} (named in `keep`)"] = None
    return region.only(good, tuple(named))


class _Search:
    """Chooses factors and moves them, place by place."""

    def __init__(
        self,
        model: onnx.ModelProto,
        arrays: Arrays,
        seen: dict[str, layer_error.Seen],
        params: Smooth,
    ) -> None:
        self.model, self.arrays, self.seen, self.params = model, arrays, seen, params
        self.inserted: list[tuple[Input, NDArray[np.float64]]] = []

    def choose(self, place: Place) -> tuple[float, Factors, float, float] | str:
        """The share, the factors by label, the error before and after; or why there are none."""
        layers = {
            each.value: [layer_error.Layer(self.model, node) for node in each.layers]
            for each in place.inputs
        }
        before = self._error(place, layers, np.ones(place.region.size + 1))
        tried: dict[float, tuple[float, Factors]] = {}
        for alpha in ALPHAS if self.params.alpha == "auto" else (self.params.alpha,):
            factors = self._factors(place, alpha)
            if not np.allclose(factors, 1, rtol=1e-3):
                tried[alpha] = (self._error(place, layers, factors), factors)
        if not tried:
            return "its channels are even"
        alpha = min(tried, key=lambda each: tried[each][0])
        after, factors = tried[alpha]
        if self.params.alpha == "auto" and after > before * 10 ** (-self.params.gain / 10):
            return f"it would not gain {self.params.gain:g} dB"
        return alpha, factors, before, after

    def apply(
        self, place: Place, alpha: float, factors: Factors, before: float, after: float
    ) -> dict[str, Any]:
        """Move the factors; what is told of it."""
        account = self._account(place, factors)
        if place.region.sites:
            place.region.scale(self.arrays, factors)
        for each in () if place.region.sites else place.inputs:
            self.inserted.append((each, factors))
            self.arrays |= self._grown(each, factors)
        nodes = [node.name for each in place.inputs for node in each.layers]
        return {
            "layers": nodes,
            "into": place.region.nodes("makes") or ["a new Mul"],
            "alpha": alpha,
            **account,
            "layers_sqnr_db": {
                "before": _db(before / len(nodes)),
                "after": _db(after / len(nodes)),
            },
        }

    def _account(self, place: Place, factors: Factors) -> dict[str, Any]:
        each = place.inputs[0]
        largest = self.seen[each.value].largest
        smoothed = largest / factors[each.labels]
        before, after = (
            round(float(array.max() / max(float(np.median(array)), 1e-30)), 2)
            for array in (largest, smoothed)
        )
        ends = (factors[1:].min(), factors[1:].max())
        return {
            "factors": [float(f"{end:.4g}") for end in ends],
            "outlier": {"channel": int(largest.argmax()), "before": before, "after": after},
        }

    def _error(
        self, place: Place, layers: dict[str, list[layer_error.Layer]], factors: Factors
    ) -> float:
        total = 0.0
        for each in place.inputs:
            samples = self.seen[each.value].samples
            row = factors[each.labels].reshape([-1] + [1] * (each.dims - 1 - each.axis))
            shrunk = (samples / row).astype(np.float32)
            total += layer_error.relative_error(
                layers[each.value], samples, self.arrays, shrunk, self._grown(each, factors)
            )
        return total

    def _grown(self, each: Input, factors: Factors) -> Arrays:
        """The weights that meet an input, with the factors."""
        made: Arrays = {}
        for node in each.layers:
            weight = self.arrays[node.input[1]]
            inner, _ = weight_channels(node, weight)
            made[node.input[1]] = weight.astype(np.float64) * factors[each.labels][inner]
        return made

    def _factors(self, place: Place, alpha: float) -> Factors:
        """(size + 1,) by label."""
        reach, met = (np.zeros(place.region.size + 1) for _ in range(2))
        for each in place.inputs:
            np.maximum.at(reach, each.labels, self.seen[each.value].largest)
            for node in each.layers:
                weight = np.abs(self.arrays[node.input[1]])
                inner, _ = weight_channels(node, weight)
                labels = np.broadcast_to(each.labels[inner], weight.shape)
                np.maximum.at(met, labels, weight)
        alive = (reach > 0) & (met > 0)
        alive[0] = False
        factors = np.ones(place.region.size + 1)
        if alive.any():
            factors[alive] = reach[alive] ** alpha / met[alive] ** (1 - alpha)
            # A factor that all share changes no error.
            factors[alive] /= np.exp(np.log(factors[alive]).mean())
        return np.clip(factors, 1 / MOST, MOST)


def _insert(graph: onnx.GraphProto, each: Input, factors: Factors) -> None:
    """Divide a value right before the layers that take it."""
    name = f"{each.value}_smoothed"
    row = (1 / factors[each.labels]).astype(np.float32)
    array = row.reshape([-1] + [1] * (each.dims - 1 - each.axis))
    graph.initializer.append(numpy_helper.from_array(array, f"{name}_by"))
    layers = {node.name for node in each.layers}
    first = next(index for index, node in enumerate(graph.node) if node.name in layers)
    node = helper.make_node("Mul", [each.value, f"{name}_by"], [name], f"{name}/Mul")
    graph.node.insert(first, node)
    for layer in graph.node:
        if layer.name in layers:
            layer.input[0] = name


def _listed(held: dict[str, str]) -> str:
    shown = [f"{value}, held by {why}" for value, why in list(held.items())[:_MOST_SHOWN]]
    more = [f"and {len(held) - _MOST_SHOWN} more"] if len(held) > _MOST_SHOWN else []
    return "; ".join(shown + more)


def _why_not(left: dict[str, str], held: dict[str, str]) -> str:
    parts = [f"{value}: {why}" for value, why in left.items()][:_MOST_SHOWN]
    parts += [_listed(held)] if held else []
    return f"no value was worth smoothing ({'; '.join(parts)})"


def _db(error: float) -> float | None:
    return round(-10 * float(np.log10(error)), 2) if error > 0 else None
