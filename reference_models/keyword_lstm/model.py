"""A long short-term memory (Hochreiter and Schmidhuber, 1997) for spoken words."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


class KeywordLstm(nn.Module):
    """One LSTM, whose states are averaged over time, and a dense layer. Takes `features`
    (batch, frames, 40) float32, which are normalised log-mel bands, and gives scores
    (batch, words)."""

    def __init__(self, bands: int = 40, width: int = 64, words: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bands, width, batch_first=True)
        self.dropout = nn.Dropout(0.3)
        self.scores = nn.Linear(width, words)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(features)
        scores: torch.Tensor = self.scores(self.dropout(states.mean(1)))
        return scores


def trained() -> KeywordLstm:
    """The network with its trained weights, ready for inference."""
    model = KeywordLstm()
    model.load_state_dict(load_file(Path(__file__).parent / "weights.safetensors"))
    return model.eval()
