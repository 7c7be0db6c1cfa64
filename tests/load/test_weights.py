"""Weights into a module: from every kind of file that holds them, and from none that runs code."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lepton_compress.errors import InputError
from lepton_compress.load.weights import load_weights

State = dict[str, torch.Tensor]


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


@pytest.fixture
def state() -> State:
    torch.manual_seed(5)
    return {name: tensor + 1 for name, tensor in net().state_dict().items()}


def prefixed(prefix: str) -> Callable[[State], Any]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


FORMS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "under state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "under model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5},
    "under model": lambda state: {"model": state},
    "nested twice": lambda state: {"model": {"state_dict": state}},
    "of DataParallel": prefixed("module."),
    "of torch.compile": prefixed("_orig_mod."),
    "of both": prefixed("module._orig_mod."),
    "of Lightning": lambda state: {"state_dict": prefixed("model.")(state)},
}


class TestForms:
    @pytest.mark.parametrize("name", FORMS)
    def test_a_checkpoint(self, tmp_path: Path, state: State, name: str) -> None:
        torch.save(FORMS[name](state), tmp_path / "w.pt")
        module = net()
        load_weights(module, tmp_path / "w.pt", trust_pickle=False)
        assert all(torch.equal(module.state_dict()[key], state[key]) for key in state)

    def test_safetensors(self, tmp_path: Path, state: State) -> None:
        save_file(prefixed("module.")(state), tmp_path / "w.safetensors")
        module = net()
        load_weights(module, tmp_path / "w.safetensors", trust_pickle=False)
        assert all(torch.equal(module.state_dict()[key], state[key]) for key in state)

    def test_a_prefix_that_belongs_to_the_model_stays(self, tmp_path: Path) -> None:
        module = nn.ModuleDict({"model": net()})
        torch.save(module.state_dict(), tmp_path / "w.pt")
        load_weights(module, tmp_path / "w.pt", trust_pickle=False)


class TestPickles:
    @pytest.fixture
    def path(self, tmp_path: Path, state: State) -> Path:
        torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pt")
        return tmp_path / "w.pt"

    def test_are_refused(self, path: Path) -> None:
        with pytest.raises(InputError, match=r"w\.pt: holds pickled objects.* --trust-pickle"):
            load_weights(net(), path, trust_pickle=False)

    def test_are_loaded_on_trust(self, path: Path, state: State) -> None:
        module = net()
        load_weights(module, path, trust_pickle=True)
        assert torch.equal(module.state_dict()["0.weight"], state["0.weight"])

    def test_a_whole_module_is_loaded_on_trust(self, tmp_path: Path) -> None:
        whole = net()
        torch.save(whole, tmp_path / "w.pt")
        with pytest.raises(InputError, match="holds pickled objects"):
            load_weights(net(), tmp_path / "w.pt", trust_pickle=False)
        module = net()
        load_weights(module, tmp_path / "w.pt", trust_pickle=True)
        assert torch.equal(module.state_dict()["0.weight"], whole.state_dict()["0.weight"])

    def test_none_is_run_without_trust(self, tmp_path: Path) -> None:
        (tmp_path / "evil.py").write_text("")

        class Evil:
            def __reduce__(self) -> Any:
                return (Path(tmp_path / "ran").write_text, ("ran",))

        torch.save({"state_dict": Evil()}, tmp_path / "w.pt")
        with pytest.raises(InputError, match="holds pickled objects"):
            load_weights(net(), tmp_path / "w.pt", trust_pickle=False)
        assert not (tmp_path / "ran").exists()


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (
                lambda state: state.pop("2.bias"),
                r"do not fit the model \(missing: 2\.bias\); check",
            ),
            (lambda state: state.update(x=torch.ones(1)), r"\(not in the model: x\)"),
            (
                lambda state: state.update({"0.bias": torch.ones(9)}),
                r"\(0\.bias is \[9\] in the file, \[4\] in the model\)",
            ),
            (lambda state: state.clear(), r"missing: .* and 5 more"),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, tmp_path: Path, state: State, change: Callable[[State], Any], says: str
    ) -> None:
        change(state)
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(InputError, match=says):
            load_weights(net(), tmp_path / "w.pt", trust_pickle=False)

    @pytest.mark.parametrize("trust", [False, True])
    @pytest.mark.parametrize(
        "content", [b"", b"once upon a time", bytes(range(256)), b"PK\x03\x04"]
    )
    def test_no_checkpoint(self, tmp_path: Path, content: bytes, trust: bool) -> None:
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(InputError, match=r"w\.pt: not a torch checkpoint"):
            load_weights(net(), tmp_path / "w.pt", trust_pickle=trust)

    @pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
    def test_half_a_file(self, tmp_path: Path, state: State, name: str) -> None:
        path = tmp_path / name
        if name.endswith("pt"):
            torch.save(state, path)
        else:
            save_file(state, path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError, match=r"not a (torch checkpoint|safetensors file)"):
            load_weights(net(), path, trust_pickle=False)

    @pytest.mark.parametrize("held", [[1, 2], {"epoch": 3}, torch.ones(3)])
    def test_a_checkpoint_without_a_state(self, tmp_path: Path, held: Any) -> None:
        torch.save(held, tmp_path / "w.pt")
        with pytest.raises(InputError, match=r"holds no state dict; save model\.state_dict"):
            load_weights(net(), tmp_path / "w.pt", trust_pickle=False)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"w\.pt: no such file"):
            load_weights(net(), tmp_path / "w.pt", trust_pickle=False)
