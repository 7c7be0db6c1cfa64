"""MobileNetV1 at a quarter of its width, the visual wake words network of MLPerf Tiny (Banbury et
al., 2021; Howard et al., 2017)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

WIDTHS = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)]
WIDTHS += [(128, 1)] * 5 + [(256, 2), (256, 1)]
"""Channels and stride of each separable convolution, at a quarter."""


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A convolution of each channel, and one across them, each normalised."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class MobileNetV1(nn.Module):
    """A convolution, 13 separable ones, a dense layer. Takes `image` (batch, 3, 96, 96) float32
    from -1 to 1, gives scores (batch, classes)."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        first = nn.Conv2d(3, 8, 3, 2, padding=1, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU())
        inputs = [8, *(width for width, _ in WIDTHS)]
        self.body = nn.Sequential(
            *(separable(a, b, stride) for a, (b, stride) in zip(inputs, WIDTHS, strict=False))
        )
        self.scores = nn.Linear(256, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.body(self.stem(image))
        scores: torch.Tensor = self.scores(x.mean((2, 3)))
        return scores


def trained() -> MobileNetV1:
    """The network with its trained weights, ready for inference."""
    model = MobileNetV1()
    model.load_state_dict(load_file(Path(__file__).parent / "weights.safetensors"))
    return model.eval()
