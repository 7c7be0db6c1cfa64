"""The state of an installation and of the machine under it, without importing any of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lepton_compress import plugins
from lepton_compress.overviews import Checkup, ExtraCheck, LibraryCheck
from lepton_compress.provenance import LIBRARIES, cpu
from lepton_compress.requirements import Requirement, meets, requirements
from lepton_compress.units import show_bytes

TOOL = "lepton-compress"
_ROOM = 1_000_000_000
"""Bytes below which a workspace is called short of room."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_DOT = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
_SATURATING = {"avx2", "avx512f"}


def examine(workspace: Path) -> Checkup:
    """Look at Python, the libraries, the processor, the plug-ins and the disk."""
    try:
        asked = requirements(TOOL)
        version = importlib.metadata.version(TOOL)
        wanted = str(importlib.metadata.metadata(TOOL).json.get("requires_python", ""))
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        asked, version, wanted = (), "", ""
    python = platform.python_version()
    python_check = LibraryCheck("python", python, wanted.replace(",", ", "), meets(python, wanted))
    libraries = _libraries(asked)
    free = shutil.disk_usage(_existing(workspace)).free
    return Checkup(
        tool=version,
        python=python_check,
        libraries=libraries,
        cpu=cpu(),
        int8=int8(cpu()),
        threads={name: os.environ[name] for name in _THREADS if name in os.environ},
        extras=tuple(_extras(asked)),
        workspace=str(workspace),
        free=free,
        problems=tuple(_problems(version, python_check, libraries)),
        warnings=tuple(_warnings(workspace, free)),
    )


def int8(processor: dict[str, Any]) -> str:
    """What a processor's vector extensions mean for int8 models."""
    present = set(processor["extensions"])
    if found := sorted(present & _DOT):
        return f"{', '.join(found)}: int8 products are summed in 32 bits, exact and fast"
    if found := sorted(present & _SATURATING):
        return (
            f"{', '.join(found)} without VNNI: sums of two int8 products saturate at 16 bits; "
            "int8 may lose accuracy here that it keeps elsewhere, and gain little speed"
        )
    return "no int8 instructions: an int8 model is smaller, but hardly faster"


def _libraries(asked: tuple[Requirement, ...]) -> tuple[LibraryCheck, ...]:
    """Those that results depend on first, then the others that are required."""
    wanted = {each.name: each.wanted for each in asked if not each.extra}
    ordered = [name for name in LIBRARIES if name != TOOL]
    ordered += sorted(name for name in wanted if name not in ordered)
    return tuple(_check(name, wanted.get(name, "")) for name in ordered)


def _check(name: str, wanted: str) -> LibraryCheck:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return LibraryCheck(name, "", wanted, met=False)
    return LibraryCheck(name, version, wanted, meets(version, wanted))


def _extras(asked: tuple[Requirement, ...]) -> Iterator[ExtraCheck]:
    for extra in sorted({each.extra for each in asked if each.extra}):
        packages = tuple(_check(each.name, each.wanted) for each in asked if each.extra == extra)
        yield ExtraCheck(extra, packages, f"pip install '{TOOL}[{extra}]'")


def _problems(
    version: str, python: LibraryCheck, libraries: tuple[LibraryCheck, ...]
) -> Iterator[str]:
    if not version:
        yield f"{TOOL} is not installed as a package; pip install it, so that versions are known"
    if not python.met:
        mend = "make an environment with one that is"
        yield f"Python {python.version} is not {python.wanted}; {mend}"
    for each in libraries:
        install = f"pip install '{each.name}{each.wanted.replace(' ', '')}'"
        if not each.version:
            yield f"{each.name} is not installed; {install}"
        elif not each.met:
            yield f"{each.name} {each.version} is not {each.wanted}; {install}"


def _warnings(workspace: Path, free: int) -> Iterator[str]:
    broken = {row.broken: row for row in plugins.listing() if row.broken}
    yield from (f"a plug-in cannot be used: {reason}" for reason in broken)
    if free < _ROOM:
        yield (
            f"only {show_bytes(free)} are free for {workspace}; free some, "
            "or `lepton-compress cache prune`"
        )


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    absolute = path.absolute()
    return next(each for each in [absolute, *absolute.parents] if each.is_dir())
