"""What the networks for sentences share: token 0 stands behind the end, token 1 is unknown."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

UNKNOWN = 1


class WordDropout(nn.Module):
    """In training, replaces a share of the tokens by the unknown one (Iyyer et al., 2015)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return ids
        lost = (torch.rand(ids.shape) < self.share) & (ids != 0)
        return torch.where(lost, torch.full_like(ids, UNKNOWN), ids)


def embedding(vocabulary: int, width: int) -> nn.Embedding:
    """Small to begin with; zeros behind the end."""
    made = nn.Embedding(vocabulary, width, padding_idx=0)
    with torch.no_grad():
        made.weight.normal_(std=0.1)
        made.weight[0] = 0
    return made


def begin_with(embed: nn.Embedding, scores: nn.Linear, ratios: np.ndarray) -> None:
    """Let training begin at naive Bayes: the first feature of a token is its logarithm of ratios,
    and the scores of two classes add up its mean.

    Args:
        scores: takes the mean of the embeddings last.
        ratios: float32 (vocabulary).
    """
    with torch.no_grad():
        embed.weight[:, 0] = torch.from_numpy(ratios)
        scores.weight[:, -embed.embedding_dim] = torch.tensor([-3.0, 3.0])


def mean(values: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """The mean (batch, width) of values (batch, length, width) over the tokens that are there,
    (batch, length) of 0 and 1."""
    total = (values * there.unsqueeze(2)).sum(1)
    return total / there.sum(1, keepdim=True).clamp(min=1)
