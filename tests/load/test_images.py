"""Folders of pictures: every way to label them, and everything that can be wrong with one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from lepton_compress.artifacts import Dataset
from lepton_compress.errors import InputError, MissingExtraError, UserError
from lepton_compress.load.data import make_dataset
from lepton_compress.load.images import ImageLoader, load_images
from lepton_compress.load.pictures import decode
from lepton_compress.load.splitting import SPLITS
from tests.contract.needed import write_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures")
    return tmp_path


def raw(folder: Path, seed: int = 0, **values: Any) -> Any:
    return load_images(ImageLoader.model_validate({"path": "pictures", **values}), folder, seed)


def made(folder: Path, seed: int = 0, **values: Any) -> Dataset:
    return make_dataset(raw(folder, seed, **values), "data")


def found(dataset: Dataset) -> dict[bytes, int]:
    """Each picture's bytes to its label."""
    splits = [getattr(dataset, name) for name in SPLITS]
    return {
        picture.tobytes(): int(label)
        for split in splits
        for picture, label in zip(split.inputs["image"], split.targets, strict=True)
    }


def stored(path: Path) -> bytes:
    return np.asarray(Image.open(path)).tobytes()


class TestLabels:
    def test_are_the_folders_by_default(self, folder: Path) -> None:
        held = made(folder)
        assert held.train.inputs["image"].shape == (28, 4, 5, 3)
        assert held.train.inputs["image"].dtype == np.uint8
        assert (len(held.calibration), len(held.evaluation)) == (4, 8)
        labels = found(held)
        assert len(labels) == 40
        for row in range(40):
            assert labels[stored(folder / f"pictures/label{row % 2}/{row}.png")] == row % 2
        assert held.notes == ()

    def test_come_in_the_order_they_are_given(self, folder: Path) -> None:
        held = made(folder, labels=["other", "label1", "label0"])
        assert found(held)[stored(folder / "pictures/label0/0.png")] == 2

    def test_may_stand_in_the_names(self, folder: Path) -> None:
        held = made(folder, label=r"(?P<label>\d+)\.png")
        assert found(held)[stored(folder / "pictures/label1/33.png")] == 33

    def test_may_stand_in_a_table(self, folder: Path) -> None:
        rows = [f"label{row % 2}/{row}.png,{'big' if row > 9 else 'a, small'}" for row in range(30)]
        quoted = [row.replace("a, small", '"a, small"') for row in rows]
        text = "\n".join(["file,label", *quoted])
        (folder / "pictures" / "all.csv").write_text(text)
        held = made(folder, table="all.csv")
        assert len(found(held)) == 30
        assert found(held)[stored(folder / "pictures/label1/5.png")] == 0
        assert held.notes == ("10 other files ignored (first: label0/30.png)",)

    def test_a_zip_is_read_as_its_folder_is(self, folder: Path) -> None:
        wanted = made(folder).fingerprint
        shutil.make_archive(str(folder / "all"), "zip", folder / "pictures")
        shutil.make_archive(str(folder / "around"), "zip", folder, "pictures")
        assert made(folder, path="all.zip").fingerprint == wanted
        assert made(folder, path="around.zip").fingerprint == wanted


