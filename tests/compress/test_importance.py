"""What each criterion takes for important: channels planted to matter, or not to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lepton_compress.compress.channels import find_groups
from lepton_compress.compress.importance import magnitude, rate
from lepton_compress.compress.observing import BATCH
from lepton_compress.compress.training import task_loss
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from lepton_compress.report.silent import Silent
from tests.compress import modules
from tests.compress.modules import Plain, apply, dataset, model_of
from tests.compress.prunable import NETS, Encoder, Recurrent

TWO = {"x": np.random.default_rng(1).normal(size=(2, 1, 6, 6)).astype(np.float32)}
CRITERIA = ("l1", "l2", "batch_norm", "taylor", "activation")


class Normed(nn.Module):
    """Two convolutions with batch normalisation; 5 channels of each are planted to be weak."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm_one = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.two, self.norm_two = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.scores = nn.Linear(16, modules.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm_one(self.one(x)))
        x = torch.relu(self.norm_two(self.two(x)))
        made: torch.Tensor = self.scores(x.mean((2, 3)))
        return made


WEAK = [1, 4, 7, 9, 15]


def planted(share: float = 0.01) -> Normed:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Normed().eval()
    with torch.no_grad():
        for norm in (made.norm_one, made.norm_two):
            norm.weight[WEAK] *= share
            norm.bias[WEAK] = 0
        for conv, reads in ((made.one, made.two), (made.two, made.scores)):
            conv.weight[WEAK] *= share
            reads.weight[:, WEAK] *= share
    return made


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("scope", ["global", "local"])
def test_what_was_planted_weak_goes(criterion: str, scope: str) -> None:
    model = model_of(planted())
    outcome = apply("prune", model, importance=criterion, ratio="31.25 %", scope=scope, round_to=1)
    kept = [at for at in range(16) if at not in WEAK]
    assert outcome.statistics["channels"] == {"one": [16, 11], "two": [16, 11]}
    assert torch.equal(outcome.model.value.norm_one.running_mean, torch.zeros(11))
    assert torch.equal(outcome.model.value.one.bias, model.value.one.bias[kept])
    assert torch.equal(outcome.model.value.two.bias, model.value.two.bias[kept])


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "activation"])
@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_group_is_rated(criterion: str, name: str) -> None:
    model = model_of(NETS[name][0])
    outcome = apply("prune", model, importance=criterion, ratio="50 %", scope="local", round_to=1)
    assert set(outcome.statistics["groups"]) == {layer for layer, _, _ in NETS[name][1]}
    assert forms.call(outcome.model, TWO)["scores"].shape == (2, modules.CLASSES)


class TestMagnitude:
    @pytest.mark.parametrize("power", [1, 2])
    def test_is_the_norm_over_all_weights_of_the_channel(self, power: int) -> None:
        module = planted()
        groups, _ = find_groups(module, TWO, set())
        rated, _ = rate(groups, magnitude(module, power), without="", relative=False)
        first = next(group for group in rated if group.layer == "one")
        wanted = (
            module.one.weight.abs().double().pow(power).sum((1, 2, 3))
            + module.norm_one.weight.abs().double().pow(power)
            + module.two.weight.abs().double().pow(power).sum((0, 2, 3))
        )
        assert np.allclose(first.importance, wanted.detach())


