"""What could be taken for something else, and is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from lepton_compress.artifacts import Dataset, Model, Split
from lepton_compress.errors import InputError
from lepton_compress.load.data import make_dataset
from lepton_compress.load.forms import fingerprint
from lepton_compress.load.model import open_module
from lepton_compress.load.npz import NpzLoader, load_npz
from lepton_compress.load.references import reference_digest, resolve
from lepton_compress.load.weights import load_weights


def rows(start: int, count: int = 4) -> NDArray[np.float32]:
    """(count, 2) numbers that stand nowhere else."""
    made: NDArray[np.float32] = np.arange(2 * start, 2 * (start + count), dtype=np.float32)
    return made.reshape(count, 2)


def dataset(train: Any = None, **evaluation: Any) -> Dataset:
    """Splits without a shared sample."""
    held = {
        "train": rows(0) if train is None else train,
        "calibration": rows(100),
        "evaluation": (rows(200), np.zeros(4)),
    }
    return make_dataset(held | evaluation, "data")


class TestSplits:
    @pytest.mark.parametrize("given", ["rows.npy", b"rows"])
    def test_a_text_is_no_list_of_batches(self, given: Any) -> None:
        with pytest.raises(InputError, match="data: train: cannot read a split from"):
            dataset(given)

    def test_a_tuple_of_three_is_no_list_of_batches(self) -> None:
        with pytest.raises(InputError, match=r"data: train: is a tuple of 3; give a pair"):
            dataset((rows(0), rows(10), rows(20)))

    def test_a_loader_of_triples_is_refused(self) -> None:
        # Each collated batch is a list of three tensors that would fit under each other.
        triples = torch.utils.data.TensorDataset(
            *map(torch.from_numpy, [rows(0), rows(9), rows(5)])
        )
        with pytest.raises(InputError, match="is a tuple of 3"):
            dataset(torch.utils.data.DataLoader(triples, batch_size=2))

    def test_a_loader_of_single_tensors_is_unlabelled(self) -> None:
        alone = torch.utils.data.TensorDataset(torch.from_numpy(rows(0)))
        made = dataset(torch.utils.data.DataLoader(alone, batch_size=3))
        np.testing.assert_array_equal(made.train.inputs["input"], rows(0))
        assert made.train.targets is None

    def test_batches_with_other_inputs_do_not_fit(self) -> None:
        batches = [{"x": rows(0)}, {"x": rows(10), "y": rows(20)}]
        with pytest.raises(InputError, match="batches do not fit together"):
            dataset(iter(batches))

    def test_gathered_arrays_cannot_be_changed_either(self) -> None:
        made = dataset(iter([(rows(0), np.zeros(4))]))
        assert made.train.targets is not None
        for array in (made.train.inputs["input"], made.train.targets):
            assert not array.flags.writeable

    def test_inputs_in_another_order_are_the_same_inputs(self) -> None:
        held = {
            "train": {"a": rows(0), "b": rows(1)},
            "calibration": {"b": rows(101), "a": rows(100)},
            "evaluation": Split({"b": rows(201), "a": rows(200)}, np.zeros(4)),
        }
        made = make_dataset(held, "data")
        assert [list(each.inputs) for each in (made.train, made.calibration, made.evaluation)] == [
            ["a", "b"]
        ] * 3
        np.testing.assert_array_equal(made.calibration.inputs["a"], rows(100))


class TestArchives:
    @staticmethod
    def load(folder: Path, **given: Any) -> Any:
        params = NpzLoader.model_validate(
            {"path": "d.npz", "inputs": ["x"], "targets": "y"} | given
        )
        return load_npz(params, folder, 0)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive"])
    def test_a_file_that_is_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "d.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"d\.npz: not an \.npz .*; give a file made by"):
            self.load(tmp_path)

    def test_a_single_array_under_that_name(self, tmp_path: Path) -> None:
        with (tmp_path / "d.npz").open("wb") as file:
            np.save(file, rows(0))
        with pytest.raises(InputError, match=r"d\.npz: not an \.npz"):
            self.load(tmp_path)

    @pytest.mark.parametrize("at", [80, 200])
    def test_damaged_bytes(self, tmp_path: Path, at: int) -> None:
        np.savez_compressed(
            tmp_path / "d.npz", x=np.random.default_rng(0).random((40, 8)), y=rows(0)
        )
        data = bytearray((tmp_path / "d.npz").read_bytes())
        data[at : at + 20] = bytes(20)
        (tmp_path / "d.npz").write_bytes(data)
        with pytest.raises(InputError, match=r"d\.npz: not an \.npz"):
            self.load(tmp_path)

    @pytest.mark.parametrize("labels", [np.zeros(3), np.zeros(5), np.zeros(())])
    def test_arrays_of_other_lengths(self, tmp_path: Path, labels: NDArray[Any]) -> None:
        np.savez(tmp_path / "d.npz", x=rows(0), y=labels)
        with pytest.raises(InputError, match=r"different numbers of samples \(x 4, y \d\)"):
            self.load(tmp_path)


class TestNamesakes:
    def test_each_file_gets_the_sibling_beside_it(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "lepton_sibling.py").write_text(f"VALUE = {name!r}\n")
            (folder / "model.py").write_text(
                "import lepton_sibling\nVALUE = lepton_sibling.VALUE\n"
            )
        assert resolve("one/model.py:VALUE", tmp_path) == "one"
        assert resolve("two/model.py:VALUE", tmp_path) == "two"

    def test_a_package_beside_it_too(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            package = tmp_path / name / "lepton_parts"
            package.mkdir(parents=True)
            (package / "__init__.py").touch()
            (package / "block.py").write_text(f"VALUE = {name!r}\n")
            (tmp_path / name / "net.py").write_text("from lepton_parts.block import VALUE\n")
        assert resolve("one/net.py:VALUE", tmp_path) == "one"
        assert resolve("two/net.py:VALUE", tmp_path) == "two"

    def test_a_library_is_not_imported_anew(self, tmp_path: Path) -> None:
        (tmp_path / "numpy.py").write_text("VALUE = 'a namesake'\n")
        (tmp_path / "net.py").write_text("import numpy\nVALUE = numpy\n")
        assert resolve("net.py:VALUE", tmp_path) is np

    def test_what_is_built_into_python_has_a_digest(self, tmp_path: Path) -> None:
        assert reference_digest("builtins:dict", tmp_path) == "builtins:dict"
        assert resolve("builtins:dict", tmp_path) is dict

    def test_a_script_that_ends_itself_does_not_end_the_run(self, tmp_path: Path) -> None:
        (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
        with pytest.raises(InputError, match="importing it raised SystemExit: 0"):
            resolve("script.py:main", tmp_path)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.scores = nn.Linear(3, 5)
        self.scores.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.scores(self.table(ids))
        return made


def test_a_tied_weight_that_the_file_holds_once_is_not_missing(tmp_path: Path) -> None:
    trained, fresh = Tied(), Tied()
    state = {name: each for name, each in trained.state_dict().items() if name != "scores.weight"}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(fresh, tmp_path / "w.safetensors", trust_pickle=False)
    assert torch.equal(fresh.scores.weight, trained.table.weight)
    assert fresh.scores.weight is fresh.table.weight


def test_an_untied_weight_is_missing_all_the_same(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state = {name: each for name, each in net.state_dict().items() if name != "1.weight"}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"missing: 1\.weight"):
        load_weights(net, tmp_path / "w.safetensors", trust_pickle=False)


class Brain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16)


def test_an_output_that_numpy_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"Brain: its outputs cannot be read: .*BFloat16"):
        open_module(Brain(), dataset()).build()


@pytest.mark.parametrize("operation", [torch.relu, torch.tanh])
def test_programs_are_told_apart_by_what_they_compute(
    operation: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    class Net(nn.Module):
        def __init__(self, after: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.after = after

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.after(x)

    def program(after: Callable[[torch.Tensor], torch.Tensor]) -> Model:
        made = torch.export.export(Net(after), (torch.ones(2, 2),))
        return Model("program", made, (), ())

    assert fingerprint(program(operation)) == fingerprint(program(operation))
    assert fingerprint(program(operation)) != fingerprint(program(torch.sigmoid))
