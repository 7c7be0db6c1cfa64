"""Arrays of an .npz: split, shaped, cleaned; and what is wrong with one."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lepton_compress.artifacts import Dataset
from lepton_compress.errors import InputError
from lepton_compress.load.data import make_dataset
from lepton_compress.load.npz import NpzLoader, load_npz
from lepton_compress.load.splitting import SPLITS


class TestNpz:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        images = np.arange(400, dtype=np.uint8).reshape(100, 4)
        images[:, 0] = np.arange(100)
        np.savez(tmp_path / "d.npz", images=images, labels=np.arange(100) % 3)
        return tmp_path

    def test_splits_by_the_seed(self, folder: Path) -> None:
        params = NpzLoader(path="d.npz", inputs=["images"], targets="labels")
        held = make_dataset(load_npz(params, folder, 1), "data")
        sizes = [len(getattr(held, name)) for name in SPLITS]
        assert sizes == [70, 10, 20]
        again = make_dataset(load_npz(params, folder, 1), "data")
        other = make_dataset(load_npz(params, folder, 2), "data")
        assert again.fingerprint == held.fingerprint != other.fingerprint
        # Images keep their labels.
        for name in SPLITS:
            split = getattr(held, name)
            assert np.array_equal(split.inputs["images"][:, 0] % 3, split.targets)

    def test_scales_integers(self, folder: Path) -> None:
        params = NpzLoader(path="d.npz", inputs=["images"], targets="labels", scale=1 / 255)
        images = make_dataset(load_npz(params, folder, 1), "data").train.inputs["images"]
        assert images.dtype == np.float32
        assert images.max() <= 1

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"path": "no.npz"}, r"no\.npz: no such file or folder: .*/no\.npz; put it there"),
            ({"sha256": "0" * 64}, r"d\.npz: has the SHA-256 [0-9a-f]{16}"),
            ({"shapes": {"images": [3, 3]}}, r"sample of images is \[4\], .* shaped to \[3, 3\]"),
            ({"shapes": {"labels": [1]}}, "shapes: 'labels' is none of the inputs"),
            ({"evaluation_last": 100}, "has 100 samples, so that evaluation_last leaves none"),
            (
                {"classes": 1, "low": 200},
                "only 0 of 100 samples are left: 100 samples out of range",
            ),
            ({"path": "text.npz"}, r"text\.npz: not an \.npz"),
            ({"path": "pickle.npz"}, r"pickle\.npz: not an \.npz"),
            ({"path": "other.npz"}, r"other\.npz: 'images' is no array; give a file made by"),
            ({"inputs": ["image"]}, r"d\.npz: has no array 'image'; has images, labels"),
            ({"evaluation": "95 %"}, "calibration and evaluation together exceed 100 %"),
        ],
    )
    def test_what_cannot_be_read_is_named(
        self, folder: Path, changes: dict[str, Any], says: str
    ) -> None:
        (folder / "text.npz").write_text("no zip")
        with zipfile.ZipFile(folder / "other.npz", "w") as file:
            file.writestr("images", "no array")
            file.writestr("labels", "no array")
        np.savez(folder / "pickle.npz", images=np.array([{}]), labels=np.array([1]))
        values = {"path": "d.npz", "inputs": ["images"], "targets": "labels", **changes}
        with pytest.raises(InputError, match=says):
            load_npz(NpzLoader.model_validate(values), folder, 0)

    def test_shapes_a_sample(self, folder: Path) -> None:
        params = NpzLoader(path="d.npz", inputs=["images"], shapes={"images": [2, 2, 1]})
        made = load_npz(params, folder, 0)
        assert made["train"]["inputs"]["images"].shape == (70, 2, 2, 1)
        assert made["train"]["inputs"]["images"].dtype == np.uint8

    def test_is_found_where_the_data_lies(
        self, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
    ) -> None:
        monkeypatch.setenv("LEPTON_DATA", str(folder))
        right = hashlib.sha256((folder / "d.npz").read_bytes()).hexdigest()
        params = NpzLoader(path="d.npz", inputs=["images"], sha256=right)
        made = load_npz(params, tmp_path_factory.mktemp("recipe"), 0)
        assert len(made["train"]["inputs"]["images"]) == 70

    def test_evaluates_on_the_last_whatever_the_seed(self, folder: Path) -> None:
        params = NpzLoader(path="d.npz", inputs=["images"], targets="labels", evaluation_last=30)
        held = [make_dataset(load_npz(params, folder, seed), "data") for seed in (0, 1)]
        for each in held:
            assert each.evaluation.inputs["images"][:, 0].tolist() == list(range(70, 100))
            assert (len(each.train), len(each.calibration)) == (60, 10)
        assert held[0].fingerprint != held[1].fingerprint


class TestCleaning:
    def made(self, folder: Path, **changes: Any) -> Dataset:
        images = np.arange(400, dtype=np.float32).reshape(100, 4)
        images[3], images[95] = images[9], images[10]  # within a half, and from one to the other
        images[20, 2] = np.nan
        np.savez(folder / "d.npz", images=images, labels=np.arange(100) // 50)
        np.savez(folder / "e.npz", images=images, labels=np.zeros(100, int))
        values = {"path": "e.npz", "inputs": ["images"], "targets": "labels", **changes}
        return make_dataset(load_npz(NpzLoader.model_validate(values), folder, 0), "data")

    def test_runs_before_the_split_and_is_noted(self, tmp_path: Path) -> None:
        held = self.made(tmp_path)
        assert sum(len(getattr(held, name)) for name in SPLITS) == 97
        assert held.notes == (
            "1 sample with a missing value dropped (first: sample 20, in images)",
            "2 samples that stand twice dropped (first: sample 9, of sample 3)",
        )

    def test_samples_that_contradict_each_other_go(self, tmp_path: Path) -> None:
        held = self.made(tmp_path, path="d.npz")
        assert sum(len(getattr(held, name)) for name in SPLITS) == 96
        assert "labelled differently though alike" in held.notes[1]

    def test_what_is_evaluated_on_stays(self, tmp_path: Path) -> None:
        held = self.made(tmp_path, evaluation_last=30)
        assert len(held.evaluation) == 30
        assert 40 in held.evaluation.inputs["images"]  # sample 95 is like sample 10

    def test_limits_drop_and_are_noted(self, tmp_path: Path) -> None:
        held = self.made(tmp_path, low=0, high=391, classes=1)
        assert held.notes[1] == "2 samples out of range dropped (first: sample 98, 392.0 in images)"

    def test_can_be_left_out(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="NaN or an infinity in sample"):
            self.made(tmp_path, clean=False)

    @pytest.mark.parametrize("wrong", [{"clean": False, "high": 1}, {"low": 2, "high": 1}])
    def test_limits_that_contradict_are_refused(self, tmp_path: Path, wrong: Any) -> None:
        with pytest.raises(ValidationError):
            self.made(tmp_path, **wrong)
