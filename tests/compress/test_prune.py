"""Whole channels removed: from every kind of network, down to what is asked for, and no further."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from lepton_compress.compress.channels import Group, choose, cost
from lepton_compress.compress.prune import Prune
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from tests.compress import modules
from tests.compress.modules import PRUNABLE, Attends, Lone, Padded, Plain, Tiny, apply, model_of

X = {"x": np.random.default_rng(1).normal(size=(5, 1, 6, 6)).astype(np.float32)}


class TestNetworks:
    @pytest.mark.parametrize("name", PRUNABLE)
    def test_gets_smaller_and_still_answers(self, name: str) -> None:
        model = model_of(PRUNABLE[name])
        outcome = apply("prune", model, ratio="50 %", scope="local")
        statistics = outcome.statistics
        assert outcome.changed
        assert statistics["macs"][1] < statistics["macs"][0]
        assert statistics["parameters"][1] < statistics["parameters"][0]
        assert statistics["macs"] == [
            cost(each.value, X)["macs"] for each in (model, outcome.model)
        ]
        assert forms.call(outcome.model, X)["scores"].shape == (5, 3)
        assert not outcome.model.value.training

    @pytest.mark.parametrize("name", PRUNABLE)
    def test_loads_again_as_it_was(self, tmp_path: Path, name: str) -> None:
        pruned = apply("prune", model_of(PRUNABLE[name]), ratio="50 %").model
        forms.save(pruned, model_of(PRUNABLE[name]), tmp_path)
        loaded = forms.load(tmp_path, lambda: model_of(PRUNABLE[name], seed=9))
        assert np.array_equal(forms.call(loaded, X)["scores"], forms.call(pruned, X)["scores"])

    def test_heads_are_left_alone_and_a_note_says_so(self) -> None:
        outcome = apply("prune", model_of(Attends), ratio="50 %", scope="local")
        widths = outcome.statistics["channels"]
        assert widths["up"] == [32, 16]
        assert "qkv" not in widths
        assert any(note.startswith("qkv is not pruned: ") for note in outcome.notes)

    def test_a_padded_shortcut_keeps_its_widths(self) -> None:
        outcome = apply("prune", model_of(Padded), ratio="50 %", scope="local")
        assert outcome.statistics["channels"]["inner"] == [32, 16]
        assert outcome.model.value.stem.out_channels == 16
        assert outcome.model.value.outer.out_channels == 32

    def test_what_an_addition_ties_goes_together(self) -> None:
        pruned = apply("prune", model_of(PRUNABLE["residual"]), ratio="50 %", scope="local").model
        assert pruned.value.stem.out_channels == pruned.value.outer.out_channels == 8

    def test_the_answer_is_never_pruned(self) -> None:
        outcome = apply("prune", model_of(Lone), ratio="50 %")
        assert not outcome.changed
        assert outcome.notes == ("no layer has channels that can be removed",)

    def test_layers_too_narrow_to_round_are_left(self) -> None:
        outcome = apply("prune", model_of(Tiny), ratio="50 %")
        assert not outcome.changed
        assert "no layer is wider than round_to=8" in outcome.notes[0]
        assert apply("prune", model_of(Tiny), ratio="50 %", round_to=1).changed

    def test_twice_is_the_same(self) -> None:
        marks = {
            forms.fingerprint(apply("prune", model_of(Plain), ratio="40 %", round_to=1).model)
            for _ in range(2)
        }
        assert len(marks) == 1


class TestWhatGoes:
    def test_the_weakest_channels(self) -> None:
        model = model_of(Plain)
        weak = [1, 4, 9]
        with torch.no_grad():
            model.value.first.weight[weak] *= 1e-3
            model.value.second.weight[:, weak] *= 1e-3
            model.value.norm.weight[weak] *= 1e-3
        pruned = apply("prune", model, ratio="19 %", scope="local", round_to=1).model
        kept = [index for index in range(16) if index not in weak]
        assert torch.equal(pruned.value.first.weight, model.value.first.weight[kept])

    def test_removing_dead_channels_changes_nothing(self) -> None:
        model = model_of(Plain)
        with torch.no_grad():
            model.value.hidden.weight[8:] = 0
            model.value.hidden.bias[8:] = 0
            model.value.scores.weight[:, 8:] = 0
        outcome = apply("prune", model, ratio="50 %", scope="local", keep=["first", "second"])
        assert outcome.statistics["channels"] == {"hidden": [16, 8]}
        before, after = (forms.call(each, X)["scores"] for each in (model, outcome.model))
        assert np.allclose(before, after, atol=1e-6)

    def test_kept_layers_stay_whole(self) -> None:
        outcome = apply("prune", model_of(Plain), ratio="50 %", keep=["second", "norm"])
        assert set(outcome.statistics["channels"]) == {"hidden"}

    def test_an_unknown_layer_is_named(self) -> None:
        with pytest.raises(InputError, match="prune: keep: the model has no layer 'secnd'"):
            apply("prune", model_of(Plain), ratio="50 %", keep=["secnd"])


class TestBudget:
    @pytest.mark.parametrize("measure", ["macs", "parameters"])
    @pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
    @pytest.mark.parametrize("scope", ["global", "local"])
    def test_is_met_and_not_by_much_more(self, measure: str, share: float, scope: str) -> None:
        outcome = apply(
            "prune",
            model_of(lambda: Plain(32)),
            to={measure: f"{share}x"},
            scope=scope,
            round_to=1,
        )
        before, after = outcome.statistics[measure]
        # One more channel in the widest layer would cost about this much.
        assert share - 0.08 < after / before <= share

    def test_rounding_only_removes_more(self) -> None:
        outcome = apply("prune", model_of(lambda: Plain(32)), to={"macs": "0.5x"}, round_to=8)
        before, after = outcome.statistics["macs"]
        assert after / before <= 0.5
        assert all(width % 8 == 0 for _, width in outcome.statistics["channels"].values())

    def test_out_of_reach_names_what_is_in_reach(self) -> None:
        says = (
            r"prune: to: macs cannot go below 0\.\d\dx \([\d,]+\) with round_to=8; "
            "raise the target or lower"
        )
        with pytest.raises(InputError, match=says):
            apply("prune", model_of(Plain), to={"macs": "0.01x"})


class TestChoose:
    GROUPS = (
        Group("a", 4, (1.0, 2.0, 3.0, 4.0)),
        Group("b", 8, tuple(float(n) for n in range(10, 18))),
    )

    def test_local_takes_the_same_share_of_each(self) -> None:
        assert choose(self.GROUPS, 0.5, "local", 1) == {"a": [2, 3], "b": [4, 5, 6, 7]}

    def test_global_takes_the_weakest_of_all_but_never_a_whole_layer(self) -> None:
        kept = choose(self.GROUPS, 0.5, "global", 1)
        assert kept == {"a": [3], "b": [2, 3, 4, 5, 6, 7]}

    def test_of_equals_the_first_stay(self) -> None:
        assert choose([Group("a", 4, (1.0,) * 4)], 0.5, "local", 1) == {"a": [0, 1]}

    @settings(max_examples=60)
    @given(
        st.lists(st.lists(st.floats(0.01, 10), min_size=1, max_size=20), min_size=1, max_size=4),
        st.floats(0, 1),
        st.sampled_from(["global", "local"]),
        st.sampled_from([1, 4, 8]),
    )
    def test_always_keeps_the_best_of_each_and_at_least_one(
        self, values: list[list[float]], ratio: float, scope: str, round_to: int
    ) -> None:
        groups = [Group(f"g{n}", len(each), tuple(each)) for n, each in enumerate(values)]
        kept = choose(groups, ratio, scope, round_to)
        for group in groups:
            held = kept[group.layer]
            assert held == sorted(set(held))
            assert 1 <= len(held) <= group.width
            assert len(held) == group.width or len(held) % round_to == 0
            gone = set(range(group.width)) - set(held)
            weakest = min(group.importance[index] for index in held)
            assert all(group.importance[index] <= weakest for index in gone)

    @settings(max_examples=30)
    @given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["global", "local"]))
    def test_more_pruning_never_keeps_more(self, one: float, other: float, scope: str) -> None:
        less, more = sorted((one, other))
        for layer, kept in choose(self.GROUPS, more, scope, 1).items():
            assert set(kept) <= set(choose(self.GROUPS, less, scope, 1)[layer])


class TestParameters:
    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"ratio": "50 %", "to": {"macs": "0.5x"}},
            {"ratio": "100 %"},
            {"to": {}},
            {"to": {"macs": "0.5x", "parameters": "0.5x"}},
            {"to": {"macs": "1x"}},
            {"ratio": 0.5},
            {"ratio": "50 %", "round_to": 0},
        ],
    )
    def test_must_make_sense(self, given: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            Prune.model_validate(given)


class TestCost:
    @pytest.mark.parametrize(
        ("module", "macs", "parameters"),
        [
            (lambda: nn.Conv2d(1, 4, 3, padding=1), 36 * 4 * 9, 4 * 9 + 4),
            (lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5)), 36 * 5, 36 * 5 + 5),
        ],
    )
    def test_is_that_of_one_sample(
        self, module: Callable[[], nn.Module], macs: int, parameters: int
    ) -> None:
        class Named(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = module()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                made: torch.Tensor = self.inner(x)
                return made

        assert cost(Named(), X) == {"macs": macs, "parameters": parameters}
        assert math.prod(X["x"].shape[1:]) == 36


def test_many_layers_take_few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    from lepton_compress.compress import channels, trying

    traced, trace = [], trying.Trial._fault

    def counted(*given: Any) -> Any:
        traced.append(1)
        return trace(*given)

    monkeypatch.setattr(trying.Trial, "_fault", counted)

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 8, 1)
            self.layers = nn.Sequential(*(nn.Conv2d(8, 8, 1) for _ in range(15)))
            self.scores = nn.Linear(8, modules.CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.scores(self.layers(self.first(x)).mean((2, 3)))
            return made

    model = model_of(Deep)
    groups, _ = channels.find_groups(model.value, {"x": X["x"][:2]}, set())
    assert len(groups) == 16
    assert len(traced) < 12
