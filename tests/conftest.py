"""Fixtures that several test files use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lepton_compress import provenance, registry

# A busy machine is no defect, and a folder may serve all examples of a property.
settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("house")

Install = Callable[..., Path]


def _clear_caches() -> None:
    for module in (registry, provenance):
        for each in vars(module).values():
            clear: Any = getattr(each, "cache_clear", None)
            if clear is not None:
                clear()
    importlib.invalidate_caches()


@pytest.fixture
def third_party(tmp_path: Path) -> Iterator[Install]:
    """Installs plug-ins of somebody else and returns their folder. May be called again.

        third_party({"step.halve": "halves:halve"}, halves="the source of the module")

    What it makes is a real distribution: a folder on `sys.path` with metadata and entry points.
    """
    path, before = sys.path[:], set(sys.modules)
    folders: list[Path] = []

    def install(entries: dict[str, str], /, *, name: str = "acme", **modules: str) -> Path:
        folder = tmp_path / f"site-{name}"
        about = folder / f"{name}-0.dist-info"
        about.mkdir(parents=True)
        lines = [f"{entry} = {path}" for entry, path in entries.items()]
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
        (about / "entry_points.txt").write_text(f"[{registry.GROUP}]\n" + "\n".join(lines) + "\n")
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(source)
        sys.path.insert(0, str(folder))
        folders.append(folder)
        _clear_caches()
        return folder

    _clear_caches()
    yield install
    for module_name in set(sys.modules) - before:
        file = getattr(sys.modules[module_name], "__file__", None)
        if file and any(Path(file).is_relative_to(folder) for folder in folders):
            del sys.modules[module_name]
    sys.path[:] = path
    _clear_caches()
