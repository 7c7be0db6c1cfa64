"""Datasets: read in every form that people hold them in, and checked once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lepton_compress.artifacts import Dataset, Split
from lepton_compress.errors import InputError
from lepton_compress.load.data import (
    PythonLoader,
    load_python,
    make_dataset,
)
from lepton_compress.load.splitting import SPLITS

COUNTS = dict(zip(SPLITS, (12, 5, 8), strict=True))


def raw(seed: int = 0) -> dict[str, tuple[Any, Any]]:
    draw = np.random.default_rng(seed)
    return {
        name: (draw.normal(size=(count, 3)).astype(np.float32), draw.integers(4, size=count))
        for name, count in COUNTS.items()
    }


def loader(pair: tuple[Any, Any]) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*map(torch.from_numpy, pair)), batch_size=4)


FORMS: dict[str, Callable[[tuple[Any, Any]], Any]] = {
    "a pair": lambda pair: pair,
    "a list of two": list,
    "a pair of tensors": lambda pair: tuple(map(torch.from_numpy, pair)),
    "tensors with a gradient": lambda pair: (torch.from_numpy(pair[0]).requires_grad_(), pair[1]),
    "a split": lambda pair: Split({"input": pair[0]}, pair[1]),
    "named inputs": lambda pair: ({"input": pair[0]}, pair[1]),
    "a mapping": lambda pair: {"inputs": pair[0], "targets": pair[1]},
    "a DataLoader": loader,
    "batches": lambda pair: (
        (pair[0][start : start + 5], pair[1][start : start + 5]) for start in range(0, 12, 5)
        if start < len(pair[0])
    ),
    "lists": lambda pair: (pair[0], pair[1].tolist()),
}  # fmt: skip


class TestForms:
    @pytest.mark.parametrize("name", FORMS)
    def test_all_give_the_same_dataset(self, name: str) -> None:
        held = make_dataset({key: FORMS[name](pair) for key, pair in raw().items()}, "data")
        wanted = make_dataset(raw(), "data")
        for split in SPLITS:
            given, like = getattr(held, split), getattr(wanted, split)
            assert np.array_equal(given.inputs["input"], like.inputs["input"])
            assert np.array_equal(given.targets, like.targets)
        assert held.fingerprint == wanted.fingerprint

    def test_several_inputs_keep_their_names_and_order(self) -> None:
        given = {key: ({"b": x, "a": x + 1}, y) for key, (x, y) in raw().items()}
        assert list(make_dataset(given, "data").train.inputs) == ["b", "a"]

    def test_train_and_calibration_need_no_targets(self) -> None:
        given: dict[str, Any] = raw()
        given["train"] = given["train"][0]
        given["calibration"] = (given["calibration"][0], None)
        held = make_dataset(given, "data")
        assert held.train.targets is None
        assert held.calibration.targets is None

    def test_a_dataset_passes_through(self) -> None:
        held = make_dataset(raw(), "data")
        assert make_dataset(held, "data").fingerprint == held.fingerprint

    def test_memory_mapped_arrays_stay_on_disk(self, tmp_path: Path) -> None:
        given: dict[str, Any] = raw()
        np.save(tmp_path / "x.npy", given["train"][0])
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        held = make_dataset({**given, "train": (mapped, given["train"][1])}, "data")
        assert np.shares_memory(held.train.inputs["input"], mapped)


class TestOwnership:
    def test_the_user_s_arrays_are_neither_changed_nor_changeable(self) -> None:
        given = raw()
        before = copy.deepcopy(given)
        held = make_dataset(given, "data")
        with pytest.raises(ValueError, match="read-only"):
            held.train.inputs["input"][0] = 0
        given["train"][0][0] = given["train"][0][0]  # still writeable for their owner
        for name in SPLITS:
            for mine, theirs in zip(before[name], given[name], strict=True):
                assert np.array_equal(mine, theirs)


class TestFingerprint:
    @pytest.mark.parametrize(
        "change",
        [
            lambda given: given["train"][0].__setitem__((3, 1), 9),
            lambda given: given["evaluation"][1].__setitem__(2, 9),
            lambda given: given.update(train=(given["train"][0][::-1], given["train"][1])),
            lambda given: given.update(train=(given["train"][0], given["train"][1].astype("i4"))),
            lambda given: given.update(train=(given["train"][0][:-1], given["train"][1][:-1])),
            lambda given: given.update(
                {key: ({"other": x}, y) for key, (x, y) in given.items()}
            ),
        ],
    )  # fmt: skip
    def test_changes_with_every_byte(self, change: Callable[[Any], None]) -> None:
        given = raw()
        before = make_dataset(given, "data").fingerprint
        change(given)
        assert make_dataset(given, "data").fingerprint != before

    def test_does_not_depend_on_the_layout_in_memory(self) -> None:
        given = raw()
        turned = {key: (np.asfortranarray(x), y) for key, (x, y) in given.items()}
        assert make_dataset(turned, "d").fingerprint == make_dataset(given, "d").fingerprint


def with_train(x: Any, y: Any = None) -> Any:
    return {**raw(), "train": (x, np.zeros(len(x), int) if y is None else y)}


X = np.arange(6, dtype=np.float32).reshape(2, 3)

WRONG = {
    "no mapping": ([1, 2], "data: expected a mapping with the keys train, .* not list"),
    "a split too few": ({"train": 1}, "data: expected a mapping .* not train"),
    "an empty array": (with_train(X[:0]), "data: train: input is empty; give at least one"),
    "an empty list": ({**raw(), "train": []}, "data: train: is empty"),
    "no inputs": (with_train({}), "data: train: has no inputs"),
    "a scalar": ({**raw(), "train": (np.float32(1), None)}, "data: train: input is empty"),
    "NaN": (with_train(np.where(X == 4, np.nan, X)), "input has a NaN.* in sample 1; drop it"),
    "infinity": (with_train(np.where(X == 4, np.inf, X)), "infinity in sample 1"),
    "a NaN target": (with_train(X, np.array([np.nan, 0])), "targets has a NaN.* in sample 0"),
    "text": (with_train(np.array(["a", "b"])), "input holds <U1, not numbers"),
    "other lengths": (
        with_train(X, np.zeros(3)),
        "targets has 3 samples, but the first input has 2",
    ),
    "ragged": ({**raw(), "train": ([[1], [1, 2]], None)}, "data: train: is not one array"),
    "another shape": (with_train(X[:, :2]), r"float32\[3\] a sample, but in train float32\[2\]"),
    "another type": (with_train(X.astype("f8")), r"is float32\[3\].* but in train float64\[3\]"),
    "other inputs": (with_train({"other": X}, X[:, 0]), "calibration has other inputs than train"),
    "something else": ({**raw(), "train": 5}, "data: train: cannot read a split from int"),
    "batches that do not fit": (
        {**raw(), "train": iter([(X, X[:, 0]), (X[:, :2], X[:, 0])])},
        "its batches do not fit together",
    ),
    "no labels to evaluate on": (
        {**raw(), "evaluation": raw()["evaluation"][0]},
        "data: evaluation has no targets; labels are needed",
    ),
}


class TestChecks:
    @pytest.mark.parametrize("name", WRONG)
    def test_what_cannot_be_used_is_named(self, name: str) -> None:
        given, says = WRONG[name]
        with pytest.raises(InputError, match=says):
            make_dataset(given, "data")

    @pytest.mark.parametrize(("one", "other"), [("train", "evaluation"), ("train", "calibration")])
    def test_no_sample_stands_in_two_splits(self, one: str, other: str) -> None:
        given = raw()
        given[other][0][4] = given[one][0][7]
        with pytest.raises(InputError, match=f"sample 4 of {other} also stands in {one}"):
            make_dataset(given, "data")

    def test_one_may_stand_twice_in_a_split(self) -> None:
        given = raw()
        given["train"][0][4] = given["train"][0][7]
        assert isinstance(make_dataset(given, "data"), Dataset)


class TestPython:
    def test_calls_the_function_with_its_arguments(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text("def load(n, scale=1):\n    return {'n': n * scale}\n")
        params = PythonLoader(function="own.py:load", args={"n": 3, "scale": 2})
        assert load_python(params, tmp_path, 0) == {"n": 6}

    def test_tells_what_it_raises(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text("def load():\n    raise OSError('no disk')\n")
        with pytest.raises(InputError, match=r"own\.py:load: raised OSError: no disk; call it"):
            load_python(PythonLoader(function="own.py:load"), tmp_path, 0)


def test_states_of_a_step_model_are_no_inputs_of_samples() -> None:
    held = Split({"sound": np.zeros((3, 2))})
    assert list(held.named(["frame", "state_0", "state_1"]).inputs) == ["frame"]
    both = Split({"sound": np.zeros((3, 2)), "state_0": np.zeros((3, 2))})
    assert list(both.named(["sound", "state_0"]).inputs) == ["sound", "state_0"]
    with pytest.raises(ValueError, match="frame, other"):
        held.named(["frame", "other"])
