"""The tree of errors: what a user reads, and how the program ends."""

from __future__ import annotations

import pickle
import re

import pytest

from lepton_compress import errors
from lepton_compress.errors import LeptonError, OutputError, PluginError, RecipeError, UserError


def tree() -> list[type[LeptonError]]:
    found: list[type[LeptonError]] = [LeptonError]
    for each in found:
        found += [child for child in each.__subclasses__() if child.__module__ == errors.__name__]
    return found


def test_the_drawing_shows_every_error_with_its_exit_code() -> None:
    drawing, _, _ = (errors.__doc__ or "").partition("Exit codes")
    drawn = re.findall(r"(\w+Error) +(\d?)", drawing)
    assert {name for name, _ in drawn} == {each.__name__ for each in tree()}
    codes = {name: int(code) for name, code in drawn if code}
    assert codes.keys() >= {"LeptonError", "UserError", "PluginError"}
    for each in tree():
        nearest = next(base.__name__ for base in each.__mro__ if base.__name__ in codes)
        assert each.exit_code == codes[nearest], each


def test_exit_codes_are_the_published_ones() -> None:
    names = ("OK", "GATE", "USER", "UNEXPECTED", "INTERRUPTED")
    assert [getattr(errors, f"EXIT_{name}") for name in names] == [0, 1, 2, 3, 130]
    assert UserError("x").exit_code == 2
    assert PluginError("x").exit_code == 3


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("is wrong"), "is wrong"),
        (UserError("is wrong", where="a.yaml:3"), "a.yaml:3: is wrong"),
        (UserError("is wrong", mend="mend it"), "is wrong; mend it"),
        (OutputError("a\n  b\t c", where="w", mend="m\nn"), "w: a b c; m n"),
    ],
)
def test_an_error_reads_as_one_line(error: LeptonError, line: str) -> None:
    assert str(error) == line


@pytest.mark.parametrize("kind", tree())
def test_an_error_survives_a_process_boundary(kind: type[LeptonError]) -> None:
    sent = kind("is wrong", where="a.yaml", mend="mend it")
    back = pickle.loads(pickle.dumps(sent))
    assert type(back) is kind
    assert str(back) == str(sent) == "a.yaml: is wrong; mend it"


def test_a_recipe_error_carries_the_other_findings() -> None:
    second = RecipeError("also")
    error = pickle.loads(pickle.dumps(RecipeError("first", others=(second,))))
    assert [str(each) for each in error.others] == ["also"]
    assert second.others == ()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "true"), (5, "5"), ("a", "'a'"), ("a" * 99, "'" + "a" * 56 + "...")],
)
def test_values_are_quoted_briefly(value: object, shown: str) -> None:
    assert errors.quote(value) == shown