class TestSplits:
    def sort(self, folder: Path, *names: str) -> None:
        for row in range(40):
            split = names[row % len(names)]
            path = folder / "pictures" / split / f"label{row % 2}" / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            (folder / "pictures" / f"label{row % 2}" / f"{row}.png").rename(path)
        for label in (0, 1):
            (folder / "pictures" / f"label{label}").rmdir()

    def test_are_folders_where_there_are_such(self, folder: Path) -> None:
        self.sort(folder, "train", "train", "calibration", "evaluation")
        held = made(folder)
        assert [len(getattr(held, name)) for name in SPLITS] == [20, 10, 10]
        wanted = {stored(path) for path in folder.rglob("evaluation/*/*.png")}
        assert {each.tobytes() for each in held.evaluation.inputs["image"]} == wanted
        assert found(held)[next(iter(wanted))] in (0, 1)

    def test_calibrate_on_a_share_of_train_without_a_folder_of_its_own(self, folder: Path) -> None:
        self.sort(folder, "train", "evaluation")
        held = made(folder)
        assert [len(getattr(held, name)) for name in SPLITS] == [16, 4, 20]

    def test_a_double_of_one_to_evaluate_on_is_dropped(self, folder: Path) -> None:
        self.sort(folder, "train", "evaluation")
        source = next(folder.rglob("evaluation/label1/*.png"))
        (folder / "pictures/train/label1").mkdir()
        shutil.copy(source, folder / "pictures/train/label1/again.png")
        held = made(folder)
        assert len(held.evaluation) == 20
        (note,) = held.notes
        assert "train/label1/again.png, of evaluation/label1/" + source.name in note

    def test_a_picture_outside_them_is_refused(self, folder: Path) -> None:
        self.sort(folder, "train", "evaluation", "more", "evaluation")
        with pytest.raises(InputError, match=r"more/label0/10\.png is in none of the folders"):
            raw(folder)


Change = Callable[[Path], Any]


def replace(name: str, mode: str, size: tuple[int, int] = (5, 4)) -> Change:
    return lambda folder: Image.new(mode, size).save(folder / "pictures" / name)


def table(text: str) -> Change:
    return lambda folder: (folder / "pictures/t.csv").write_text(text)


def later(folder: Path) -> None:
    """A zip whose directory asks for a version that nobody has."""
    path = Path(shutil.make_archive(str(folder / "a"), "zip", folder / "pictures"))
    held = bytearray(path.read_bytes())
    held[held.rindex(b"PK\1\2") + 6] = 200
    path.write_bytes(held)


def nothing(folder: Path) -> None:
    pass


