"""What stands beside a program of a deployment: its manifest, and the artifact that this names."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any


class ManifestError(Exception):
    """What stands beside a program cannot be used."""


def read_manifest(folder: Path) -> Any:
    """What stands beside a program.

    Raises:
        ManifestError: it is missing, damaged or of a later version.
    """
    path = folder / "manifest.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error
    if about.get("version") != 1:
        raise ManifestError(f"{path} is of a version that this program does not know")
    return about


def sessions(folder: Path, held: Any, count: int = 1) -> list[Any]:
    """The artifact that a manifest's `model` names, loaded so many times.

    Raises:
        ManifestError: it is another file than the manifest says.
    """
    file = folder / held["file"]
    if digest(file) != held["sha256"]:
        raise ManifestError(f"{file} is another file than the manifest says")
    if str(folder) not in sys.path:  # what loads the model lies beside it
        sys.path.append(str(folder))
    program = importlib.import_module(held["program"])
    return [program.load(file, held["threads"]) for _ in range(count)]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            total.update(part)
    return total.hexdigest()
