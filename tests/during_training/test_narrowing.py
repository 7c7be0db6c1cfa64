"""Optimisers that follow a module which gets smaller."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lepton_compress.compress.groups import Group, Member, Part
from lepton_compress.during_training.narrowing import at_rest, narrow

Make = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.01),
}
STAY = [0, 2, 3]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.second = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.second(torch.relu(self.first(x)))
        return made


def hidden() -> Group:
    places = tuple((index,) for index in range(5))
    members = (
        Member("first", "weight", 0, places),
        Member("first", "bias", 0, places),
        Member("second", "weight", 1, places, takes=True),
    )
    return Group("first", 5, (1.0,) * 5, parts=(Part(members, tuple(range(5))),))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, y = torch.randn(8, 4, generator=draw), torch.randn(8, 2, generator=draw)
    optimizer.zero_grad()
    (net(x) - y).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_left_trains_as_it_did_in_the_whole(name: str) -> None:
    torch.manual_seed(0)
    whole = Net()
    mask = torch.zeros(5)
    mask[STAY] = 1

    def shut() -> None:
        # A channel that nothing reads and that is shut gives and takes nothing.
        with torch.no_grad():
            whole.second.weight.mul_(mask)
            whole.first.weight.mul_(mask[:, None])
            whole.first.bias.mul_(mask)

    shut()
    small = copy.deepcopy(whole)
    ours, theirs = OPTIMIZERS[name](small.parameters()), OPTIMIZERS[name](whole.parameters())
    for seed in range(3):
        for net, optimizer in ((small, ours), (whole, theirs)):
            step(net, optimizer, seed)
    shut()
    with torch.no_grad():
        for mine, other in zip(small.parameters(), whole.parameters(), strict=True):
            mine.copy_(other)
    assert narrow(small, [hidden()], {"first": STAY}, [ours]) == [
        "first.bias",
        "first.weight",
        "second.weight",
    ]
    assert [tuple(each.shape) for each in small.parameters()] == [(3, 4), (3,), (2, 3), (2,)]
    for seed in range(3, 6):
        for net, optimizer in ((small, ours), (whole, theirs)):
            step(net, optimizer, seed)
        shut()
    torch.testing.assert_close(small.first.weight, whole.first.weight[STAY])
    torch.testing.assert_close(small.first.bias, whole.first.bias[STAY])
    torch.testing.assert_close(small.second.weight, whole.second.weight[:, STAY])
    assert {id(p) for group in ours.param_groups for p in group["params"]} == {
        id(p) for p in small.parameters()
    }


def test_a_state_of_another_shape_starts_anew() -> None:
    net = Net()
    optimizer = torch.optim.Adafactor(net.parameters(), 0.01)
    step(net, optimizer, 0)
    narrow(net, [hidden()], {"first": STAY}, [optimizer])
    assert net.first.weight not in optimizer.state
    assert net.second.bias in optimizer.state
    step(net, optimizer, 1)


def test_a_wrapped_optimiser_is_found() -> None:
    class Wrapper:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    wrapped: Any = Wrapper(optimizer)
    narrow(net, [hidden()], {"first": STAY}, [wrapped])
    assert optimizer.param_groups[0]["params"][0] is net.first.weight


def test_frozen_parameters_stay_frozen() -> None:
    net = Net()
    net.first.weight.requires_grad_(False)
    narrow(net, [hidden()], {"first": STAY}, [])
    assert not net.first.weight.requires_grad
    assert net.first.bias.requires_grad


def test_looking_at_a_module_leaves_its_modes() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    net.train()
    net[1].eval()
    held = net[0].weight
    with at_rest(net):
        assert not any(each.training for each in net.modules())
    assert [each.training for each in net.modules()] == [True, True, False, True]
    assert net[0].weight is held
