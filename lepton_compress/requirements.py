"""What a distribution asks for, and whether what is installed meets it.

Only what this tool's own metadata uses is understood: releases compared with `>=`, `>`, `<=`,
`<`, `==` and `!=`, and extras. Suffixes such as `rc1` and `+cpu` do not count.
"""

from __future__ import annotations

import importlib.metadata
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

_NAME = re.compile(
    r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?"
)
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_RANGE = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*([0-9][^,\s]*)\s*")
_COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Requirement:
    """A package with the range wanted of it; `extra` is empty where it is always needed."""

    name: str
    wanted: str
    extra: str = ""


def requirements(distribution: str) -> tuple[Requirement, ...]:
    """What an installed distribution asks for, in the order of its metadata.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    return tuple(read(line) for line in importlib.metadata.requires(distribution) or [])


def read(line: str) -> Requirement:
    """A requirement as metadata writes it: `torch<2.14,>=2.13; extra == "train"`.

    Raises:
        ValueError: it is none.
    """
    found = _NAME.fullmatch(line)
    if found is None:
        raise ValueError(f"{line!r} is not a requirement")
    name, wanted, marker = found.groups()
    extra = _EXTRA.search(marker or "")
    # Metadata sorts the bounds as text; people read the lower one first.
    bounds = sorted((each.strip() for each in wanted.split(",") if each.strip()), reverse=True)
    return Requirement(name, ", ".join(bounds), extra[1] if extra else "")


def meets(version: str, wanted: str) -> bool:
    """Whether a version lies in a range such as `>=2.13, <2.14`. Of a bound that is not
    understood, nothing is held against it."""
    for bound in wanted.split(","):
        found = _RANGE.fullmatch(bound)
        if found is None:
            continue
        sign, limit = found.groups()
        have, want = _release(version), _release(limit)
        width = max(len(have), len(want))
        if limit.endswith(".*"):
            have, width = have[: len(want)], len(want)
        if not _COMPARE[sign](_padded(have, width), _padded(want, width)):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(each) for each in found[0].split(".")) if found else ()


def _padded(release: tuple[int, ...], width: int) -> tuple[int, ...]:
    return release + (0,) * (width - len(release))
