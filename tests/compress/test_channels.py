"""Groups: found in every kind of network, exact, and kept as data."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_compress.compress.channels import apply, cost, find_groups
from lepton_compress.compress.groups import Group, choose
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from tests.compress import modules, prunable
from tests.compress.modules import model_of
from tests.compress.prunable import NETS

X = {"x": np.random.default_rng(1).normal(size=(5, 1, 6, 6)).astype(np.float32)}
TWO = {"x": X["x"][:2]}


def half(module: nn.Module) -> tuple[nn.Module, list[Group], dict[str, list[int]]]:
    """A copy with half of every group."""
    groups, _ = find_groups(module, TWO, set())
    kept = choose(groups, 0.5, "local", 1)
    made = copy.deepcopy(module)
    apply(made, TWO, groups, kept)
    return made, groups, kept


def unread(module: nn.Module, groups: list[Group], kept: dict[str, list[int]]) -> nn.Module:
    """A copy of the whole network in which no weight reads what is not kept."""
    made = copy.deepcopy(module)
    for group in groups:
        for member in group.members():
            held = getattr(made.get_submodule(member.layer), member.tensor).data
            gone = [
                at
                for n in set(range(group.width)) - set(kept[group.layer])
                for at in member.places[n]
            ]
            if member.takes:
                held.index_fill_(member.axis, torch.tensor(gone), 0.0)
    return made


@pytest.mark.parametrize("name", NETS)
class TestNetworks:
    def test_the_groups_are_found(self, name: str) -> None:
        make, wanted = NETS[name]
        groups, _ = find_groups(model_of(make).value, TWO, set())
        assert {(group.layer, group.kind, group.width) for group in groups} == wanted

    def test_the_module_is_left_alone(self, name: str) -> None:
        model = model_of(NETS[name][0])
        before = forms.fingerprint(model)
        half(model.value)
        assert forms.fingerprint(model) == before
        assert all(each.requires_grad for each in model.value.parameters())

    def test_costs_fall(self, name: str) -> None:
        module = model_of(NETS[name][0]).value
        made, _, _ = half(module)
        before, after = cost(module, X), cost(made, X)
        assert after["macs"] < before["macs"]
        assert after["parameters"] < before["parameters"]

    def test_it_can_be_trained(self, name: str) -> None:
        made, _, _ = half(model_of(NETS[name][0]).value)
        made.train()
        made(torch.from_numpy(X["x"])).sum().backward()
        assert all(each.grad is not None for each in made.parameters() if each.requires_grad)


# Normalisation of the whole width is not the same as of what is left of it.
EXACT = [name for name in NETS if name not in ("encoder", "time first", "separate")]


@pytest.mark.parametrize("name", EXACT)
def test_what_is_left_computes_as_if_nothing_read_the_rest(name: str) -> None:
    module = model_of(NETS[name][0]).value
    made, groups, kept = half(module)
    ours, theirs = (each(torch.from_numpy(X["x"])) for each in (made, unread(module, groups, kept)))
    assert ours.shape == (5, modules.CLASSES)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, module(torch.from_numpy(X["x"])), atol=1e-3)


def test_all_load_again_in_a_process_of_their_own(tmp_path: Path) -> None:
    for name, (make, _) in NETS.items():
        model = model_of(make)
        pruned = model.replace(value=half(model.value)[0])
        (tmp_path / name).mkdir()
        forms.save(pruned, model, tmp_path / name)
        np.save(tmp_path / name / "wanted.npy", forms.call(pruned, X)["scores"])
        assert {each.name for each in (tmp_path / name).iterdir()} == {
            "structure.json",
            "weights.safetensors",
            "wanted.npy",
        }
    np.save(tmp_path / "x.npy", X["x"])
    code = """
