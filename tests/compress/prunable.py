"""Networks whose heads, hidden units or couplings pruning must get right; all take `x`
(batch, 1, 6, 6), most as six steps of six values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.compress.modules import CLASSES


class Encoder(nn.Module):
    """Torch's own transformer."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=batch_first)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.scores = nn.Linear(32, CLASSES)
        self.turn = not batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.squeeze(1))
        mixed: Tensor = self.layers(x.transpose(0, 1) if self.turn else x)
        made: Tensor = self.scores(mixed.mean(0 if self.turn else 1))
        return made


class Separate(nn.Module):
    """Queries, keys and values apart, their split into heads by an attribute."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.inner = heads, 32
        self.embed, self.norm = nn.Linear(6, 32), nn.LayerNorm(32)
        self.places = nn.Parameter(torch.randn(6, 32))
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.merge, self.scores = nn.Linear(32, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.squeeze(1)) + self.places
        q, k, v = (
            each(self.norm(x)).view(len(x), 6, self.heads, 8).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        mixed = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1) @ v
        x = x + self.merge(mixed.transpose(1, 2).reshape(len(x), 6, self.inner))
        made: Tensor = self.scores(x.mean(1))
        return made


class Packed(nn.Module):
    """Queries, keys and values in one layer: one after the other, or head by head."""

    def __init__(self, by_head: bool = False) -> None:
        super().__init__()
        self.num_heads, self.by_head = 4, by_head
        self.embed, self.qkv = nn.Linear(6, 32), nn.Linear(32, 96)
        self.merge, self.scores = nn.Linear(32, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.squeeze(1))
        packed = self.qkv(x)
        if self.by_head:
            q, k, v = packed.view(len(x), 6, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = packed.view(len(x), 6, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.merge(mixed.transpose(1, 2).flatten(2))
        made: Tensor = self.scores(x.mean(1))
        return made


class Recurrent(nn.Module):
    """A recurrent layer between two dense ones."""

    def __init__(self, kind: type[nn.RNNBase] = nn.GRU, last: bool = False, **given: Any) -> None:
        super().__init__()
        make: Any = kind
        self.embed = nn.Linear(6, 16)
        self.layer = make(16, 24, batch_first=True, **given)
        self.scores = nn.Linear(24 * (2 if self.layer.bidirectional else 1), CLASSES)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        states, end = self.layer(torch.relu(self.embed(x.squeeze(1))))
        ends = end[0] if isinstance(end, tuple) else end
        both = torch.cat([ends[-2], ends[-1]], 1) if self.layer.bidirectional else ends[-1]
        made: Tensor = self.scores(both if self.last else states.mean(1))
        return made


class Chained(nn.Module):
    """Two recurrent layers that are added, the first of which is given its first state."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 24
        self.one, self.two = (nn.GRU(n, 24, batch_first=True) for n in (6, 24))
        self.scores = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        begin = torch.zeros(1, len(x), self.hidden, dtype=x.dtype)
        first, _ = self.one(x.squeeze(1), begin)
        made: Tensor = self.scores((first + self.two(first)[0]).mean(1))
        return made


class Mixed(nn.Module):
    """Convolutions before a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(6, 16, 3, padding=1), nn.BatchNorm1d(16)
        self.gru, self.scores = nn.GRU(16, 24, batch_first=True), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x.squeeze(1)))).transpose(1, 2)
        made: Tensor = self.scores(self.gru(x)[0][:, -1])
        return made


class Dense(nn.Module):
    """Concatenations of concatenations, which torch-pruning counts wrongly, then flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.three = nn.BatchNorm2d(32), nn.Conv2d(32, 16, 3, padding=1)
        self.hidden, self.scores = nn.Linear(48 * 36, 24), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        x = torch.cat([x, self.two(x)], 1)
        x = torch.cat([x, self.three(torch.relu(self.norm(x)))], 1)
        made: Tensor = self.scores(torch.relu(self.hidden(x.flatten(1))))
        return made


class Odd(nn.Module):
    """A grouped convolution, a normalisation over groups, tied weights and a parametrization: what
    stays whole; and one layer that need not."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped, self.norm = nn.Conv2d(1, 16, 1), nn.GroupNorm(4, 16)
        self.halves = nn.Conv2d(16, 16, 1, groups=2)
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
        self.two.weight = self.one.weight
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
        self.free, self.scores = nn.Linear(16, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.halves(torch.relu(self.norm(self.grouped(x)))).mean((2, 3))
        x = torch.relu(self.two(torch.relu(self.one(x))))
        made: Tensor = self.scores(torch.relu(self.free(torch.relu(self.weighted(x)))))
        return made


class Literal(nn.Module):
    """Heads that stand in forward() as numbers, so that none can go."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Linear(6, 32), nn.Linear(32, 96)
        self.merge, self.scores = nn.Linear(32, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.squeeze(1))
        q, k, v = self.qkv(x).view(len(x), 6, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        made: Tensor = self.scores((x + self.merge(mixed.transpose(1, 2).flatten(2))).mean(1))
        return made


NETS: dict[str, tuple[Callable[[], nn.Module], set[tuple[str, str, int]]]] = {
    "encoder": (
        Encoder,
        {
            ("layers.layers.0.self_attn", "heads", 4),
            ("layers.layers.0.linear1", "channels", 64),
            ("layers.layers.1.self_attn", "heads", 4),
            ("layers.layers.1.linear1", "channels", 64),
            ("layers.layers.1.linear2", "channels", 32),
        },
    ),
    "time first": (
        lambda: Encoder(batch_first=False),
        {
            ("layers.layers.0.self_attn", "heads", 4),
            ("layers.layers.0.linear1", "channels", 64),
            ("layers.layers.1.self_attn", "heads", 4),
            ("layers.layers.1.linear1", "channels", 64),
            ("layers.layers.1.linear2", "channels", 32),
        },
    ),
    "separate": (Separate, {("value", "heads", 4), ("merge", "channels", 32)}),
    "packed": (Packed, {("qkv", "heads", 4), ("embed", "channels", 32)}),
    "by head": (lambda: Packed(by_head=True), {("qkv", "heads", 4), ("embed", "channels", 32)}),
    "rnn": (lambda: Recurrent(nn.RNN), {("embed", "channels", 16), ("layer", "units", 24)}),
    "gru": (Recurrent, {("embed", "channels", 16), ("layer", "units", 24)}),
    "lstm": (lambda: Recurrent(nn.LSTM), {("embed", "channels", 16), ("layer", "units", 24)}),
    "stacked": (
        lambda: Recurrent(nn.LSTM, last=True, num_layers=2),
        {("embed", "channels", 16), ("layer", "units", 24)},
    ),
    "bidirectional": (
        lambda: Recurrent(nn.GRU, bidirectional=True),
        {("embed", "channels", 16), ("layer", "units", 24)},
    ),
    "stacked both ways": (
        lambda: Recurrent(nn.LSTM, last=True, num_layers=2, bidirectional=True),
        {("embed", "channels", 16), ("layer", "units", 24)},
    ),
    "chained": (Chained, {("one", "units", 24)}),
    "mixed": (Mixed, {("conv", "channels", 16), ("gru", "units", 24)}),
    "dense": (Dense, {("hidden", "channels", 24)}),
    "odd": (Odd, {("free", "channels", 16)}),
    "literal": (Literal, {("embed", "channels", 32)}),
}
"""By name: the network, and the layers, kinds and widths that can be pruned."""
