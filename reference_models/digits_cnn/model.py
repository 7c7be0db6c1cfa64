"""A small convolutional network for 8x8 handwritten digits."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


class DigitsCnn(nn.Module):
    """Three convolutions, two dense layers. Takes `image` (batch, 1, 8, 8) float32 from 0 to 1,
    gives scores (batch, 10)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * width)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(4 * width * 4, 4 * width)
        self.scores = nn.Linear(4 * width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm1(self.conv1(image)))
        x = self.pool(torch.relu(self.norm2(self.conv2(x))))
        x = self.pool(torch.relu(self.norm3(self.conv3(x))))
        x = torch.relu(self.hidden(x.flatten(1)))
        scores: torch.Tensor = self.scores(x)
        return scores


def trained() -> DigitsCnn:
    """The network with its trained weights, ready for inference."""
    model = DigitsCnn()
    model.load_state_dict(load_file(Path(__file__).parent / "weights.safetensors"))
    return model.eval()