class TestTaylor:
    def test_is_the_derivative_of_a_gate_squared(self) -> None:
        """The definition, by differences: what a gate on the channel does to each batch's loss."""
        model, data = model_of(Plain), dataset(count=BATCH)
        from lepton_compress.compress import observing

        groups, _ = find_groups(model.value, TWO, set())
        group = next(each for each in groups if each.layer == "hidden")
        split = data.train.named(["x"])
        with Silent().work("") as progress:
            criterion, notes = observing.taylor(
                forms.duplicate(model).value,
                groups,
                split,
                lambda: model,
                progress,
            )
        assert notes == ()
        found = criterion(group.parts[0])
        x, targets = (
            torch.from_numpy(split.inputs["x"].copy()).double(),
            torch.tensor(split.targets),
        )
        for channel in range(3):
            losses = []
            for gate in (1 - 1e-4, 1 + 1e-4):
                scaled = forms.duplicate(model).value.double()
                scaled.scores.weight.data[:, channel] *= gate
                losses.append(float(task_loss([scaled(x)], targets).detach()))
            slope = (losses[1] - losses[0]) / 2e-4
            assert found is not None
            assert float(found[channel]) == pytest.approx(slope**2, rel=1e-3, abs=1e-12)

    def test_without_targets_the_classes_of_the_original_count(self) -> None:
        outcome = apply(
            "prune", model_of(Plain), dataset(labels=False), importance="taylor", ratio="50 %"
        )
        assert "importance by the classes that the original model chooses" in outcome.notes[0]

    def test_without_targets_or_classes_it_is_refused(self) -> None:
        class One(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.two = nn.Linear(36, 16), nn.Linear(16, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                made: torch.Tensor = self.two(torch.relu(self.one(x.flatten(1))))
                return made

        with pytest.raises(InputError, match="needs the train split's targets"):
            apply("prune", model_of(One), dataset(labels=False), importance="taylor", ratio="50 %")


class TestActivation:
    def test_what_never_fires_goes_though_its_weights_are_large(self) -> None:
        model = model_of(Plain)
        with torch.no_grad():
            model.value.hidden.bias[:8] = -1000.0
            model.value.hidden.bias[8:] = torch.linspace(1, 2, 8)
            model.value.scores.weight[:, :8] *= 100
        given = {"ratio": "50 %", "scope": "local", "keep": ["first", "second"]}
        by = {
            kind: apply("prune", model, importance=kind, **given).model.value.hidden.bias
            for kind in ("l2", "activation")
        }
        assert torch.equal(by["activation"], model.value.hidden.bias[8:])
        assert torch.equal(by["l2"], model.value.hidden.bias[:8])

    def test_units_of_a_recurrent_layer_that_stay_at_nothing(self) -> None:
        model = model_of(Recurrent)
        idle = [0, 5, 11, 23]
        with torch.no_grad():
            rows = [gate * 24 + at for gate in range(3) for at in idle]
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(model.value.layer, name)[rows] = 0
            model.value.scores.weight[:, idle] = 9
        outcome = apply(
            "prune", model, importance="activation", ratio="16.6 %", scope="local", round_to=1,
            keep=["embed"],
        )  # fmt: skip
        assert outcome.statistics["channels"] == {"layer": [24, 21]}
        assert not bool((outcome.model.value.scores.weight == 9).all(0).sum() > 1)


class TestBatchNorm:
    def test_layers_without_it_stay_whole(self) -> None:
        outcome = apply(
            "prune", model_of(Plain), importance="batch_norm", ratio="50 %", scope="local"
        )
        assert set(outcome.statistics["channels"]) == {"first"}
        assert any("no batch normalisation scales its channels" in each for each in outcome.notes)

    def test_a_network_without_any_is_refused(self) -> None:
        says = "prune: importance: batch_norm says nothing of any layer.*take importance: l2"
        with pytest.raises(InputError, match=says):
            apply("prune", model_of(Encoder), importance="batch_norm", ratio="50 %")


def test_parts_lose_their_own_units() -> None:
    model = model_of(lambda: Recurrent(nn.GRU, bidirectional=True))
    with torch.no_grad():
        for end, weak in (("l0", [2, 3]), ("l0_reverse", [7, 8])):
            rows = [gate * 24 + at for gate in range(3) for at in weak]
            getattr(model.value.layer, f"weight_ih_{end}")[rows] *= 1e-3
            getattr(model.value.layer, f"weight_hh_{end}")[rows] *= 1e-3
            getattr(model.value.layer, f"weight_hh_{end}")[:, weak] *= 1e-3
        model.value.scores.weight[:, [2, 3, 24 + 7, 24 + 8]] *= 1e-3
    outcome = apply("prune", model, ratio="8.4 %", scope="local", round_to=1)
    assert outcome.statistics["channels"]["layer"] == [24, 22]
    kept = [at for at in range(48) if at not in (2, 3, 24 + 7, 24 + 8)]
    assert torch.equal(outcome.model.value.scores.weight, model.value.scores.weight[:, kept])
