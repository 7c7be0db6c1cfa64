"""What every loader keeps to: splits that can be used, the same for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lepton_compress import registry
from lepton_compress.artifacts import Dataset
from lepton_compress.errors import InputError, UserError
from lepton_compress.load.data import make_dataset
from tests.contract.needed import files, of_kind, parameters

BROKEN = {"python": "own.py", "npz": "data.npz", "wav": "sounds/word0/0.wav"}
BROKEN |= {"images": "pictures/label0/0.png", "idx": "images.idx", "text": "texts.csv"}
"""The file that each reads. A new loader gets its line here."""

every = pytest.mark.parametrize("name", of_kind("loader"))


def load(name: str, folder: Path, seed: int = 0) -> Any:
    return registry.get("loader", name).call(parameters("loader", name), folder, seed)


def dataset(name: str, folder: Path, seed: int = 0) -> Dataset:
    return make_dataset(load(name, folder, seed), "data")


@every
def test_its_splits_are_accepted(name: str, tmp_path: Path) -> None:
    made = dataset(name, files(tmp_path))
    for split in (made.train, made.calibration, made.evaluation):
        assert len(split) > 0
        assert list(split.inputs) == list(made.train.inputs)
    assert made.evaluation.targets is not None


@every
def test_the_same_seed_gives_the_same_splits(name: str, tmp_path: Path) -> None:
    files(tmp_path)
    assert dataset(name, tmp_path).fingerprint == dataset(name, tmp_path).fingerprint


@every
def test_another_seed_loses_no_sample(name: str, tmp_path: Path) -> None:
    files(tmp_path)
    counts = [
        [len(each) for each in (made.train, made.calibration, made.evaluation)]
        for made in (dataset(name, tmp_path, seed) for seed in (0, 1))
    ]
    assert counts[0] == counts[1]


@every
def test_a_missing_file_is_the_users_mistake(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load(name, tmp_path)


@every
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / BROKEN[name]).write_bytes(b"\x00 nothing of use")
    with pytest.raises(InputError) as caught:
        load(name, tmp_path)
    assert BROKEN[name] in str(caught.value)
    assert "\n" not in str(caught.value)
