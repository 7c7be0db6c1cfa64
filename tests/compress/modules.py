"""Small torch networks of every kind that is pruned and trained, and data for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lepton_compress.artifacts import Dataset, Model, Split, StepContext, StepOutcome
from lepton_compress.export.lower import lower
from lepton_compress.load import forms
from lepton_compress.load.data import make_dataset
from lepton_compress.registry import get
from lepton_compress.report.silent import Silent

CLASSES = 3
# Threads that wait for one another on a busy machine take longer than such small sums.
torch.set_num_threads(1)


class Plain(nn.Module):
    """Two convolutions and two dense layers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.hidden = nn.Linear(width * 4, width)
        self.scores = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(torch.relu(self.norm(self.first(x))), 3)
        x = torch.relu(self.hidden(torch.relu(self.second(x)).flatten(1)))
        made: torch.Tensor = self.scores(x)
        return made


class Residual(nn.Module):
    """Channels that an addition ties together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.outer = nn.Conv2d(16, 16, 3, padding=1)
        self.scores = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        made: torch.Tensor = self.scores(x.mean((2, 3)))
        return made


class Separable(nn.Module):
    """A depthwise convolution between two pointwise ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 32, 1)
        self.scores = nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.point(torch.relu(self.depth(torch.relu(self.first(x))))))
        made: torch.Tensor = self.scores(x.mean((2, 3)))
        return made


class Concat(nn.Module):
    """Two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 16, 3, padding=1)
        self.right = nn.Conv2d(1, 16, 1)
        self.scores = nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        made: torch.Tensor = self.scores(x.mean((2, 3)))
        return made


class Padded(nn.Module):
    """A shortcut without weights that pads channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.outer = nn.Conv2d(32, 32, 3, padding=1)
        self.shortcut: Callable[[torch.Tensor], torch.Tensor] = lambda x: functional.pad(
            x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8)
        )
        self.scores = nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.shortcut(x) + self.outer(torch.relu(self.inner(x))))
        made: torch.Tensor = self.scores(x.mean((2, 3)))
        return made


class Attends(nn.Module):
    """Attention, whose heads have a fixed width, and a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.qkv = nn.Linear(16, 48)
        self.merge = nn.Linear(16, 16)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16)
        self.scores = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x.squeeze(1))
        q, k, v = self.qkv(x).reshape(len(x), 6, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.merge(mixed.transpose(1, 2).reshape(len(x), 6, 16))
        x = x + self.down(torch.relu(self.up(x)))
        made: torch.Tensor = self.scores(x.mean(1))
        return made


class Tiny(nn.Module):
    """Layers that are narrower than any rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3)
        self.scores = nn.Linear(3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.scores(torch.relu(self.first(x)).mean((2, 3)))
        return made


class Lone(nn.Module):
    """A single layer, whose channels are the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(36, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.scores(x.flatten(1))
        return made


PRUNABLE: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "residual": Residual,
    "separable": Separable,
    "concat": Concat,
    "padded shortcut": Padded,
    "attention": Attends,
}


def dataset(labels: bool = True, seed: int = 0, count: int = 96) -> Dataset:
    """Noisy patterns, one a class."""
    draw = np.random.default_rng(seed)
    patterns = draw.normal(size=(CLASSES, 1, 6, 6))

    def split(size: int) -> Any:
        held = draw.integers(CLASSES, size=size)
        images = patterns[held] + draw.normal(scale=0.5, size=(size, 1, 6, 6))
        return images.astype(np.float32), held

    made = {"train": split(count), "calibration": split(16), "evaluation": split(64)}
    if not labels:
        made["train"] = (made["train"][0], None)
    return make_dataset(made, "data")


def model_of(module: nn.Module | Callable[[], nn.Module], seed: int = 0) -> Model:
    """A module ready for steps; a class is built with a seed."""
    if not isinstance(module, nn.Module):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = module()
    specs = forms.input_specs({"x": np.zeros((1, 1, 6, 6), np.float32)}, ["x"])
    return Model("module", module.eval(), specs, ("scores",))


def apply(step: str, model: Model, data: Dataset | None = None, /, **given: Any) -> StepOutcome:
    """Run a step on a module as the pipeline does, and hold it to its contract."""
    plugin = get("step", step)
    original = given.pop("original", model)
    # An export takes seconds; a test of exports asks for it.
    exports = given.pop("exports", step != "prune")
    context = StepContext(
        data=data or dataset(),
        original=lambda: forms.duplicate(original),
        seed=given.pop("seed", 0),
        metric=given.pop("metric", None),
        threads=1,
        observer=Silent(),
        lower=(lambda each: lower(each, (data or dataset()).calibration)) if exports else None,
        open=given.pop("open", None),
    )
    before = forms.fingerprint(model)
    outcome: StepOutcome = plugin.function(model, plugin.params(**given), context)
    assert forms.fingerprint(model) == before, "the model was touched"
    assert outcome.changed == (forms.fingerprint(outcome.model) != before)
    return outcome


def accuracy(model: Model, split: Split) -> float:
    """Share of labels that the model gets right."""
    scores = forms.call(model, dict(split.named(["x"]).inputs))["scores"]
    return float((scores.argmax(1) == split.targets).mean())
