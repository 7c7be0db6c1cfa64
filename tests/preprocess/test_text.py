"""Texts to numbers of tokens: what comes out, what is told, and what is refused."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError, MissingExtraError
from lepton_compress.load.text import padded
from lepton_compress.preprocess.form import Preprocessing
from lepton_compress.preprocess.text import Text, text
from tests.preprocess.tokenizers import WORDS, write_tokenizer

RAW = TensorSpec("text", "uint8", ("batch", 32))


def made(folder: Path, **settings: Any) -> Preprocessing:
    write_tokenizer(folder / "tokenizer.json")
    params = {"tokenizer": "tokenizer.json", "length": 4, **settings}
    return text(Text.model_validate(params), RAW, folder)


def raw(*texts: str) -> Any:
    return padded([each.encode() for each in texts], 32)


def test_texts_become_numbers_filled_up_and_cut(tmp_path: Path) -> None:
    numbers = made(tmp_path).apply(raw("a good film", "bad bad bad bad film"))
    assert numbers.dtype == np.int64
    assert [[WORDS[each] for each in row] for row in numbers] == [
        ["a", "good", "film", "[PAD]"],
        ["bad", "bad", "bad", "bad"],
    ]


def test_it_is_done_on_the_host_and_its_file_travels(tmp_path: Path) -> None:
    preprocessing = made(tmp_path)
    assert preprocessing.build is None
    assert preprocessing.raw == TensorSpec("text", "int64", ("batch", 4))
    assert preprocessing.files == (tmp_path / "tokenizer.json",)


def test_the_share_of_unknown_tokens_is_told(tmp_path: Path) -> None:
    preprocessing = made(tmp_path)
    assert preprocessing.notes is not None
    (note,) = preprocessing.notes(raw("a gripping film", "good"))
    assert note.startswith("25 %")
    assert preprocessing.notes(raw("good film")) == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("\u4e0d\u597d", "sample 1 holds only unknown tokens: '\u4e0d\u597d'"),
        ("", "sample 1 holds no token"),
        (" ", "sample 1 holds no token"),
    ],
)
def test_a_text_without_any_known_token_is_refused(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(tmp_path).apply(raw("good", given))


def test_what_is_no_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sample 0 is not UTF-8 at byte 1"):
        made(tmp_path).apply(padded([b"a\xff"], 32))


def test_other_samples_are_refused(tmp_path: Path) -> None:
    params = Text(tokenizer="tokenizer.json", length=4)
    with pytest.raises(InputError, match="the loader `text` gives them"):
        text(params, TensorSpec("text", "float32", ("batch", 3)), tmp_path)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file"):
        text(Text(tokenizer="tokenizer.json", length=4), RAW, tmp_path)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": 3}', encoding="utf-8")
    with pytest.raises(InputError, match="is no tokenizer"):
        text(Text(tokenizer="tokenizer.json", length=4), RAW, tmp_path)


def test_a_tokenizer_without_the_token_to_fill_up_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no token '<pad>'.*`pad`"):
        made(tmp_path, pad="<pad>")


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tokenizer(tmp_path / "tokenizer.json")
    real = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name == "tokenizers":
            raise ImportError("No module named 'tokenizers'")
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"lepton-compress\[text\]"):
        text(Text(tokenizer="tokenizer.json", length=4), RAW, tmp_path)