import sys
from pathlib import Path
import numpy as np
from lepton_compress.load import forms
from tests.compress.modules import model_of
from tests.compress.prunable import NETS
folder = Path(sys.argv[1])
for name, (make, _) in NETS.items():
    loaded = forms.load(folder / name, lambda: model_of(make, seed=9))
    given = forms.call(loaded, {"x": np.load(folder / "x.npy")})["scores"]
    assert np.array_equal(given, np.load(folder / name / "wanted.npy")), name
    print(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == list(NETS)


class TestWhatStaysWhole:
    def notes(self, make: Any) -> dict[str, str]:
        _, notes = find_groups(model_of(make).value, TWO, set())
        return dict(note.split(" is not pruned: ") for note in notes)

    def test_each_layer_has_its_reason(self) -> None:
        notes = self.notes(prunable.Odd)
        assert "norm is a GroupNorm" in notes["grouped"]
        assert notes["halves"] == "halves is a convolution in groups"
        assert notes["one"] == "the weight of one is shared with two"
        assert notes["two"] == "the weight of two is shared with one"
        assert notes["weighted"] == "weighted computes its weight (a parametrization)"

    def test_heads_that_stand_in_forward_as_numbers(self) -> None:
        assert "shape '[2, 6, 3, 4, 8]' is invalid" in self.notes(prunable.Literal)["qkv"]

    def test_what_torch_pruning_counts_wrongly(self) -> None:
        notes = self.notes(prunable.Dense)
        assert "does not run without one of its channels" in notes["three"]

    def test_states_that_are_projected(self) -> None:
        class Projected(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.Linear(6, 16)
                self.lstm = nn.LSTM(16, 24, batch_first=True, proj_size=16)
                self.scores = nn.Linear(16, modules.CLASSES)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                states, _ = self.lstm(torch.relu(self.embed(x.squeeze(1))))
                made: torch.Tensor = self.scores(states.mean(1))
                return made

        groups, notes = find_groups(model_of(Projected).value, TWO, set())
        assert [group.layer for group in groups] == ["embed"]
        assert notes == ["lstm is not pruned: lstm projects its states (proj_size)"]

    def test_queries_and_keys_of_different_layers(self) -> None:
        class Cross(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.two = nn.Linear(6, 16), nn.Linear(6, 16)
                self.attend = nn.MultiheadAttention(16, 4, batch_first=True)
                self.scores = nn.Linear(16, modules.CLASSES)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                a, b = self.one(x.squeeze(1)), self.two(x.squeeze(1))
                made: torch.Tensor = self.scores(self.attend(a, b, b)[0].mean(1))
                return made

        groups, notes = find_groups(model_of(Cross).value, TWO, set())
        assert {group.layer for group in groups} == {"attend", "attend.out_proj"}
        assert len(notes) == 2


class TestUntraceable:
    def refused(self, forward: Any) -> str:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.scores = nn.Linear(36, 16), nn.Linear(16, modules.CLASSES)

        Net.forward = forward
        with pytest.raises(InputError) as caught:
            find_groups(model_of(Net).value, TWO, set())
        return str(caught.value)

    def test_an_output_without_a_derivative(self) -> None:
        def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                made: torch.Tensor = self.scores(self.one(x.flatten(1)))
            return made

        said = self.refused(forward)
        assert "no derivative leads from its output to its weights" in said
        assert "no_grad" in said

    def test_a_line_that_leaves_torch(self) -> None:
        def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.scores(torch.from_numpy(self.one(x.flatten(1)).numpy()))
            return made

        said = self.refused(forward)
        assert "at test_channels.py:" in said
        assert "self.one(x.flatten(1)).numpy()" in said
        assert "operators of torch" in said


class TestCost:
    """Products inside of fused kernels count too."""

    def test_of_attention(self) -> None:
        dense = 6 * (6 * 32 + 32 * 96 + 32 * 32) + 32 * 3
        products = 2 * 4 * 6 * 6 * 8
        assert cost(model_of(prunable.Packed).value, X)["macs"] == dense + products

    def test_of_torchs_own_transformer(self) -> None:
        layer = 6 * (32 * 96 + 32 * 32 + 2 * 32 * 64) + 2 * 4 * 6 * 6 * 8
        wanted = 6 * 6 * 32 + 2 * layer + 32 * 3
        assert cost(model_of(prunable.Encoder).value, X)["macs"] == wanted

    @pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
    def test_of_a_recurrent_layer(self, kind: Any, gates: int) -> None:
        wanted = 6 * 6 * 16 + 6 * gates * 24 * (16 + 24) + 24 * 3
        made = model_of(lambda: prunable.Recurrent(kind)).value
        assert cost(made, X)["macs"] == wanted
