"""The loader of texts: what it reads, what it says of them, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lepton_compress.errors import InputError
from lepton_compress.load.data import make_dataset
from lepton_compress.load.text import TextLoader, cut, load_text

SPLITS = ("train", "calibration", "evaluation")


def texts(split: Any) -> list[tuple[str, int]]:
    pairs = zip(split["inputs"]["text"], split["targets"], strict=True)
    return [(each.tobytes().rstrip(b"\0").decode(), int(label)) for each, label in pairs]


def all_texts(made: Any) -> set[tuple[str, int]]:
    return {pair for split in SPLITS for pair in texts(made[split])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty sentences, as a file a class and as a table."""
    texts = {label: [f"{label} number {each}, \u00e9" for each in range(10)] for label in "yn"}
    for label, each in texts.items():
        (tmp_path / f"{label}.txt").write_text("\n".join(each) + "\n", encoding="utf-8")
    rows = [f'"{text}",{label}' for label, each in texts.items() for text in each]
    (tmp_path / "t.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    return tmp_path


CLASSES = {"no": "n.txt", "yes": "y.txt"}


def load(folder: Path, **settings: Any) -> Any:
    params = TextLoader.model_validate({"bytes": 32, "evaluation": "30 %", **settings})
    made: Any = load_text(params, folder, 0)
    return made


def test_lines_are_labelled_by_the_order_of_the_classes(folder: Path) -> None:
    made = load(folder, classes=CLASSES)
    data = make_dataset(made, "data")
    assert [len(each) for each in (data.train, data.calibration, data.evaluation)] == [12, 2, 6]
    assert data.train.inputs["text"].dtype == np.uint8
    assert data.train.inputs["text"].shape == (12, 32)
    wanted = {
        (f"{'ny'[label]} number {each}, \u00e9", label) for label in (0, 1) for each in range(10)
    }
    assert all_texts(made) == wanted


def test_a_table_gives_the_same_samples(folder: Path) -> None:
    table = load(folder, path="t.csv")
    every = all_texts(table)
    assert ("y number 3, \u00e9", 1) in every
    assert len(every) == 20


def test_a_table_with_tabs_and_labels_in_an_order(folder: Path) -> None:
    lines = ["what\tis", *(f"number {each}\t{'ab'[each % 2]}" for each in range(10)), "odd\tc"]
    (folder / "t.tsv").write_text("\n".join(lines), encoding="utf-8")
    made = load(folder, path="t.tsv", text="what", label="is", labels=["b", "a"])
    assert ("number 3", 0) in all_texts(made)
    assert any("t.tsv, line 12" in note for note in made["notes"])


def test_blank_and_repeated_lines_are_dropped_and_told(folder: Path) -> None:
    with (folder / "y.txt").open("a", encoding="utf-8") as file:
        file.write("\n  \ny number 3, \u00e9\n")
    said = " / ".join(load(folder, classes=CLASSES)["notes"])
    assert "y.txt, line 11" in said
    assert "y.txt, line 13" in said


def test_long_texts_are_cut_between_characters_and_told(folder: Path) -> None:
    made = load(folder, classes=CLASSES, bytes=13)
    assert any("20 texts were longer than 13 bytes" in note for note in made["notes"])
    assert cut("ab\u00e9", 3) == b"ab"
    assert cut("ab\u00e9", 4) == "ab\u00e9".encode()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("y.txt", b"good\xff", r"y\.txt: is not UTF-8 at byte 4; .*iconv"),
        ("y.txt", None, r"y\.txt: no such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    folder: Path, name: str, data: bytes | None, said: str
) -> None:
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=said):
        load(folder, classes=CLASSES)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("txt,label\na,b\n", "has no column 'text'; did you mean 'txt'"),
        ('text,label\n"a,b\n', "cannot be read"),
        ("", "has no column"),
        ("text,label\n", "only 0 of"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(folder: Path, table: str, said: str) -> None:
    (folder / "t.csv").write_text(table, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        load(folder, path="t.csv")


def test_a_row_without_a_label_moves_no_other(folder: Path) -> None:
    with (folder / "t.csv").open("a", encoding="utf-8") as file:
        file.write("\nneither, \nnothing")
    made = load(folder, path="t.csv")
    assert {label for _, label in all_texts(made)} == {0, 1}
    assert "2 samples with a missing value dropped" in str(made["notes"])


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b"])
def test_a_separator_of_lines_within_a_text_ends_no_row(folder: Path, separator: str) -> None:
    rows = [f"{'ny'[each % 2]},film {each}{separator}y, see" for each in range(20)]
    (folder / "t.csv").write_text("\n".join(["label,text,more", *rows]), encoding="utf-8")
    made = load(folder, path="t.csv")
    assert all_texts(made) == {(f"film {each}{separator}y", each % 2) for each in range(20)}


def test_a_wrong_checksum_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="SHA-256"):
        load(folder, classes=CLASSES, sha256={"y.txt": "0" * 64})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"classes": CLASSES, "path": "t.csv"},
        {"classes": {"yes": "y.txt"}},
        {"path": "t.csv", "sha256": {"other.csv": "0"}},
        {"path": "t.csv", "labels": ["n", "y", "n"]},
    ],
)
def test_parameters_that_contradict_each_other_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TextLoader.model_validate(settings)
