"""References to Python objects: `path/to/file.py:name`, or `package.module:name`.

A recipe is code: following a reference runs the module it names.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lepton_compress.errors import InputError
from lepton_compress.provenance import file_code_digest
from lepton_compress.registry import nearest


def resolve(reference: str, folder: Path) -> Any:
    """The object that a reference names; files are relative to `folder`.

    Raises:
        InputError: the reference is malformed, the file or name does not exist, or the module
            raises while it is imported.
    """
    place, attribute = _split(reference)
    try:
        module = _module(folder, place)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a script may end itself when it is imported
        raise InputError(
            f"importing it raised {type(error).__name__}: {error}",
            where=reference,
            mend="run that file with Python to see where",
        ) from error
    if not hasattr(module, attribute):
        known = [name for name in vars(module) if not name.startswith("_")]
        raise InputError(
            f"has no {attribute!r}", where=place, mend=nearest(attribute, sorted(known))
        )
    return getattr(module, attribute)


def reference_digest(reference: str, folder: Path) -> str:
    """Digest of the code behind a reference, without running it where it is a file.

    Raises:
        InputError: as `resolve`.
    """
    place, attribute = _split(reference)
    if place.endswith(".py"):
        return file_code_digest(_file(folder, place)) + ":" + attribute
    spec = _find(place)
    if spec is None or not Path(spec).is_file():  # a namespace, or built into Python
        return reference
    return file_code_digest(Path(spec).resolve()) + ":" + attribute


def _split(reference: str) -> tuple[str, str]:
    place, _, attribute = reference.rpartition(":")
    if not place or not attribute.isidentifier():
        raise InputError(
            f"{reference!r} is not a reference to a Python object",
            mend="write path/to/file.py:name or package.module:name",
        )
    return place, attribute


def _file(folder: Path, place: str) -> Path:
    path = (folder / place).resolve()
    if not path.is_file():
        raise InputError("no such file", where=str(path), mend="paths are relative to the recipe")
    return path


def _find(dotted: str) -> str | None:
    try:
        spec = importlib.util.find_spec(dotted)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise InputError(
            f"no module named {dotted!r}", mend="install its package, or give a path to a file"
        )
    return spec.origin


def _module(folder: Path, place: str) -> ModuleType:
    if not place.endswith(".py"):
        _find(place)
        return importlib.import_module(place)
    return _import_file(_file(folder, place))


_FOLDERS: set[Path] = set()
"""Where files have been imported from."""


def _forget_namesakes(folder: Path) -> None:
    """Before a file of this folder is imported: two folders may both hold a `helpers.py`, and each
    file must get its own."""
    local = {each.stem for each in folder.iterdir() if each.suffix == ".py" or each.is_dir()}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in local:
            continue
        file = getattr(module, "__file__", None)
        top = Path(file).parents[name.count(".")] if file else None
        strange = top is not None and any(each in (top, top.parent) for each in _FOLDERS)
        if strange and not Path(str(file)).is_relative_to(folder):
            del sys.modules[name]
    _FOLDERS.add(folder)
    importlib.invalidate_caches()


@functools.cache
def _import_file(path: Path) -> ModuleType:
    # A name of its own for each path, so that two files called model.py can both be loaded; the
    # folder is on the path meanwhile, so that the file finds its siblings.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError("is not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    _forget_namesakes(path.parent)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module