WRONG: dict[str, tuple[Change, dict[str, Any], str]] = {
    "no folder": (nothing, {"path": "none"}, "none: no such file or folder: .*/none; put it there"),
    "a file that is no zip": (
        lambda folder: (folder / "a.zip").write_text("no"),
        {"path": "a.zip"},
        r"a\.zip: neither a folder nor a \.zip",
    ),
    "a zip of other contents": (
        lambda folder: shutil.make_archive(str(folder / "a"), "zip", folder / "pictures"),
        {"path": "a.zip", "sha256": "0" * 64},
        r"a\.zip: has the SHA-256 .* where 0000000000000000\.\.\. was expected",
    ),
    "another size": (
        replace("label1/7.png", "RGB", (6, 4)),
        {},
        r"label1/7\.png: is 6x4, while label0/0\.png is 5x4; give `size",
    ),
    "another mode": (
        replace("label1/7.png", "RGBA"),
        {},
        r"label1/7\.png: has the mode RGBA, where rgb \(RGB\) is wanted; set `mode`, or `convert",
    ),
    "16 bits": (replace("label1/7.png", "I;16"), {}, "has the mode I;16"),
    "colour for grey": (nothing, {"mode": "grey"}, r"mode RGB, where grey \(L\) is wanted"),
    "floats": (
        lambda folder: Image.new("F", (5, 4)).save(folder / "pictures/label0/0.tif"),
        {"convert": True},
        "has the mode F, values without a known range",
    ),
    "cut off": (
        lambda folder: (folder / "pictures/label0/8.png").write_bytes(
            (folder / "pictures/label0/8.png").read_bytes()[:60]
        ),
        {},
        r"label0/8\.png: is no picture that can be read",
    ),
    "no pictures": (
        lambda folder: [each.rename(f"{each}.old") for each in folder.rglob("*.png")],
        {},
        "pictures: holds no pictures; their names end in .bmp",
    ),
    "no folder for a label": (
        lambda folder: (folder / "pictures/label0/8.png").rename(folder / "pictures/8.png"),
        {},
        r"8\.png is in no folder that could be its label; sort the files",
    ),
    "a name without a label": (
        nothing,
        {"label": r"1(?P<label>\d)\.png"},
        r"the name of label0/0\.png does not match .*; correct `label`",
    ),
    "a label that the model lacks": (
        nothing,
        {"labels": ["label0", "cat"]},
        r"the label 'label1' of label1/1\.png is not among `labels`; known are label0, cat",
    ),
    "no table": (nothing, {"table": "t.csv"}, r"t\.csv: no such file"),
    "a table of others": (table("name;label\na;b"), {"table": "t.csv"}, "lacks the columns"),
    "a table with a file too many": (
        table("file,label\nlabel0/0.png,1\nlabel0/99.png,1"),
        {"table": "t.csv"},
        r"t\.csv:3: no such file 'label0/99\.png'",
    ),
    "a table that names one twice": (
        table("file,label\nlabel0/0.png,1\nlabel0/0.png,2"),
        {"table": "t.csv"},
        r"t\.csv:3: label0/0\.png stands twice",
    ),
    "a number too large": (
        table("file,label\nlabel0/0.png,1\nlabel1/1.png,99999999999999999999"),
        {"table": "t.csv"},
        r"the label '9+' of label1/1\.png is too large",
    ),
    "a zip for a later program": (later, {"path": "a.zip"}, r"a\.zip: neither a folder nor"),
    "a table without a label": (
        table("file,label\nlabel0/0.png,"),
        {"table": "t.csv"},
        r"t\.csv:2: label0/0\.png has no label",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(folder: Path, name: str) -> None:
    change, values, says = WRONG[name]
    change(folder)
    with pytest.raises(UserError, match=says) as caught:
        raw(folder, **values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"label": "(?P<label>"},
        {"label": "(.*)"},
        {"label": "(?P<label>.)", "table": "t"},
        {"labels": ["a", "b", "a"]},
    ],
)
def test_labels_come_in_one_way_that_can_be_read(folder: Path, values: Any) -> None:
    with pytest.raises(ValidationError):
        raw(folder, **values)


class TestConverting:
    def test_sizes_become_one(self, folder: Path) -> None:
        replace("label1/7.png", "RGB", (60, 40))(folder)
        held = made(folder, size=[8, 6])
        assert held.train.inputs["image"].shape[1:] == (8, 6, 3)

    def test_grey_pictures_have_one_channel(self, folder: Path) -> None:
        held = made(folder, mode="grey", convert=True)
        assert held.train.inputs["image"].shape[1:] == (4, 5, 1)

    @pytest.mark.parametrize(
        ("mode", "value", "wanted"),
        [
            ("RGBA", (200, 100, 50, 255), (200, 100, 50)),
            ("RGBA", (200, 100, 50, 0), (0, 0, 0)),
            ("LA", (80, 255), (80, 80, 80)),
            ("L", 80, (80, 80, 80)),
            ("I;16", 0x5AFF, (0x5A, 0x5A, 0x5A)),
        ],
    )
    def test_values_are_what_they_look_like(
        self, tmp_path: Path, mode: str, value: Any, wanted: Any
    ) -> None:
        Image.new(mode, (3, 2), value).save(tmp_path / "a.png")
        image = decode((tmp_path / "a.png").read_bytes(), "a.png", convert=True)
        assert image.shape == (2, 3, 3)
        assert (image == np.array(wanted)).all()

    def test_a_palette_is_looked_up(self, tmp_path: Path) -> None:
        Image.new("RGB", (3, 2), (10, 200, 30)).quantize(4).save(tmp_path / "a.png")
        image = decode((tmp_path / "a.png").read_bytes(), "a.png", convert=True)
        assert np.abs(image.astype(int) - [10, 200, 30]).max() <= 4


def test_without_pillow_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"needs Pillow; pip install .*\[images\]"):
        raw(folder)
