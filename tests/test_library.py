"""`compress`, as a training script calls it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lepton_compress
from lepton_compress.errors import InputError, RecipeError
from tests.bench import Bench, splits, trained

QUICK: dict[str, Any] = {"measure": {"rounds": 5, "cap": "100 ms"}, "select": "smallest"}


@pytest.fixture
def net() -> nn.Module:
    made: nn.Module = trained()
    return made


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hits(outputs: Mapping[str, NDArray[Any]], targets: NDArray[Any]) -> NDArray[Any]:
    """One number a sample."""
    correct: NDArray[Any] = outputs["scores"].argmax(1) == targets
    return correct


def test_the_example_of_the_documentation(net: nn.Module) -> None:
    result = lepton_compress.compress(
        net,
        data=splits(),
        metrics=["accuracy"],
        steps=["quantize"],
        exports=["onnx"],
        targets=["onnxruntime-cpu"],
        gates={"drop": "10 %"},
        out="compressed",
        **QUICK,
    )
    assert result.passed
    assert result.chosen[0].candidate == "compressed"
    assert result.folder is not None
    assert (result.folder / result.artifact("compressed").path).is_file()
    assert lepton_compress.read_result(Path("compressed")) == result


def test_the_user_s_model_is_bit_for_bit_as_it_was(net: nn.Module) -> None:
    net.train()
    net.get_submodule("conv1").eval()
    net.get_parameter("conv1.weight").requires_grad_(False)
    before = copy.deepcopy(net)
    rng = torch.get_rng_state()
    lepton_compress.compress(
        net,
        data=splits(),
        variants={"a": [{"prune": {"ratio": "50 %"}}, {"distil": {"epochs": 1}}, "quantize"]},
        **QUICK,
    )
    for (name, mine), (_, theirs) in zip(before.named_modules(), net.named_modules(), strict=True):
        assert mine.training == theirs.training, name
        assert vars(mine).keys() == vars(theirs).keys(), name
    for (name, old), (_, new) in zip(
        before.state_dict(keep_vars=True).items(),
        net.state_dict(keep_vars=True).items(),
        strict=True,
    ):
        assert torch.equal(old, new), name
        assert old.requires_grad == new.requires_grad, name
        assert new.grad is None, name
    assert not net.get_submodule("conv1")._forward_hooks
    assert torch.equal(torch.get_rng_state(), rng)


def test_every_way_to_give_data_is_the_same_run(net: nn.Module) -> None:
    def loaders() -> dict[str, Any]:
        return {
            name: DataLoader(TensorDataset(*map(torch.from_numpy, pair)), batch_size=32)
            for name, pair in splits().items()
        }

    ways: list[Any] = [splits(), splits, loaders(), loaders]
    results = [
        lepton_compress.compress(net, data=way, steps=["quantize"], outputs=["scores"], **QUICK)
        for way in ways
    ]
    assert len({result.data_fingerprint for result in results}) == 1
    assert len({result.artifact("compressed").sha256 for result in results}) == 1
    # All but the first found everything in the workspace.
    for result in results[1:]:
        assert all(each.cached for each in result.candidates[1].history)


def test_a_function_is_a_metric(net: nn.Module) -> None:
    def flat(outputs: Mapping[str, NDArray[Any]], targets: NDArray[Any]) -> float:
        return 0.25

    given: dict[str, Any] = {
        "data": splits(),
        "steps": ["quantize"],
        "outputs": ["scores"],
        **QUICK,
    }
    first = lepton_compress.compress(net, metrics=[hits], **given)
    assert first.scores[0].value == 1.0
    assert first.scores[1].drop_interval is not None
    second = lepton_compress.compress(net, metrics=[flat], **given)
    assert second.scores[0].value == 0.25
    # Functions of one name are told apart by what they do.
    values = []
    for wanted in (0.5, 0.75):
        made = lepton_compress.compress(net, metrics=[lambda o, t, w=wanted: w], **given)
        values.append(made.scores[0].value)
    assert values == [0.5, 0.75]


def test_models_that_differ_only_in_a_function_are_told_apart() -> None:
    class Acts(nn.Module):
        def __init__(self, act: Any) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.last = nn.Linear(36, 4)
            self.act = act

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.act(self.last(image.flatten(1)))
            return made

    results = [
        lepton_compress.compress(Acts(act), data=splits(), variants={}, **QUICK)
        for act in (torch.tanh, torch.sigmoid)
    ]
    operators = [result.artifact("baseline").operators for result in results]
    assert "Tanh" in operators[0]
    assert "Sigmoid" in operators[1]


def test_files_are_taken_too(bench: Bench) -> None:
    result = lepton_compress.compress(
        bench.folder / "model.onnx", data=splits(), steps=["quantize"], **QUICK
    )
    assert [each.id for each in result.candidates] == ["baseline", "compressed"]
    assert result.folder is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "compress.*: give either steps or variants"),
        ({"steps": [], "variants": {}}, "give either steps or variants"),
        ({"steps": ["quantise"]}, r"variants\.compressed\[0\]: unknown step.*'quantize'"),
        ({"steps": ["quantize"], "gates": {"drop": "1 ms"}}, r"gates\.drop"),
        ({"steps": ["quantize"], "metrics": []}, "metrics: must not be empty"),
        ({"steps": ["quantize"], "select": "best"}, "select: must be"),
    ],
)
def test_wrong_arguments_are_named(net: nn.Module, given: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        lepton_compress.compress(net, data=splits(), **given)


def test_wrong_data_is_named(net: nn.Module, in_a_folder: Path) -> None:
    held = {name: (x.copy(), y) for name, (x, y) in splits().items()}
    held["train"][0][3] = np.nan
    with pytest.raises(InputError, match="data: train: input has a NaN or an infinity in sample 3"):
        lepton_compress.compress(net, data=held, steps=["quantize"])
    assert list(in_a_folder.iterdir()) == []
