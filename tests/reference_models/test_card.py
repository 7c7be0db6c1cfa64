"""Cards: what they say is worked out from what was measured, and can be read again."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reference_models import card
from reference_models.classifier import labels
from reference_models.train_all import HERE, SCRIPTS, main, trained
from reference_models.training import answers, pictures, restored, save

CARD = card.Card(
    name="net",
    about="A net.",
    data="Some.",
    split="In two.",
    retrain="python -m net",
    measured=(card.accuracy("evaluation", [1, 2, 3, 4], [1, 2, 3, 0]),),
    parameters=1234567,
    macs=None,
    bytes=99,
    seconds=12.6,
    notes=("A note.",),
)


class Net(nn.Module):
    """A convolution and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.dense = nn.Linear(4 * 36, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.dense(torch.relu(self.conv(image)).flatten(1))
        return made


def test_accuracy_has_wilson_s_interval() -> None:
    (measured,) = CARD.measured
    assert (measured.value, measured.samples) == (0.75, 4)
    assert measured.interval == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_size_is_read_off_the_graph() -> None:
    parameters, macs = card.size(Net().eval(), {"image": np.zeros((2, 1, 8, 8), np.float32)})
    assert parameters == 4 * 9 + 4 + 144 * 2 + 2
    assert macs == 36 * 9 * 4 + 144 * 2


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    other = dataclasses.replace(CARD, name="other", macs=5)
    card.write(tmp_path, CARD, other)
    assert card.read(tmp_path) == {"net": CARD, "other": other}
    page = (tmp_path / "CARD.md").read_text()
    assert "| evaluation | accuracy | 75.00 % | 30.06 to 95.44 % | 4 |" in page
    assert "| 1,234,567 | not known | 99 bytes | 13 s |" in page
    assert page.count("\n# ") == 1


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    net = Net().eval()
    assert save(net, tmp_path) == (tmp_path / "weights.safetensors").stat().st_size
    images = np.random.default_rng(0).normal(size=(100, 1, 8, 8)).astype(np.float32)
    again = answers(restored(Net(), tmp_path), {"image": images}, batch=7)
    assert np.allclose(again, answers(net, {"image": images}), atol=1e-6)


def test_pictures_are_normalised_by_channel() -> None:
    raw = np.array([[[[0, 51, 255]]]], np.uint8)
    made = pictures(raw, mean=[0.0, 0.2, 0.5], std=[1.0, 1.0, 0.5])
    assert made.shape == (1, 3, 1, 1)
    assert made.ravel() == pytest.approx([0, 0, 1])


def test_labels_of_scores_and_of_one_probability() -> None:
    assert labels(np.array([[0.1, 0.9], [0.6, 0.4]])).tolist() == [1, 0]
    assert labels(np.array([[0.6], [0.4]])).tolist() == [True, False]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_model_has_its_card(name: str) -> None:
    held = card.read(HERE / name)
    for title, each in held.items():
        assert title == each.name
        assert title.partition("/")[0] == name
        for measured in each.measured:
            low, high = measured.interval
            assert 0 <= low <= measured.value <= high <= 1
    page = (HERE / name / "CARD.md").read_text()
    assert [line.removeprefix("# ") for line in page.splitlines() if line.startswith("# ")] == [
        *held
    ]


@pytest.mark.slow
def test_the_digits_are_trained_again_to_the_same() -> None:
    before = (HERE / "digits_cnn" / "weights.safetensors").read_bytes()
    found = list(trained("digits_cnn", check=True))
    assert found
    assert all(right for _, right in found), found
    assert (HERE / "digits_cnn" / "weights.safetensors").read_bytes() == before


def test_data_that_is_missing_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LEPTON_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["train_all", "--check", "mnist_cnn"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "mnist_cnn: mnist10k.npz: no such file or folder" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_all", "mnist"])
    with pytest.raises(SystemExit, match="unknown model mnist; known are digits_cnn"):
        main()


def test_what_lies_outside_its_card_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(CARD, measured=(card.accuracy("evaluation", [1] * 9, [1] * 9),))
    script = types.SimpleNamespace(main=lambda folder: card.write(folder, other))
    monkeypatch.setattr(importlib, "import_module", lambda name: script)
    monkeypatch.setattr(
        card, "read", lambda folder: {"net": CARD if folder.parent == HERE else other}
    )
    ((line, right),) = trained("digits_cnn", check=True)
    assert not right
    assert line == "net, evaluation: accuracy 1.0000, OUTSIDE 0.3006 to 0.9544"
