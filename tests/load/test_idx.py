"""MNIST's format: read whatever the type, packed or not; and every way in which a file is wrong."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lepton_compress.errors import InputError
from lepton_compress.load.data import make_dataset
from lepton_compress.load.idx import TYPES, IdxLoader, load_idx, read_idx
from lepton_compress.load.splitting import SPLITS
from tests.contract.needed import write_idx

TEST = {"test_images": "more.idx", "test_labels": "right.idx"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for images, labels, count in (("images", "labels", 40), ("more", "right", 10)):
        values = draw.integers(256, size=(count, 4, 5)).astype(np.uint8)
        write_idx(tmp_path / f"{images}.idx", values)
        write_idx(tmp_path / f"{labels}.idx", draw.integers(10, size=count).astype(np.uint8))
    return tmp_path


def raw(folder: Path, **values: Any) -> Any:
    given = {"images": "images.idx", "labels": "labels.idx", **values}
    return load_idx(IdxLoader.model_validate(given), folder, 0)


@pytest.mark.parametrize("code", TYPES)
def test_every_type_is_read_as_it_was_written(tmp_path: Path, code: int) -> None:
    values = np.array([[1, -2, 300], [0, 5, 6]]).astype(TYPES[code])
    data = bytes([0, 0, code, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + values.tobytes()
    for name, held in (("a", data), ("a.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(held)
        read = read_idx(tmp_path / name)
        assert np.array_equal(read, values)
        assert read.dtype.isnative


def test_the_test_files_are_evaluated_on(folder: Path) -> None:
    held = make_dataset(raw(folder, shape=[4, 5, 1], **TEST), "data")
    assert [len(getattr(held, name)) for name in SPLITS] == [35, 5, 10]
    more = read_idx(folder / "more.idx")[..., None]
    assert np.array_equal(held.evaluation.inputs["image"], more)
    assert held.evaluation.targets is not None
    assert np.array_equal(held.evaluation.targets, read_idx(folder / "right.idx"))


def test_without_them_a_share_is(folder: Path) -> None:
    held = make_dataset(raw(folder), "data")
    assert [len(getattr(held, name)) for name in SPLITS] == [28, 4, 8]


def test_a_double_of_a_test_sample_is_dropped(folder: Path) -> None:
    images, labels = read_idx(folder / "images.idx"), read_idx(folder / "labels.idx")
    images[7], labels[7] = read_idx(folder / "more.idx")[3], read_idx(folder / "right.idx")[3]
    write_idx(folder / "images.idx", images)
    write_idx(folder / "labels.idx", labels)
    made = raw(folder, **TEST)
    assert made["notes"] == (
        "1 sample that stands twice dropped (first: sample 7, of test sample 3)",
    )
    assert len(made["evaluation"]["targets"]) == 10


def write(name: str, data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(data)


def cut(folder: Path) -> None:
    path = folder / "images.idx"
    path.write_bytes(path.read_bytes()[:-7])


def longer(folder: Path) -> None:
    write_idx(folder / "labels.idx", np.zeros(41, np.uint8))


def wider(folder: Path) -> None:
    write_idx(folder / "more.idx", np.zeros((10, 4, 6), np.uint8))


WRONG: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "missing": (cut, {"images": "none.idx"}, r"none\.idx: no such file .*; put it there, or set"),
    "a checksum": (
        lambda _: None,
        {"sha256": {"labels": "0" * 64}},
        r"labels\.idx: has the SHA-256 .* where 0000",
    ),
    "a magic number": (
        write("images.idx", b"\x89PNG....."),
        {},
        r"images\.idx: not an IDX file \(it begins with 89 50 4e 47\); give one as MNIST's",
    ),
    "more dimensions than there are": (
        write("images.idx", bytes([0, 0, 8, 200]) + 200 * bytes([0, 0, 0, 1]) + b"x"),
        {},
        r"images\.idx: not an IDX file",
    ),
    "nothing in it": (write("images.idx", b""), {}, "not an IDX file .it begins with nothing."),
    "a head that is cut": (write("images.idx", bytes([0, 0, 8, 3, 0])), {}, "says it holds"),
    "values that are cut": (
        cut,
        {},
        r"images\.idx: says it holds \[40, 4, 5\] values in 800 bytes, but has 793; fetch it",
    ),
    "a gzip that is cut": (
        write("images.idx", gzip.compress(bytes(999))[:20]),
        {},
        r"images\.idx: cannot be read",
    ),
    "another number of labels": (longer, {}, "has 40 samples of 2 dimensions, and 41 labels"),
    "exchanged": (
        lambda _: None,
        {"images": "labels.idx", "labels": "images.idx"},
        r"labels\.idx: its labels are uint8\[40, 4, 5\].*; images and labels may be exchanged",
    ),
    "another size to test": (wider, TEST, r"its samples are uint8\[4, 6\], those of images\.idx"),
    "a shape": (lambda _: None, {"shape": [5, 5]}, r"a sample is \[4, 5\], which cannot be shaped"),
    "labels of another task": (
        lambda _: None,
        {"classes": 1, "low": 256},
        "only 0 of 40 samples are left",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(folder: Path, name: str) -> None:
    change, values, says = WRONG[name]
    change(folder)
    with pytest.raises(InputError, match=says):
        raw(folder, **values)


@pytest.mark.parametrize("values", [{"test_images": "more.idx"}, {"sha256": {"image": "0" * 64}}])
def test_parameters_go_together(folder: Path, values: Any) -> None:
    with pytest.raises(ValidationError):
        raw(folder, **values)
