"""References to Python objects: found, or refused with what to write instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lepton_compress.errors import InputError
from lepton_compress.load.references import reference_digest, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(
        "from sibling import TWO\n\ndef double(x):\n    return TWO * x\n"
    )
    (tmp_path / "sibling.py").write_text("TWO = 2\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "own.py").write_text("def double(x):\n    return x + x + 1\n")
    return tmp_path


class TestResolve:
    def test_a_file_finds_its_siblings_and_leaves_the_path_alone(self, folder: Path) -> None:
        before = list(sys.path)
        assert resolve("own.py:double", folder)(4) == 8
        assert sys.path == before

    def test_two_files_of_one_name_are_two_modules(self, folder: Path) -> None:
        assert resolve("own.py:double", folder)(4) == 8
        assert resolve("deep/own.py:double", folder)(4) == 9

    def test_a_package(self, folder: Path) -> None:
        from fractions import Fraction

        assert resolve("fractions:Fraction", folder) is Fraction

    def test_an_absolute_path(self, folder: Path) -> None:
        assert resolve(f"{folder / 'deep' / 'own.py'}:double", Path("/"))(1) == 3

    @pytest.mark.parametrize(
        ("reference", "says"),
        [
            ("own.py", "'own.py' is not a reference.*; write path/to/file.py:name"),
            ("own.py:", "is not a reference"),
            ("own.py:a b", "is not a reference"),
            (":double", "is not a reference"),
            ("no.py:double", "no.py: no such file; paths are relative to the recipe"),
            ("own.py:duble", "own.py: has no 'duble'; did you mean 'double'"),
            ("no_such_package:f", "no module named 'no_such_package'; install its package"),
            ("no.such.package:f", "no module named 'no.such.package'"),
            ("fractions:Fractoin", "fractions: has no 'Fractoin'; did you mean 'Fraction'"),
        ],
    )
    def test_what_is_not_there(self, folder: Path, reference: str, says: str) -> None:
        with pytest.raises(InputError, match=says):
            resolve(reference, folder)

    @pytest.mark.parametrize(
        ("code", "says"),
        [
            ("1 / 0", "importing it raised ZeroDivisionError: division by zero"),
            ("def f(:", "importing it raised SyntaxError"),
            ("import no_such_package", "importing it raised ModuleNotFoundError.*no_such_package"),
        ],
    )
    def test_a_file_that_raises(self, tmp_path: Path, code: str, says: str) -> None:
        (tmp_path / "bad.py").write_text(code)
        with pytest.raises(InputError, match=says):
            resolve("bad.py:f", tmp_path)
        # It is not left half imported.
        assert not any(name.startswith("bad_") for name in sys.modules)


class TestDigest:
    def test_follows_what_the_file_imports(self, folder: Path) -> None:
        before = reference_digest("own.py:double", folder)
        (folder / "sibling.py").write_text("TWO = 3\n")
        assert reference_digest("own.py:double", folder) != before

    def test_ignores_what_it_does_not(self, folder: Path) -> None:
        before = reference_digest("own.py:double", folder)
        (folder / "deep" / "own.py").write_text("changed = True\n")
        (folder / "other.py").write_text("")
        assert reference_digest("own.py:double", folder) == before

    def test_tells_names_apart(self, folder: Path) -> None:
        assert reference_digest("own.py:double", folder) != reference_digest("own.py:TWO", folder)

    def test_runs_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "loud.py").write_text("raise SystemExit('run')")
        assert reference_digest("loud.py:f", tmp_path)

    def test_is_the_same_in_another_folder(self, folder: Path, tmp_path: Path) -> None:
        other = tmp_path / "moved"
        other.mkdir()
        for name in ("own.py", "sibling.py"):
            (other / name).write_text((folder / name).read_text())
        assert reference_digest("own.py:double", other) == reference_digest("own.py:double", folder)

    def test_of_a_package(self, folder: Path) -> None:
        assert reference_digest("fractions:Fraction", folder)
        with pytest.raises(InputError, match="no module named"):
            reference_digest("no_such_package:f", folder)
