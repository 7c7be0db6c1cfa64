"""Pruning through the command line: a small transformer loses heads, a GRU hidden units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.errors import EXIT_OK
from tests.bench import Bench, Done, refused

NETS = """
import numpy as np
import torch
from torch import nn


class Transformer(nn.Module):
    def __init__(self, heads=4):
        super().__init__()
        self.heads = heads
        self.embed, self.norm = nn.Linear(6, 32), nn.LayerNorm(32)
        self.qkv, self.merge = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.scores = nn.Linear(32, 3)

    def forward(self, x):
        x = self.embed(x)
        parts = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, 8)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*parts.unbind(0))
        x = x + self.merge(mixed.transpose(1, 2).flatten(2))
        x = x + self.down(torch.relu(self.up(x)))
        return self.scores(x.mean(1))


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(6, 32, batch_first=True)
        self.scores = nn.Linear(32, 3)

    def forward(self, x):
        return self.scores(self.gru(x)[0][:, -1])


class Severed(Gru):
    def forward(self, x):
        return super().forward(x).detach()


def make(kind):
    torch.manual_seed(0)
    return {"transformer": Transformer, "gru": Gru, "severed": Severed}[kind]().eval()


def load(seed=3):
    draw = np.random.default_rng(seed)
    patterns = draw.normal(size=(3, 6, 6))

    def split(count):
        labels = draw.integers(3, size=count)
        noise = draw.normal(scale=0.5, size=(count, 6, 6))
        return {"x": (patterns[labels] + noise).astype(np.float32)}, labels

    return {"train": split(96), "calibration": split(16), "evaluation": split(32)}
"""
HERE = (Path(__file__).parents[2],)
TRAIN: dict[str, Any] = {"finetune": {"epochs": 8, "learning_rate": 0.01, "batch_size": 16}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("prune")
    (folder / "nets.py").write_text(NETS)
    return Bench(folder)


def recipe(bench: Bench, kind: str, steps: list[Any], **more: Any) -> Path:
    given = {
        "version": 1,
        "name": kind,
        "model": {"factory": "nets.py:make", "args": {"kind": kind}, "outputs": ["scores"]},
        "data": {"python": {"function": "nets.py:load"}},
        "metrics": ["accuracy"],
        "targets": [{"name": "here", "runtime": "onnxruntime-cpu"}],
        "gates": {"drop": "100 %"},
        "select": "smallest",
        "measure": {"rounds": 5, "cap": "100 ms"},
        "variants": {"small": steps},
        **more,
    }
    path = bench.folder / f"{kind}.yaml"
    path.write_text(json.dumps(given))
    return path


def ran(bench: Bench, kind: str, prune: dict[str, Any], **more: Any) -> tuple[Done, dict[str, Any]]:
    steps = [TRAIN, {"prune": prune}, TRAIN]
    done = bench.lepton("run", recipe(bench, kind, steps, **more), path=HERE)
    assert done.code == EXIT_OK, done
    held = bench.result(f"runs/{kind}")
    small = next(each for each in held["candidates"] if each["id"] == "small")
    assert all(each["value"] <= each["limit"] for each in held["parities"])
    assert next(each["value"] for each in held["scores"] if each["candidate"] == "small") > 0.9
    return done, small["history"][1]


@pytest.mark.slow
def test_a_transformer_loses_heads_and_feed_forward_width(bench: Bench) -> None:
    given = {"ratio": "50 %", "scope": "local", "importance": "taylor", "keep": ["embed"]}
    _, step = ran(bench, "transformer", given)
    groups = step["statistics"]["groups"]
    assert {name: (each["kind"], each["width"]) for name, each in groups.items()} == {
        "qkv": ("heads", [4, 2]),
        "up": ("channels", [64, 32]),
    }
    # Two of four heads of 8: half of the rows of qkv and of the columns that read them.
    assert groups["qkv"]["parameters_saved"] == 48 * 33 + 16 * 32
    assert groups["qkv"]["macs_saved"] == 6 * (48 * 32 + 16 * 32) + 2 * 2 * 6 * 6 * 8
    page = (bench.folder / "runs/transformer/report.html").read_text()
    assert "widths of layers" in page
    assert "4 → 2" in page


@pytest.mark.slow
def test_a_gru_loses_hidden_units_in_multiples_that_the_target_likes(bench: Bench) -> None:
    given = {"ratio": "40 %", "importance": "activation"}
    targets = [{"name": "edge", "runtime": "onnxruntime-cpu", "channels_multiple": 4}]
    _, step = ran(bench, "gru", given, targets=targets)
    assert step["statistics"]["round_to"] == 4
    assert step["statistics"]["channels"] == {"gru": [32, 20]}
    again = bench.lepton("run", bench.folder / "gru.yaml", path=HERE)
    assert again.code == EXIT_OK, again
    small = next(e for e in bench.result("runs/gru")["candidates"] if e["id"] == "small")
    assert all(record["cached"] for record in small["history"])


class TestBadInput:
    @pytest.mark.slow
    def test_a_network_that_cannot_be_traced(self, bench: Bench) -> None:
        given = recipe(bench, "severed", [{"prune": {"ratio": "50 %"}}])
        done = bench.lepton("run", given, path=HERE)
        refused(done, ("severed.yaml.*no derivative leads from its output to its weights",))

    def test_a_ratio_that_would_remove_whole_layers(self, bench: Bench) -> None:
        given = recipe(bench, "gru", [{"prune": {"ratio": "100 %"}}])
        done = bench.lepton("validate", given, path=HERE)
        refused(done, ("gru.yaml.*would remove whole layers",))
