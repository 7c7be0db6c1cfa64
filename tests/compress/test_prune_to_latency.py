"""The search for the widest net within a latency.

Its decisions are tried on times that are a function of the shapes, so that they do not depend on
the machine; `tests/e2e/test_prune_latency.py` has a runtime's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from lepton_compress.artifacts import Model, Place, StepContext
from lepton_compress.compress import latency_table, prune_to_latency
from lepton_compress.compress.latency_fit import Features, brought, fit
from lepton_compress.compress.layer_shapes import watch
from lepton_compress.compress.pruning_budget import Budget
from lepton_compress.compress.race import Timing
from lepton_compress.errors import InputError
from lepton_compress.report.silent import Silent
from tests.compress.modules import dataset
from tests.compress.test_layer_shapes import X, narrowing

WHOLE = 1e-3
Times = Callable[[float, float], float]


def _straight(macs: float, elements: float) -> float:
    return 0.1 + 0.7 * macs + 0.2 * elements


def _cliff(macs: float, elements: float) -> float:
    """As where weights no longer fit into a cache."""
    return 0.2 + 0.3 * macs + (0.5 if macs > 0.55 else 0.0)


def _context(**given: Any) -> StepContext:
    return StepContext(dataset(), lambda: None, 0, 1, Silent(), lower=lambda each: each, **given)  # type: ignore[arg-type, return-value]


def _search(
    monkeypatch: pytest.MonkeyPatch,
    times: Times,
    name: str = "plain",
    scope: str = "global",
    **asked: Any,
) -> tuple[prune_to_latency.Found, list[Model], float]:
    """What is found, the nets that were timed, and the time of what was found."""
    held = narrowing(name)
    whole = held.sizes(X)
    macs, elements = whole.macs(whole.whole), whole.elements(whole.whole)
    timed: list[Model] = []

    def of(module: Any) -> float:
        seen = watch(module, X)
        return times(sum(each.macs for each in seen.layers) / macs, seen.elements / elements)

    def race(graphs: Mapping[str, Any], *_: Any, **__: Any) -> dict[str, Timing]:
        timed.append(graphs["net"])
        ratio = of(graphs["net"])
        same = Timing(WHOLE, 1.0, (1.0, 1.0))
        return {"whole": same, "net": Timing(ratio * WHOLE, ratio, (ratio, ratio))}

    def measure(grids: Mapping[str, Any], *_: Any, **__: Any) -> latency_table.Table:
        table = latency_table.Table({}, {}, WHOLE)
        for key, (shape, axes) in grids.items():
            sizes = [each.sizes for each in axes]
            table.axes[key] = axes
            table.times[key] = np.array(
                [
                    0.5 * dataclasses.replace(shape, dims=tuple(map(int, dims))).macs / macs
                    for dims in np.stack(np.meshgrid(*sizes, indexing="ij"), -1).reshape(
                        -1, len(sizes)
                    )
                ]
            ).reshape([len(each) for each in sizes])
        return table

    monkeypatch.setattr(prune_to_latency, "race", race)
    monkeypatch.setattr(latency_table, "measure", measure)
    found = prune_to_latency.search(
        held, Budget.model_validate(asked), _context(), scope=scope, loss=held.lost
    )
    return found, timed, of(held.cut(found.widths).value)


@pytest.mark.parametrize("name", ["plain", "residual", "separable", "attention", "recurrent"])
@pytest.mark.parametrize("share", [0.85, 0.6])
def test_meets_the_budget_and_predicts_what_is_measured(
    monkeypatch: pytest.MonkeyPatch, name: str, share: float
) -> None:
    found, timed, reached = _search(monkeypatch, _straight, name, latency=f"{share}x")
    assert not found.unmet
    assert reached <= share
    assert found.statistics["measured"] == pytest.approx(reached)
    assert found.statistics["predicted"] == pytest.approx(reached, rel=0.1)
    assert len({id(each) for each in timed}) <= 7  # some are timed in several sessions
    assert "predicted" in found.note


def test_a_tighter_budget_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = [_search(monkeypatch, _straight, latency=f"{share}x")[2] for share in (0.9, 0.7, 0.5)]
    assert reached == sorted(reached, reverse=True)


def test_an_amount_of_time_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, reached = _search(monkeypatch, _straight, latency="600 us")
    assert 0.4 < reached <= 0.6
    assert found.statistics["asked"] == pytest.approx(0.6)


def test_a_cliff_is_found_by_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, reached = _search(monkeypatch, _cliff, latency="0.45x")
    assert not found.unmet
    assert reached <= 0.45


def test_every_layer_gives_the_same_share(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, reached = _search(monkeypatch, _straight, scope="local", latency="0.6x")
    assert reached <= 0.6
    assert len(set(found.widths.values())) == 1


def test_out_of_reach_names_what_is_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    says = (
        r"prune: to: latency cannot go below 0\.\d\dx \(\d+ us on here\) with round_to=4; raise "
        "the target or lower round_to"
    )
    with pytest.raises(InputError, match=says):
        _search(monkeypatch, _straight, latency="0.05x")


def test_a_net_within_the_budget_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"takes 1\.00 ms on here, which is within the budget"):
        _search(monkeypatch, _straight, latency="2 ms")


class TestPlace:
    def test_is_the_target_that_is_named(self) -> None:
        places = tuple(Place(name, "onnxruntime-cpu", 1, 1) for name in "ab")
        context = _context(targets=places)
        assert prune_to_latency.place_of(Budget(latency="0.5x"), context).name == "a"
        asked = Budget(latency="0.5x", target="b")
        assert prune_to_latency.place_of(asked, context).name == "b"

    def test_one_that_cannot_be_timed_is_told(self) -> None:
        with pytest.raises(InputError, match=r"npu cannot be timed .*; name a target that can"):
            prune_to_latency.place_of(Budget(latency="0.5x"), _context(untimed=("npu",)))


class TestFit:
    NETS = tuple(
        Features(a, b, c) for a, b, c in ((0.5, 0.2, 1), (0.2, 0.2, 0.6), (0.3, 0.05, 0.5))
    )

    def test_holds_for_nets_that_it_was_made_of(self) -> None:
        def time(net: Features) -> float:
            return 0.1 + 1.2 * net.convolutions + 0.5 * net.others + 0.2 * net.elements

        known = [(net, time(net)) for net in self.NETS]
        made = fit(known, known[1][1])
        assert made.time(known[1][0]) == pytest.approx(known[1][1], rel=0.01)
        assert min(made.factors) >= 0

    def test_weights_are_brought_anew_where_they_do_not_stay(self) -> None:
        assert brought(1e6, None) == brought(1e6, 2e6) == 0
        assert brought(4e6, 2e6) == 4e6
        assert brought(1.5e6, 2e6) == 0.75e6

    def test_without_other_nets_layers_count_as_they_were_measured(self) -> None:
        made = fit([(self.NETS[0], 1.0)], 1.0)
        assert made.time(self.NETS[0]) == pytest.approx(1, rel=0.01)
        assert made.factors[1] == pytest.approx(1, rel=0.05)
