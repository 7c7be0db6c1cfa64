"""Pruning to a latency: a table of what layers take on the target drives the search, measured nets
correct it, and what is chosen was measured."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compress.artifacts import Json, Model, Place, Split, StepContext
from lepton_compress.compress import latency_table
from lepton_compress.compress.latency_fit import Features, Fit, brought, fit
from lepton_compress.compress.layer_shapes import CONVOLUTIONS, Sizes
from lepton_compress.compress.narrowing import Narrowing
from lepton_compress.compress.processor import core_cache
from lepton_compress.compress.pruning_budget import Budget
from lepton_compress.compress.race import Timing, race
from lepton_compress.compress.width_search import Widths, greedy
from lepton_compress.errors import InputError
from lepton_compress.units import show_seconds

if TYPE_CHECKING:
    from lepton_compress.compress.channels import Example

_HERE = Place("here", "onnxruntime-cpu", 1, 1)
"""Where a library call names no target."""
_NETS = 6
"""Nets that are exported and measured in search of the widest within the budget, at most."""
_CLOSE = 0.93
"""A net that takes at least this share of what is allowed is wide enough."""
_AGREES = 0.1
_SETS = 3
"""Sessions of a net that are timed, one after the other."""


@dataclass(frozen=True)
class Found:
    """What the search ends with: the widths, what stands in the result, and what is not met."""

    widths: dict[str, int]
    statistics: dict[str, Json]
    note: str
    unmet: str = ""


@dataclass(frozen=True)
class _Net:
    """A net, and its time as a share of the whole net's: as predicted before it was measured, and
    as measured."""

    widths: Widths
    predicted: float
    timing: Timing

    @property
    def measured(self) -> float:
        return self.timing.ratio

    @property
    def agrees(self) -> bool:
        """Whether the prediction was right."""
        return abs(self.predicted / self.measured - 1) <= _AGREES


@dataclass
class _Search:
    narrowing: Narrowing
    budget: Budget
    context: StepContext
    place: Place
    one: Example
    whole: Model
    table: latency_table.Table
    sizes: Sizes
    scope: str
    loss: Callable[[str, int], float]
    nets: list[_Net] = field(default_factory=list)
    seconds: float = 0.0
    cache: float | None = field(default_factory=core_cache)
    _known: dict[tuple[tuple[str, int], ...], Features] = field(default_factory=dict)

    def features(self, widths: Widths) -> Features:
        """What the time of a net is told by."""
        mark = tuple(widths.items())
        if mark not in self._known:
            convolutions = others = 0.0
            for each in self.sizes.layers(widths):
                if each.kind in CONVOLUTIONS:
                    convolutions += self.table.time(each)
                else:
                    others += self.table.time(each)
            elements = self.sizes.elements(widths) / self.sizes.seen.elements
            held, whole = self.weights(widths), self.weights(self.sizes.whole)
            anew = brought(held, self.cache) / whole if whole else 0.0
            self._known[mark] = Features(convolutions, others, elements, anew)
        return self._known[mark]

    def weights(self, widths: Widths) -> float:
        """Bytes of a net's weights, in float32."""
        return 4.0 * sum(each.weights for each in self.sizes.layers(widths))

    def fitted(self, nets: Sequence[_Net], wanted: float) -> Fit:
        """To the whole net and these."""
        known = [(self.features(self.sizes.whole), 1.0)]
        return fit(
            [*known, *((self.features(each.widths), each.measured) for each in nets)], wanted
        )

    def path(self, wanted: float, options: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
        """Ever narrower nets, by what the nets so far tell of the cost."""
        made = self.fitted(self.nets, wanted)
        if self.scope == "local":
            return self.narrowing.even(options)
        return greedy(options, self.loss, lambda widths: made.time(self.features(widths)))

    def lost(self, widths: Widths) -> float:
        return sum(self.loss(name, width) for name, width in widths.items())

    def measure(self, widths: Widths, predicted: float) -> _Net:
        """Export a net and time it in turns with the whole one."""
        observer = self.context.observer
        with observer.work(f"timing net {len(self.nets) + 1} on {self.place.name}"):
            lowered = _lower(self.context, self.narrowing.cut(widths))
            # Where its weights lie in memory is chance for as long as a session lives.
            sets = [
                race(
                    {"whole": self.whole.value, "net": lowered.value},
                    self.one,
                    self.place,
                    cap=self.budget.patience / _SETS,
                    seed=self.context.seed + number,
                )
                for number in range(_SETS)
            ]
        self.seconds = statistics.median(each["whole"].seconds for each in sets)
        net = _Net(widths, predicted, _together([each["net"] for each in sets]))
        self.nets.append(net)
        return net


def _together(sets: Sequence[Timing]) -> Timing:
    """What several races say: the median, with an interval that holds all of theirs."""
    low, high = min(e.interval[0] for e in sets), max(e.interval[1] for e in sets)
    seconds = statistics.median(each.seconds for each in sets)
    return Timing(seconds, statistics.median(each.ratio for each in sets), (low, high))


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
    end = narrowing.narrowest(scope, state.sizes.whole)
    narrowest = state.measure(end, state.fitted([], 1.0).time(state.features(end)))
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
    """Measure nets until the widest within the budget is known, or nearly so."""
    options = {name: state.narrowing.options[name] for name in state.sizes.whole}
    while len(state.nets) <= _NETS:
        path = state.path(share, options)
        fails, meets = _bracket(state, path, share)
        if len(state.nets) > _NETS or _settled(state, share) or state.scope == "local":
            return
        # The step between the two is too large: its group stays, the others go on.
        (stays,) = (name for name in path[fails] if path[fails][name] != path[meets][name])
        options = {
            name: [each for each in widths if each <= path[fails][name]]
            for name, widths in options.items()
        }
        options[stays] = [path[fails][stays]]
        if all(len(each) == 1 for each in options.values()):
            return


def _bracket(state: _Search, path: list[dict[str, int]], share: float) -> tuple[int, int]:
    """Places on a path next to each other, of which the first net is beyond the budget and the
    second within it; or what is known of them when enough was measured."""
    fails, meets = 0, len(path) - 1
    while meets - fails > 1 and len(state.nets) <= _NETS:
        made = state.fitted(state.nets, share)
        places = range(fails + 1, meets)
        times = [made.time(state.features(path[each])) for each in places]
        at = next((at for at, time in enumerate(times) if time <= share), len(times) - 1)
        net = state.measure(path[places[at]], times[at])
        if net.measured > share:
            fails = places[at]
        else:
            meets = places[at]
            if _settled(state, share):
                break
    return fails, meets


def _settled(state: _Search, share: float) -> bool:
    """Whether a net is as wide as the budget allows, and was predicted well."""
    return any(_CLOSE * share <= net.measured <= share and net.agrees for net in state.nets)


def _chosen(state: _Search, share: float) -> Found:
    """The net that loses least of those that were measured to be within the budget; else the
    fastest. What is told as predicted follows from the table and from all other nets."""
    good = [net for net in state.nets if net.measured <= share]
    net = min(good, key=lambda net: state.lost(net.widths)) if good else _fastest(state.nets)
    others = state.fitted([each for each in state.nets if each is not net], share)
    net = dataclasses.replace(net, predicted=others.time(state.features(net.widths)))
    low, high = net.timing.interval
    said = (
        f"{net.measured:.2f}x ({low:.2f} to {high:.2f}) of the time on {state.place.name} "
        f"measured, {net.predicted:.2f}x predicted, {share:.2f}x asked"
    )
    shapes = sum(int(each.size) for each in state.table.times.values())
    told = {
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
    return Found(dict(net.widths), told, said, unmet)


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

    return _Search(narrowing, budget, context, place, one, whole, table, sizes, scope, loss)


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
