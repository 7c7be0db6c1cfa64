"""Objects in memory: equal ones are known again, different ones are never confused."""

from __future__ import annotations

import functools
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lepton_compress.load.memory import identity


class Net(nn.Module):
    def __init__(
        self, act: Any = torch.relu, sizes: tuple[int, ...] = (1, 2), seed: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 2, 3)
        self.gru = nn.GRU(2, 3)
        self.act = act
        self.sizes = list(sizes)


def adder(n: int) -> Callable[[int], int]:
    return lambda x: x + n


def frozen() -> Net:
    net = Net()
    net.conv.weight.requires_grad_(False)
    return net


def tied(really: bool) -> nn.Module:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight if really else nn.Parameter(first.weight.detach().clone())
    second.bias = first.bias if really else nn.Parameter(first.bias.detach().clone())
    with torch.no_grad():
        first.weight.fill_(1)
        first.bias.fill_(1)
        second.weight.fill_(1)
        second.bias.fill_(1)
    return nn.Sequential(first, second)


@pytest.mark.parametrize(
    "make",
    [Net, lambda: Net(functional.gelu), lambda: adder(1), lambda: functools.partial(max, 1)],
)
def test_equal_objects_are_known_again(make: Callable[[], Any]) -> None:
    assert identity(make()) == identity(make())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Net(), Net(seed=1)),
        (Net(), Net(torch.tanh)),
        (Net(), Net(sizes=(1, 3))),
        (Net(), frozen()),
        (Net(adder(1)), Net(adder(2))),
        (tied(True), tied(False)),
        (adder(1), adder(2)),
        (lambda x: x + 1, lambda x: x + 2),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.ones(2, 3), torch.ones(3, 2)),
    ],
)
def test_different_objects_are_told_apart(one: Any, other: Any) -> None:
    assert identity(one) != identity(other)


def test_what_cannot_be_read_is_new_each_time() -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    assert identity(stream) != identity(stream)
    holder = Net()
    holder.log = stream  # type: ignore[assignment]
    assert identity(holder) != identity(holder)


def test_a_function_that_calls_itself_can_be_read() -> None:
    def outer() -> Callable[[int], int]:
        def inner(n: int) -> int:
            return inner(n - 1) if n else 0

        return inner

    assert identity(outer()) == identity(outer())


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        torch.manual_seed(0)\n"
        "        self.gru = nn.GRU(2, 3)\n"
        "        self.names = {'a': [1.5, 'b']}\n"
    )
    code = (
        "import own; from lepton_compress.load.memory import identity; print(identity(own.Net()))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(said) == 1
