"""Slices: from a loader, a column or a function; every wrong one is refused with its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compress.artifacts import Split
from lepton_compress.errors import InputError
from lepton_compress.load.data import make_dataset
from lepton_compress.load.npz import NpzLoader, load_npz
from lepton_compress.load.slices import call_slices, read_slices

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def test_a_loader_may_give_them_with_its_split() -> None:
    parts = {"night": np.arange(10) < 4, "camera": np.array(["a", "b"] * 5)}
    given = {
        "train": X[:20],
        "calibration": X[20:30],
        "evaluation": {"inputs": X[30:], "targets": np.arange(10), "slices": parts},
    }
    made = make_dataset(given, "data")
    assert list(made.evaluation.slices) == ["night", "camera"]
    assert made.evaluation.named(["x"]).slices is made.evaluation.slices
    assert make_dataset(made, "data").evaluation.slices == made.evaluation.slices


def test_they_are_no_part_of_what_identifies_the_data() -> None:
    def fingerprint(slices: Any) -> str:
        held = {"inputs": X[30:], "targets": np.arange(10), "slices": slices}
        given = {"train": X[:20], "calibration": X[20:30], "evaluation": held}
        return make_dataset(given, "data").fingerprint

    assert fingerprint({}) == fingerprint({"first": np.arange(10) < 5})


def test_columns_of_an_npz_follow_its_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=np.arange(40), hour=np.arange(40) % 3)
    params = NpzLoader(path="d.npz", inputs=["x"], targets="y", slices=["hour"])
    made = make_dataset(load_npz(params, tmp_path, 0), "data")
    hours = made.evaluation.targets % 3  # type: ignore[operator]
    np.testing.assert_array_equal(made.evaluation.slices["hour"], hours)
    params = NpzLoader(path="d.npz", inputs=["x"], targets="y", slices=["minute"])
    with pytest.raises(InputError, match="has no array 'minute'"):
        load_npz(params, tmp_path, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([True], "are list, not a mapping"),
        ({"a": np.ones(3, bool)}, "a has shape (3,), but there are 10 samples"),
        ({"a": np.linspace(0, 1, 10)}, "a holds float64"),
        ({"a": np.zeros(10, bool)}, "a holds no sample of the evaluation data"),
    ],
)
def test_a_wrong_one_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_slices(given, 10, "slices")
    assert said in str(caught.value)


def test_too_many_values_are_no_slices() -> None:
    with pytest.raises(InputError, match="id has 200 values; at most 100"):
        read_slices({"id": np.arange(200)}, 200, "slices")


class TestFunction:
    SPLIT = Split({"x": X}, np.arange(40))

    def test_it_gets_inputs_and_targets(self, tmp_path: Path) -> None:
        (tmp_path / "f.py").write_text(
            "def parts(inputs, targets):\n    return {'low': targets < inputs['x'].shape[1]}\n"
        )
        made = call_slices("f.py:parts", tmp_path, self.SPLIT)
        assert made["low"].sum() == 3

    def test_what_it_raises_is_told_with_what_it_is_given(self, tmp_path: Path) -> None:
        (tmp_path / "f.py").write_text("def parts(inputs, targets):\n    return inputs['image']\n")
        with pytest.raises(
            InputError, match=r"KeyError: 'image'; it is given the inputs x by name"
        ):
            call_slices("f.py:parts", tmp_path, self.SPLIT)
