"""What weights are quantised of: a small transformer encoder, trained here on film reviews.

Pang and Lee's 10,662 sentences, positive or negative; the network is as wide as a small published
encoder (hidden 256, feed-forward 1024) and trains in minutes on two cores.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy, gelu

LENGTH, WORDS = 32, 4000
HIDDEN, WIDE, HEADS, LAYERS = 256, 1024, 4, 2
CALIBRATION, EVALUATION = 128, 2000
EPOCHS, BATCH, RATE = 4, 32, 1e-3
SEED = 0

Splits = dict[str, tuple[np.ndarray, np.ndarray]]


def load() -> Splits:
    """Disjoint splits of tokens (n, 32) int64, 0 where a sentence has ended, and labels (n,) int64.

    Raises:
        SystemExit: `LEPTON_DATA` is not set, or holds no reviews.
    """
    folder = Path(os.environ.get("LEPTON_DATA", ""))
    if not os.environ.get("LEPTON_DATA") or not (folder / "rt-polarity.pos").is_file():
        raise SystemExit("set LEPTON_DATA to a folder that holds rt-polarity.pos and .neg")
    texts, labels = [], []
    for label, name in enumerate(("neg", "pos")):
        lines = (folder / f"rt-polarity.{name}").read_text(encoding="utf-8").splitlines()
        texts += [re.findall(r"[a-z0-9']+", line.lower()) for line in lines if line.strip()]
        labels += [label] * (len(texts) - len(labels))
    order = np.random.default_rng(SEED).permutation(len(texts))
    ends = len(order) - EVALUATION, len(order)
    counts = Counter(word for index in order[: ends[0]] for word in texts[index])
    numbers = {word: place + 2 for place, (word, _) in enumerate(counts.most_common(WORDS - 2))}
    tokens = np.zeros((len(texts), LENGTH), np.int64)
    for row, index in enumerate(order):
        known = [numbers.get(word, 1) for word in texts[index][:LENGTH]]
        tokens[row, : len(known)] = known
    held = np.array(labels, np.int64)[order]
    parts = zip(
        ("train", "calibration", "evaluation"),
        np.split(np.arange(len(order)), [ends[0] - CALIBRATION, ends[0]]),
        strict=True,
    )
    return {name: (tokens[rows], held[rows]) for name, rows in parts}


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.query, self.key, self.value, self.out = (nn.Linear(HIDDEN, HIDDEN) for _ in range(4))
        self.up, self.down = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: torch.Tensor, blind: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, HIDDEN) to the same; `blind` (batch, 1, 1, tokens) is added to scores."""
        normed = self.before(x)
        query, key, value = (
            each(normed).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) * (HIDDEN // HEADS) ** -0.5 + blind
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.down(gelu(self.up(self.between(x))))


class Encoder(nn.Module):
    """Tokens (batch, tokens) int64 to scores (batch, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, HIDDEN), nn.Embedding(LENGTH * 4, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 2)
        self.drop = nn.Dropout(0.3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The scores of both labels."""
        there = (tokens > 0).to(torch.float32)
        blind = (1 - there)[:, None, None] * -30.0
        x = self.drop(self.words(tokens) + self.places(torch.arange(tokens.shape[1])))
        for layer in self.layers:
            x = layer(x, blind)
        share = there.unsqueeze(-1)
        pooled = (self.norm(x) * share).sum(1) / share.sum(1).clamp(min=1.0)
        scores: torch.Tensor = self.head(self.drop(pooled))
        return scores


def trained(splits: Splits, kept: Path | None = None) -> Encoder:
    """The encoder after `EPOCHS` passes; the same each time on one machine.

    Args:
        kept: where its weights are kept for the next time (safetensors).
    """
    torch.manual_seed(SEED)
    net = Encoder().train()
    if kept is not None and kept.is_file():
        net.load_state_dict(load_file(kept))
        return net.eval()
    tokens, labels = (torch.from_numpy(each) for each in splits["train"])
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.05)
    steps = EPOCHS * -(-len(tokens) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(tokens)).split(BATCH):
            optimiser.zero_grad()
            cross_entropy(net(tokens[rows]), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    if kept is not None:
        save_file(net.state_dict(), kept)
    return net.eval()
