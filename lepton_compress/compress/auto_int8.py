"""The search behind `quantize_auto`: over the parameters of the plain steps, so that what it finds
can be written into a recipe as one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lepton_compress import registry
from lepton_compress.artifacts import Model, Place, StepContext, StepOutcome
from lepton_compress.compress import account, sensitivity, static_int8
from lepton_compress.compress.auto_choice import Scheme, by_accuracy, by_time, timed
from lepton_compress.compress.calibration import chosen_ranges
from lepton_compress.compress.prepare import prepare
from lepton_compress.compress.quantize import Quantize
from lepton_compress.compress.quantize_auto import QuantizeAuto
from lepton_compress.compress.quantize_dynamic import QuantizeDynamic
from lepton_compress.compress.quantize_weights import QuantizeWeights
from lepton_compress.compress.race import Timing, race
from lepton_compress.compress.trial import Judge, Trial
from lepton_compress.registry import Params

METHODS = ("mse", "percentile", "minmax")
FLOAT = "float"
_WORTH = 0.99
"""A node is left in float for its time only if that makes the graph surely faster by as much."""
_MOST_BUILDS = 6
_REPAIRS = ("smooth", "equalize")
_HELPS = 0.7
"""A repair of the float graph is kept if it leaves at most this share of the noise."""
_HERE = Place("here", "onnxruntime-cpu", 1, 1)
"""Where a library call names no target."""


@dataclass
class _Search:
    model: Model
    params: QuantizeAuto
    context: StepContext
    judge: Judge
    place: Place | None
    tried: list[dict[str, Any]] = field(default_factory=list)
    repairs: tuple[str, ...] = ()

    @property
    def known(self) -> set[str]:
        """The nodes that a recipe can name."""
        return {node.name for node in self.model.value.graph.node}

    def schemes(self) -> list[Scheme]:
        """What may be chosen: dynamic int8 and 8-bit weights where there are matrix products,
        static int8, and if that loses too much the same behind repairs and with nodes in float.

        Where nothing can be timed, the first two are only for what cannot be static: the others
        leave the activations in float, which no NPU takes."""
        found = self._products() if self.place else []
        plan = self._best_calibration()
        if plan is None:
            return found or self._products()
        noise, draft, params = plan
        if self.place:
            params = self._left_for_time(draft, params)
        made = self._static(params)
        found.append(made)
        if made.trial.drop <= self.params.drop:
            return found
        repaired = self._repaired(noise)
        if repaired is not None:
            search, draft = repaired
            params = params.model_copy(update={"calibration": draft.calibrated.method})
            found.append(search._static(params))
            if found[-1].trial.drop <= self.params.drop:
                return found
            return found + search._left_for_accuracy(draft, params)
        return found + self._left_for_accuracy(draft, params)

    def _products(self) -> list[Scheme]:
        """What keeps the activations in float."""
        found = self._plain("quantize_dynamic", QuantizeDynamic(keep=self.params.keep))
        if found:
            by = QuantizeWeights(algorithm="rtn", bits=8, keep=self.params.keep)
            found += self._plain("quantize_weights", by)
        return found

    def _plain(self, step: str, params: Params) -> list[Scheme]:
        made = registry.get("step", step).call(self.model, params, self.context)
        return [self._scheme(step, params, made)] if made.changed else []

    def _repaired(self, noise: float) -> tuple[_Search, static_int8.Draft] | None:
        """The search behind the repairs that help, one after the other, and its calibration."""
        best: tuple[_Search, static_int8.Draft] | None = None
        search = self
        for step in _REPAIRS:
            plugin = registry.get("step", step)
            made = plugin.call(search.model, plugin.params(), self.context)
            if not made.changed:
                continue
            tried = replace(search, model=made.model, repairs=(*search.repairs, step))
            plan = tried._best_calibration()
            if plan is not None and plan[0] < _HELPS * noise:
                noise, draft, _ = plan
                search, best = tried, (tried, draft)
        return best

    def _scheme(self, step: str, params: Params, made: StepOutcome) -> Scheme:
        scheme = Scheme(step, params, made, self.judge(made.model), self.repairs)
        self._note(scheme.name, scheme.trial, recipe=scheme.recipe)
        return scheme

    def _note(self, what: str, trial: Trial, **more: Any) -> None:
        drop = trial.drop if math.isfinite(trial.drop) else None
        self.tried.append({"what": what, "drop": drop, "output_sqnr_db": trial.noise_db} | more)

    def _best_calibration(self) -> tuple[float, static_int8.Draft, Quantize] | None:
        """The way of calibration with the least noise, and that; None if there is nothing to
        quantise."""
        params = self._params(METHODS[0])
        draft = static_int8.draft(
            self.model,
            self.context.data.calibration,
            params,
            threads=self.context.threads,
            observer=self.context.observer,
        )
        if isinstance(draft, StepOutcome):
            return None
        best: tuple[float, static_int8.Draft, Quantize] | None = None
        for method in METHODS:
            seen = draft.calibrated
            ranges = chosen_ranges(seen.observed, method, seen.passed)
            tried = replace(draft, calibrated=replace(seen, method=method, ranges=ranges))
            trial = self.judge(tried.graph(draft.params))
            behind = "".join(f"{each}, " for each in self.repairs)
            self._note(f"{behind}static int8, {method}, rounded to the nearest", trial)
            if best is None or trial.noise < best[0]:
                best = trial.noise, tried, self._params(method)
        return best

    def _params(self, method: str) -> Quantize:
        return Quantize(
            calibration=method,
            samples=self.params.calibration_samples,
            keep=self.params.keep,
        )

    def _static(self, params: Quantize) -> Scheme:
        made = static_int8.quantize(
            self.model,
            self.context.data.calibration,
            params,
            threads=self.context.threads,
            observer=self.context.observer,
        )
        return self._scheme("quantize", params, made)

    def _left_for_time(self, draft: static_int8.Draft, params: Quantize) -> Quantize:
        """The parameters with those nodes in float that are slower in int8 on the target."""
        graph = draft.ready.model.value
        sets = sensitivity.families(graph)
        # Parts that a node was taken apart into have no name that a recipe could keep.
        sets = {name: nodes for name, nodes in sets.items() if self.known.issuperset(nodes)}
        whole = draft.graph(draft.params)

        def left(nodes: Sequence[str]) -> Model:
            return draft.graph(_keeping(draft.params, nodes))

        graphs = {name: left(nodes) for name, nodes in sets.items()}
        times = self.race({"int8": whole} | graphs)
        helps = [name for name in sets if times[name].interval[1] < _WORTH]
        for name in sets:
            self.tried.append(timed(f"int8, {name} in float", times[name], "int8"))
        if not helps:
            return params
        joined = list(dict.fromkeys(node for name in helps for node in sets[name]))
        rivals = {name: sets[name] for name in helps} | {"all of them": joined}
        times = self.race({"int8": whole} | {name: left(nodes) for name, nodes in rivals.items()})
        best = min(rivals, key=lambda name: times[name].ratio)
        if times[best].interval[1] >= _WORTH:
            return params
        self.tried.append(timed(f"int8, {', '.join(helps)} in float", times[best], "int8"))
        return _keeping(params, rivals[best])

    def _left_for_accuracy(self, draft: static_int8.Draft, params: Quantize) -> list[Scheme]:
        """The parameters with the fewest roundings left out that meet the budget."""
        roundings = sensitivity.Roundings(draft.ready.model.value, draft.graph(draft.params).value)

        def noise_of(names: Sequence[str]) -> float:
            return self.judge.few(draft.ready.model.replace(value=roundings.only(names))).noise

        with self.context.observer.work("finding what costs accuracy"):
            order = sensitivity.ranked(roundings.names(), noise_of, self.params.evaluations)
        weighted = set(account.weighted(draft.ready.model.value))
        found: list[Scheme] = []
        # Double what is left out until the budget is met, then halve the last step.
        fails, meets, count = 0, len(order), 1
        while fails < count < meets and len(found) < _MOST_BUILDS:
            nodes = (node for name in order[:count] for node in roundings.nodes_of(name))
            left = [node for node in nodes if node in self.known]
            if weighted <= {*params.keep, *left}:
                meets = count
            else:
                made = self._static(_keeping(params, left))
                found.append(made)
                if made.trial.drop <= self.params.drop:
                    meets = count
                else:
                    fails = count
            count = min(2 * count, meets - 1) if meets == len(order) else (fails + meets) // 2
        return found

    def race(self, graphs: Mapping[str, Model], *, decide: bool = False) -> dict[str, Timing]:
        """Timing of graphs on the target, as ratios to the first."""
        place = self.place or _HERE
        with self.context.observer.work(f"racing {len(graphs)} graphs"):
            return race(
                {name: each.value for name, each in graphs.items()},
                self.judge.first(place.batch),
                place,
                cap=self.params.patience,
                seed=self.context.seed,
                decide=decide,
            )


def quantize(model: Model, params: QuantizeAuto, context: StepContext) -> StepOutcome:
    """The best int8 graph of a float graph, or the same graph, declined.

    Args:
        model: a graph in float32.

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
    """
    prepare(model, context.data.calibration, params.keep, "quantize_auto")
    judge = Judge(
        model,
        context.data,
        context.metric,
        samples=params.samples,
        threads=context.threads,
        observer=context.observer,
    )
    search = _Search(model, params, context, judge, _place(params, context))
    schemes = search.schemes()
    if not schemes:
        reason = "the graph has nothing that ONNX Runtime computes in integers"
        return StepOutcome(model, changed=False, notes=(reason,))
    about: dict[str, Any] = {
        "target": search.place.name if search.place else ", ".join(_asked(params, context.untimed)),
        "budget": params.drop,
        "judged_by": judge.measures,
        "judged_on": f"{judge.samples} samples of the {judge.source} split",
        "tried": search.tried,
    }
    if search.place is None:
        return by_accuracy(schemes, about)
    graphs = {FLOAT: model} | {str(place): each.outcome.model for place, each in enumerate(schemes)}
    times = search.race(graphs, decide=True)
    rows = [(each, times[str(place)]) for place, each in enumerate(schemes)]
    for scheme, timing in rows:
        search.tried.append(timed(scheme.name, timing, FLOAT))
    return by_time(model, rows, about)


def _place(params: QuantizeAuto, context: StepContext) -> Place | None:
    """Where to race; None where what is asked for cannot be timed here."""
    found = [each for each in context.targets if params.target in (None, each.name)]
    if found:
        return found[0]
    return None if _asked(params, context.untimed) else _HERE


def _asked(params: QuantizeAuto, names: Sequence[str]) -> list[str]:
    """Those of the targets that are asked for."""
    return [each for each in names if params.target in (None, each)]


def _keeping(params: Quantize, nodes: Sequence[str]) -> Quantize:
    """The parameters with more nodes in float."""
    return params.model_copy(update={"keep": list(dict.fromkeys([*params.keep, *nodes]))})
