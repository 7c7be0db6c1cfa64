"""Requirements as metadata writes them, and versions against them."""

from __future__ import annotations

import importlib.metadata

import pytest

from lepton_compress.requirements import Requirement, meets, read, requirements


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("torch<2.14,>=2.13", Requirement("torch", ">=2.13, <2.14")),
        ("rich", Requirement("rich", "")),
        ("neural-compressor[pt] (>=3.10)", Requirement("neural-compressor", ">=3.10")),
        ('pytest>=9; extra == "dev"', Requirement("pytest", ">=9", "dev")),
        ("a ; python_version > '3' and extra == 'b'", Requirement("a", "", "b")),
    ],
)
def test_lines_are_read(line: str, made: Requirement) -> None:
    assert read(line) == made


def test_other_lines_are_refused() -> None:
    with pytest.raises(ValueError, match="is not a requirement"):
        read(">=3")


@pytest.mark.parametrize(
    ("version", "wanted", "met"),
    [
        ("2.13.0+cpu", ">=2.13, <2.14", True),
        ("2.14", ">=2.13, <2.14", False),
        ("2.9", ">=2.13", False),
        ("3", ">=3.0.0, <=3.0", True),
        ("1.0rc1", "==1.0", True),
        ("1.2.3", "==1.2.*", True),
        ("1.3", "==1.2.*", False),
        ("1.3", "!=1.3", False),
        ("1.3", ">1.3", False),
        ("1.3", "", True),
        ("1.3", "~=9", True),
    ],
)
def test_versions_are_compared_as_releases(version: str, wanted: str, met: bool) -> None:
    assert meets(version, wanted) is met


def test_our_own_are_read_and_are_met() -> None:
    asked = requirements("lepton-compress")
    assert {"torch", "typer"} <= {each.name for each in asked if not each.extra}
    for each in asked:
        if not each.extra:
            assert meets(importlib.metadata.version(each.name), each.wanted)
