"""A dense autoencoder for anomalies in sound, of MLPerf Tiny's shape (Banbury et al., 2021)."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

WIDTH = 640


class DenseAutoencoder(nn.Module):
    """640 numbers through four dense layers of 128 to 8 and back. Takes `features` (batch, 640)
    float32, ten frames of 64 normalised log-mel bands; gives `error` (batch), the mean squared
    difference, and `reconstruction` (batch, 640)."""

    def __init__(self, width: int = WIDTH, hidden: int = 128, code: int = 8) -> None:
        super().__init__()
        sizes = [width, *[hidden] * 4, code, *[hidden] * 4]
        layers: list[nn.Module] = []
        for given, made in itertools.pairwise(sizes):
            layers += [nn.Linear(given, made, bias=False), nn.BatchNorm1d(made), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, width))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        reconstruction = self.layers(features)
        return (reconstruction - features).square().mean(1), reconstruction


def trained() -> DenseAutoencoder:
    """The network with its trained weights, ready for inference."""
    model = DenseAutoencoder()
    model.load_state_dict(load_file(Path(__file__).parent / "weights.safetensors"))
    return model.eval()
