"""The benchmark of pruning: the peer's recipe, what is kept between runs, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.pruning import __main__ as command
from benchmarks.pruning import against, peer, small
from benchmarks.pruning.page import page
from benchmarks.tasks import Task
from benchmarks.trained import about, fewer
from lepton_compress.artifacts import Dataset, Split
from tests.bench import splits, trained


def task(name: str = "tiny") -> Task:
    train, calibration, evaluation = (
        Split({"image": splits()[part][0]}, splits()[part][1])
        for part in ("train", "calibration", "evaluation")
    )
    return Task(trained(), Dataset(train, calibration, evaluation, name))


class TestPeer:
    def test_removes_the_share_and_leaves_the_classifier(self) -> None:
        given = task()
        made = peer.pruned(given, 0.5)
        assert (made.conv1.out_channels, made.conv2.out_channels) == (8, 8)
        assert made.scores.out_features == given.network.scores.out_features
        assert given.network.conv1.out_channels == 16
        assert all(each.grad is None for each in made.parameters())

    def test_keeps_the_number_of_heads(self) -> None:
        import torch

        from reference_models.sentiment_transformer.model import SentimentTransformer

        network = SentimentTransformer(vocabulary=50, length=8, width=64).eval()
        ids = np.arange(16, dtype=np.int64).reshape(2, 8)
        split = Split({"ids": ids})
        made = peer.pruned(Task(network, Dataset(split, split, split, "words")), 0.5)
        layer = made.layers[0]
        assert layer.heads == 4
        assert layer.query.out_features == 32
        assert made(torch.from_numpy(ids)).shape == (2, 2)


def test_gain_is_of_the_same_samples() -> None:
    base = np.array([[1.0, 0.0] * 50, [1.0, 0.0] * 50])
    better = np.ones((2, 100))
    found = about(better, base)
    assert found["gain"] == pytest.approx(0.5)
    assert found["accuracy"] == [1.0, 1.0]
    low, high = found["interval"]
    assert 0.3 < low < 0.5 < high < 0.7
    assert about(base, base)["interval"] == [0.0, 0.0]


def test_samples_are_the_seed_s() -> None:
    data = task().data
    first, again, other = (fewer(data, 20, seed).train.inputs["image"] for seed in (0, 0, 1))
    assert len(first) == 20
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


class TestOnce:
    def test_a_finished_cell_is_not_built_again(self, tmp_path: Path) -> None:
        path = tmp_path / "kept" / "cell.json"
        assert command.once(path, lambda: {"value": 1}) == {"value": 1}
        assert command.once(path, lambda: {"value": 2}) == {"value": 1}

    def test_one_that_was_broken_off_leaves_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "cell.json"

        def broken() -> dict[str, Any]:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            command.once(path, broken)
        assert command.once(path, lambda: {"value": 2}) == {"value": 2}


@pytest.mark.parametrize("given", [["resnet9"], ["--seeds", "0"]])
def test_what_is_not_there_is_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command.arguments(given)
    assert refused.value.code == 2


@pytest.mark.slow
def test_all_of_it_on_a_small_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TASKS", {"tiny": task})
    monkeypatch.setattr(against, "TRAINING", {"epochs": 1, "batch_size": 32})
    monkeypatch.setattr(small, "TRAINING", {"epochs": 1, "batch_size": 32})
    found = command.figures(["tiny"], 2, [0.5], tmp_path)
    (cell,) = found["models"]["tiny"].values()
    assert set(cell["ways"]) == {"torch-pruning", *(f"ours at {e:g}x" for e in against.SHARES)}
    for way, held in cell["ways"].items():
        if "refused" in held:  # whether a latency is in reach is the machine's to say
            assert way != "torch-pruning"
            continue
        assert len(held["accuracy"]) == 2
        assert held["seconds"] > 0
        assert held["bytes"] < cell["original"]["bytes"]
    assert cell["ways"]["torch-pruning"]["gain"] == 0
    assert found["small"]["tiny"]["small"]["latency"] > 0
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "tiny-0.5-2.json",
        "tiny-small-2.json",
    ]
    assert page(found) == page(json.loads(json.dumps(found)))
    assert "## tiny" in page(found)
    assert "| 0.5 | torch-pruning |" in page(found)
