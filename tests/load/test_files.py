"""Data is found beside the recipe or where LEPTON_DATA says, and must be what was meant."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lepton_compress.errors import InputError
from lepton_compress.load.files import VARIABLE, locate


def test_beside_the_recipe_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("recipe", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.npz").write_text(name)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    assert locate("a.npz", tmp_path / "recipe").read_text() == "recipe"
    (tmp_path / "recipe" / "a.npz").unlink()
    assert locate("a.npz", tmp_path / "recipe").read_text() == "data"


def test_what_is_missing_says_where_it_should_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(InputError, match=f"{tmp_path}/a.npz") as caught:
        locate("a.npz", tmp_path)
    assert VARIABLE in caught.value.mend
    monkeypatch.setenv(VARIABLE, "/elsewhere")
    with pytest.raises(InputError, match=f"{tmp_path}/a.npz or /elsewhere/a.npz"):
        locate("a.npz", tmp_path)


def test_another_file_than_meant_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("data")
    right = hashlib.sha256(b"data").hexdigest()
    assert locate("a.npz", tmp_path, right.upper()) == tmp_path / "a.npz"
    with pytest.raises(InputError, match=f"{right[:16]}.*{'0' * 16}"):
        locate("a.npz", tmp_path, "0" * 64)
    with pytest.raises(InputError, match="folder"):
        locate(".", tmp_path, right)
