"""Two small convolutional networks for digits of 28x28."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


class MnistBinary(nn.Module):
    """Is it 5 or more? Two convolutions, two dense layers. Takes `image` (batch, 1, 28, 28) float32
    from 0 to 1, gives a probability (batch, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(64 * 5 * 5, 64)
        self.score = nn.Linear(64, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv1(image)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = torch.relu(self.hidden(x.flatten(1)))
        return torch.sigmoid(self.score(x))


class MnistDigits(nn.Module):
    """Which digit? One convolution, two dense layers. Takes `image` (batch, 1, 28, 28) float32 from
    0 to 1, gives scores (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(32 * 13 * 13, 128)
        self.scores = nn.Linear(128, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv(image)))
        x = torch.relu(self.hidden(x.flatten(1)))
        scores: torch.Tensor = self.scores(x)
        return scores


def trained(*, binary: bool = False) -> nn.Module:
    """One of the networks with its trained weights, ready for inference."""
    model = MnistBinary() if binary else MnistDigits()
    name = "binary.safetensors" if binary else "digits.safetensors"
    model.load_state_dict(load_file(Path(__file__).parent / name))
    return model.eval()
