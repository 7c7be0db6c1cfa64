"""Pruning to a latency: a table of what layers take on the target drives the search, measured nets
correct it, and what is chosen was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compress.artifacts import Json, Model, Place, Split, StepContext
from lepton_compress.compress import latency_table
from lepton_compress.compress.latency_fit import Fit, Known, fit
from lepton_compress.compress.narrowing import Narrowing
from lepton_compress.compress.pruning_budget import Budget
from lepton_compress.compress.race import Timing, race
from lepton_compress.compress.width_search import Widths
from lepton_compress.errors import InputError
from lepton_compress.units import show_seconds

if TYPE_CHECKING:
    from lepton_compress.compress.channels import Example

_HERE = Place("here", "onnxruntime-cpu", 1, 1)
"""Where a library call names no target."""
_NETS = 5
"""Nets that are exported and measured in search of the widest within the budget, at most."""
_CLOSE = 0.95
"""A net that takes at least this share of what is allowed is wide enough."""


@dataclass(frozen=True)
class Found:
    """What the search ends with: the widths, what stands in the result, and what is not met."""

    widths: dict[str, int]
    statistics: dict[str, Json]
    note: str
    unmet: str = ""


@dataclass(frozen=True)
class _Net:
    """A measured net: its place on the path, and its time as a share of the whole net's, as
    predicted before it was measured and as measured."""

    place: int
    predicted: float
    timing: Timing

    @property
    def measured(self) -> float:
        return self.timing.ratio


@dataclass
class _Search:
    narrowing: Narrowing
    budget: Budget
    context: StepContext
    place: Place
    one: Example
    whole: Model
    table: latency_table.Table
    path: list[dict[str, int]]
    layers: Callable[[Widths], float]
    elements: Callable[[Widths], float]
    nets: list[_Net] = field(default_factory=list)
    seconds: float = 0.0

    def known(self, nets: Sequence[_Net]) -> list[Known]:
        """The whole net and these, for a fit."""
        rest = (Known(*self.features(self.path[each.place]), each.measured) for each in nets)
        return [Known(1.0, 1.0, 1.0), *rest]

    def features(self, widths: Widths) -> tuple[float, float]:
        """The layers' sum and the elements of a net, as shares of the whole one's."""
        first = self.path[0]
        # Layers that take nothing measurable leave it all to the elements.
        whole = self.layers(first) or 1.0
        return self.layers(widths) / whole, self.elements(widths) / self.elements(first)

    def predict(self, made: Fit, place: int) -> float:
        return made.time(*self.features(self.path[place]))

    def measure(self, place: int, predicted: float) -> _Net:
        """Export a net and time it in turns with the whole one."""
        observer = self.context.observer
        with observer.work(f"timing net {len(self.nets) + 1} on {self.place.name}"):
            lowered = _lower(self.context, self.narrowing.cut(self.path[place]))
            timed = race(
                {"whole": self.whole.value, "net": lowered.value},
                self.one,
                self.place,
                cap=self.budget.patience,
                seed=self.context.seed,
            )
        self.seconds = timed["whole"].seconds
        net = _Net(place, predicted, timed["net"])
        self.nets.append(net)
        return net


def search(
    narrowing: Narrowing,
    budget: Budget,
    context: StepContext,
    *,
    scope: str,
    loss: Callable[[str, int], float],
) -> Found:
    """The widest net within a latency.

    Args:
        budget: with `latency`.
        scope: as of the step `prune`.
        loss: what a group loses at a width.

    Raises:
        InputError: no target can be timed here, the model cannot be exported, or the narrowest net
            is surely slower than asked; what can be reached is named.
    """
    state = _prepared(narrowing, budget, context, scope, loss)
    last = len(state.path) - 1
    narrowest = state.measure(last, state.layers(state.path[last]) / state.layers(state.path[0]))
    share = budget.limit.share_of(state.seconds)
    if share >= 1:
        raise InputError(
            f"the whole net takes {show_seconds(state.seconds)} on {state.place.name}, which is "
            "within the budget already",
            where="prune: to",
            mend="lower the latency or drop the step",
        )
    if narrowest.timing.interval[0] > share:
        least = narrowest.measured
        raise InputError(
            f"latency cannot go below {least:.2f}x ({show_seconds(least * state.seconds)} on "
            f"{state.place.name}) with round_to={narrowing.round_to}",
            where="prune: to",
            mend="raise the target or lower round_to",
        )
    _close_in(state, share)
    return _chosen(state, share)


def _close_in(state: _Search, share: float) -> None:
    """Measure nets on the path until the widest within the budget is known, or nearly so."""
    fails, meets = 0, len(state.path) - 1
    while meets - fails > 1 and len(state.nets) <= _NETS:
        made = fit(state.known(state.nets), share)
        places = range(fails + 1, meets)
        times = [state.predict(made, each) for each in places]
        at = next((at for at, time in enumerate(times) if time <= share), len(times) - 1)
        net = state.measure(places[at], times[at])
        place = net.place
        if net.measured <= share:
            meets = place
            if net.measured >= _CLOSE * share:
                return
        else:
            fails = place


def _chosen(state: _Search, share: float) -> Found:
    """The widest net that was measured to be within the budget; else the fastest."""
    good = [net for net in state.nets if net.measured <= share]
    net = min(good, key=lambda net: net.place) if good else _fastest(state.nets)
    if net is state.nets[0]:
        # It was measured before there was anything to predict by.
        made = fit(state.known(state.nets[1:] or state.nets), share)
        net = dataclasses.replace(net, predicted=state.predict(made, net.place))
    low, high = net.timing.interval
    said = (
        f"{net.measured:.2f}x ({low:.2f} to {high:.2f}) of the time on {state.place.name} "
        f"measured, {net.predicted:.2f}x predicted, {share:.2f}x asked"
    )
    shapes = sum(int(each.size) for each in state.table.times.values())
    statistics = {
        "target": state.place.name,
        "asked": share,
        "predicted": net.predicted,
        "measured": net.measured,
        "measured_interval": [low, high],
        "reachable": state.nets[0].measured,
        "seconds": [state.seconds, net.measured * state.seconds],
        "layer_shapes": shapes,
        "nets": [
            {"predicted": each.predicted, "measured": each.measured} for each in state.nets[1:]
        ],
    }
    unmet = "" if good else f"the latency is not met: {said}"
    return Found(state.path[net.place], statistics, said, unmet)


def _fastest(nets: Sequence[_Net]) -> _Net:
    return min(nets, key=lambda net: net.measured)


def _prepared(
    narrowing: Narrowing,
    budget: Budget,
    context: StepContext,
    scope: str,
    loss: Callable[[str, int], float],
) -> _Search:
    """The table, and the path that it leads along."""
    place = place_of(budget, context)
    names = [spec.name for spec in narrowing.model.inputs]
    one = _one_call(context.data.calibration.named(names), place.batch)
    sizes = narrowing.sizes(one)
    if not sizes.whole:
        raise InputError(
            f"no layer is wider than round_to={narrowing.round_to} allows", where="prune: to"
        )
    narrowest = narrowing.narrowest(scope, sizes.whole)
    grids = latency_table.grids(sizes, narrowest, narrowing.round_to)
    whole = _lower(context, narrowing.model)

    def build() -> Json:
        with context.observer.work(f"timing layers on {place.name}") as progress:
            return latency_table.measure(
                grids,
                (whole.value, one),
                place,
                cap=budget.patience,
                seed=context.seed,
                progress=lambda note: progress.advance(0, note),
            ).as_json()

    about = {"target": dataclasses.asdict(place), "layers": sorted(grids)}
    table = latency_table.Table.from_json(context.remembered("layer latency", about, build))

    def layers(widths: Widths) -> float:
        return sum(table.time(each) for each in sizes.layers(widths))

    # A tenth of the time is taken to go with the elements until whole nets tell.
    first = layers(sizes.whole) or 1.0

    def cost(widths: Widths) -> float:
        return layers(widths) / first + 0.1 * sizes.elements(widths) / sizes.seen.elements

    path = narrowing.path(scope, loss, cost, sizes.whole)
    return _Search(
        narrowing, budget, context, place, one, whole, table, path, layers, sizes.elements
    )


def place_of(budget: Budget, context: StepContext) -> Place:
    """Where to measure.

    Raises:
        InputError: what is asked for cannot be timed on this machine.
    """
    found = [each for each in context.targets if budget.target in (None, each.name)]
    if found:
        return found[0]
    away = [each for each in context.untimed if budget.target in (None, each)]
    if not away:
        return _HERE
    raise InputError(
        f"{' and '.join(away)} cannot be timed with ONNX graphs on this machine, so that there is "
        "no latency to prune to",
        where="prune: to",
        mend="name a target that can as `target`, or give macs, parameters or bytes",
    )


def _one_call(split: Split, batch: int) -> Example:
    """The inputs of one call, samples repeated where there are too few."""
    rows = np.arange(batch) % len(split)
    return {name: np.ascontiguousarray(array[rows]) for name, array in split.inputs.items()}


def _lower(context: StepContext, model: Model) -> Model:
    if context.lower is None:
        raise InputError("there is nothing to export the nets with", where="prune: to")
    made: Any = context.lower(model)
    return made  # type: ignore[no-any-return]
