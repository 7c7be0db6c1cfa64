"""A small transformer encoder for sentences (Vaswani et al., 2017; normalised before each part)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from reference_models.words import WordDropout, embedding, mean


class SentimentTransformer(nn.Module):
    """Encoder layers over token and position embeddings; the mean of what comes out and the mean of
    the token embeddings, side by side, give the scores. Takes `ids` (batch, length) int64, numbers
    of tokens with 0 behind the end, and gives scores (batch, 2)."""

    def __init__(
        self,
        vocabulary: int = 8000,
        length: int = 64,
        width: int = 64,
        heads: int = 4,
        layers: int = 1,
    ) -> None:
        super().__init__()
        self.forget = WordDropout(0.4)
        self.embed = embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.dropout = nn.Dropout(0.5)
        self.scores = nn.Linear(2 * width, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        there = (ids != 0).float()
        embedded = self.embed(self.forget(ids))
        x = embedded + self.positions
        for layer in self.layers:
            x = layer(x, there)
        both = torch.cat([mean(x, there), mean(embedded, there)], 1)
        scores: torch.Tensor = self.scores(self.dropout(both))
        return scores


class Layer(nn.Module):
    """Attention among the tokens that are there, and two dense layers; each adds to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.dense_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.mix = nn.Linear(width, width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self._attended(self.attention_norm(x), there))
        dense = self.narrow(torch.relu(self.widen(self.dense_norm(x))))
        made: torch.Tensor = x + self.dropout(dense)
        return made

    def _attended(self, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        size = self.query.out_features // self.heads  # of a head; fewer of them leave it as it is
        query, key, value = (
            each(x).view(batch, length, self.heads, size).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        alike = query @ key.transpose(2, 3) / size**0.5
        weights = (alike + 1e4 * (there - 1)[:, None, None]).softmax(-1)
        heads = (weights @ value).transpose(1, 2)
        mixed: torch.Tensor = self.mix(heads.reshape(batch, length, self.heads * size))
        return mixed


def trained() -> SentimentTransformer:
    """The network with its trained weights, ready for inference."""
    model = SentimentTransformer()
    model.load_state_dict(load_file(Path(__file__).parent / "weights.safetensors"))
    return model.eval()
