"""Sessions along plain training loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lepton_compress import TrainingSession
from lepton_compress.compress.restore import ABOUT
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.load import forms
from tests.compress.modules import Plain, apply, dataset, model_of

DATA = dataset()
(INPUT,) = DATA.train.inputs
SIZE = 32
UPDATES = 24
SHORT = {"cap": "1 s"}


def loop(net: nn.Module, session: TrainingSession, optimizer: Any, updates: int = UPDATES) -> None:
    train = DATA.train
    assert train.targets is not None
    x, y = torch.from_numpy(train.inputs[INPUT].copy()), torch.from_numpy(train.targets.copy())
    for number in range(updates):
        rows = (torch.arange(SIZE) + SIZE * number) % len(x)
        net.train()
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(x[rows]), y[rows].long())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        session.update(optimizer)


def began(**asked: Any) -> tuple[Plain, TrainingSession, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = Plain()
    session = TrainingSession(net, data=DATA, updates=UPDATES, threads=1, **asked)
    return net, session, torch.optim.AdamW(net.parameters(), 1e-3)


def test_a_pruned_module_is_smaller_and_trains_on() -> None:
    net, session, optimizer = began(prune={"ratio": "50 %", "scope": "local", "times": 3})
    with session:
        loop(net, session, optimizer)
    assert net.first.out_channels == 8
    assert net.first.weight.shape == (8, 1, 3, 3)
    assert all(each.grad is not None for each in net.parameters())
    about = session.finish().statistics
    assert [each["update"] for each in about["portions"]] == [6, 9, 12]
    macs = [each["macs"] for each in about["portions"]]
    assert macs == sorted(macs, reverse=True)
    assert about["macs"][0] > about["macs"][1] == macs[-1]
    assert about["channels"]["first"] == [16, 8]


def test_a_rounded_module_gives_the_integers_it_was_trained_with(tmp_path: Path) -> None:
    net, session, optimizer = began(quantize_aware={"begin": "25 %"})
    with session:
        loop(net, session, optimizer)
    outcome = session.finish()
    assert "forward" not in vars(net)
    assert outcome.model.form == "graph"
    assert outcome.statistics["artifact"]["agreement"] > 0.95
    # The module itself holds the weights that were trained, not those from before.
    x = DATA.evaluation.inputs[INPUT]
    lowered = forms.call(outcome.model, {"x": x})
    with torch.no_grad():
        floats = net.eval()(torch.from_numpy(x.copy())).numpy()
    (given,) = lowered.values()
    assert (given.argmax(1) == floats.argmax(1)).mean() > 0.9
    assert session.save(tmp_path / "made").joinpath("model.onnx").is_file()


def test_rounding_goes_on_in_the_artifact_of_a_pruned_module(tmp_path: Path) -> None:
    asked = {"prune": {"ratio": "50 %"}, "quantize_aware": {}}
    net, session, optimizer = began(**asked)
    with session:
        loop(net, session, optimizer)
    result = session.compress(workspace=tmp_path, measure=SHORT)
    made = {each.candidate: each for each in result.artifacts}
    assert "QuantizeLinear" in made["compressed"].operators
    (parity,) = [each for each in result.parities if each.candidate == "compressed"][-1:]
    assert parity.holds
    assert result.baseline is not None


def test_a_pruned_module_is_compressed_further(tmp_path: Path) -> None:
    net, session, optimizer = began(prune={"ratio": "50 %"})
    with session:
        loop(net, session, optimizer)
    result = session.compress(workspace=tmp_path, steps=["quantize"], measure=SHORT)
    (made,) = [each for each in result.candidates if each.id == "compressed"]
    assert [each.step for each in made.history] == ["restore", "lower", "quantize"]
    assert "channels" in made.history[0].statistics


def test_what_is_saved_is_data_and_comes_back(tmp_path: Path) -> None:
    net, session, optimizer = began(prune={"ratio": "50 %"})
    with session:
        loop(net, session, optimizer)
    folder = session.save(tmp_path)
    assert {each.name for each in folder.iterdir()} == {forms.STRUCTURE, forms.WEIGHTS, ABOUT}
    outcome = apply("restore", model_of(Plain), DATA, folder=str(folder))
    assert outcome.statistics["channels"]["first"] == [16, 8]
    net.eval()
    for ours, theirs in zip(net.parameters(), outcome.model.value.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_an_exception_leaves_the_module_its_own_forward() -> None:
    net, session, optimizer = began(quantize_aware={"begin": "0 %"})

    def train() -> None:
        with session:
            loop(net, session, optimizer, 2)
            assert "forward" in vars(net)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert "forward" not in vars(net)


def test_too_few_updates_are_told() -> None:
    net, session, optimizer = began(prune={"ratio": "50 %"})
    loop(net, session, optimizer, 5)
    session.end()  # as a trainer that stops early
    with pytest.raises(RecipeError, match="only 5 of 24 updates were made, and something is due"):
        session.finish()


def test_too_many_updates_are_told() -> None:
    net, session, optimizer = began(prune={"ratio": "50 %"})
    loop(net, session, optimizer)
    with pytest.raises(RecipeError, match="this is update 25, but 24 were announced"):
        session.update(optimizer)


def test_pruning_without_the_optimiser_is_told() -> None:
    _, session, _ = began(prune={"ratio": "50 %", "begin": "0 %", "end": "0 %", "times": 1})
    with pytest.raises(RecipeError, match="needs the optimiser"):
        session.update()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_a_wrapped_module_is_refused(wrap: Any) -> None:
    with pytest.raises(InputError, match=r"is wrapped by .*; give the module inside"):
        TrainingSession(wrap(Plain()), data=DATA, updates=3, prune={"ratio": "50 %"})


def test_looking_at_the_module_changes_no_statistics() -> None:
    net, session, optimizer = began(
        prune={"ratio": "0 %", "begin": "0 %", "end": "0 %", "times": 1, "round_to": 16}
    )
    before = torch.as_tensor(net.norm.running_mean).clone()
    with pytest.raises(InputError, match="nothing can be pruned"):
        session.update(optimizer)
    assert net.training
    torch.testing.assert_close(net.norm.running_mean, before, rtol=0, atol=0)
