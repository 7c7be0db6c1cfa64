"""A convolutional network for sentences (Kim, 2014), with the mean of the embeddings beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from reference_models.words import WordDropout, embedding, mean


class TextCnn(nn.Module):
    """Convolutions over two, three and four tokens, their maxima, and the mean embedding. Takes
    `ids` (batch, length) int64, numbers of tokens with 0 behind the end, and gives scores
    (batch, 2)."""

    def __init__(self, vocabulary: int = 8000, width: int = 64, filters: int = 48) -> None:
        super().__init__()
        self.forget = WordDropout(0.3)
        self.embed = embedding(vocabulary, width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, filters, size, padding=size // 2) for size in (2, 3, 4)
        )
        self.dropout = nn.Dropout(0.5)
        self.scores = nn.Linear(3 * filters + width, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        there = (ids != 0).float()
        embedded = self.embed(self.forget(ids))
        across = embedded.transpose(1, 2)
        found = [torch.relu(each(across)).amax(2) for each in self.convolutions]
        scores: torch.Tensor = self.scores(
            self.dropout(torch.cat([*found, mean(embedded, there)], 1))
        )
        return scores


def trained() -> TextCnn:
    """The network with its trained weights, ready for inference."""
    model = TextCnn()
    model.load_state_dict(load_file(Path(__file__).parent / "weights.safetensors"))
    return model.eval()
