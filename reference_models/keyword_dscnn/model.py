"""A depthwise-separable convolutional network for spoken words, of MLPerf Tiny's shape (Banbury et
al., 2021, after Zhang et al., Hello Edge, 2017)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


class KeywordDsCnn(nn.Module):
    """One convolution and four depthwise-separable blocks. Takes `features` (batch, 1, frames, 10)
    float32, which are normalised MFCCs, and gives scores (batch, words)."""

    def __init__(self, width: int = 64, words: int = 10, blocks: int = 4) -> None:
        super().__init__()
        self.first = _normalised(nn.Conv2d(1, width, (10, 4), 2, (5, 1), bias=False))
        self.blocks = nn.Sequential(*(_separable(width) for _ in range(blocks)))
        self.dropout = nn.Dropout(0.2)
        self.scores = nn.Linear(width, words)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.first(features))
        x = self.dropout(x.mean((2, 3)))
        scores: torch.Tensor = self.scores(x)
        return scores


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


def _separable(width: int) -> nn.Sequential:
    depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    return nn.Sequential(
        _normalised(depthwise), _normalised(nn.Conv2d(width, width, 1, bias=False))
    )


def trained() -> KeywordDsCnn:
    """The network with its trained weights, ready for inference."""
    model = KeywordDsCnn()
    model.load_state_dict(load_file(Path(__file__).parent / "weights.safetensors"))
    return model.eval()
