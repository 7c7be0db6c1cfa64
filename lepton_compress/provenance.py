"""What determines a result beside its inputs: the code that ran and the libraries under it.

A plug-in's code is its module and every module of the same project that it imports, found by
reading `import` statements, so that nothing is executed and a change in a helper counts too.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LIBRARIES = (
    "lepton-compress",
    "torch",
    "onnx",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "neural-compressor",
    "torch-pruning",
    "numpy",
    "safetensors",
)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, the same for equal values on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on; absent ones are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def cpu() -> dict[str, Any]:
    """The processor: its name, the number of usable cores, and the vector extensions it has."""
    name, flags = platform.processor() or platform.machine(), []
    info = Path("/proc/cpuinfo")
    if info.is_file():
        fields = dict(
            (key.strip(), value.strip())
            for key, _, value in (line.partition(":") for line in info.read_text().splitlines())
        )
        name = fields.get("model name", name)
        present = set((fields.get("flags") or fields.get("Features") or "").split())
        wanted = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
        flags = [flag for flag in wanted if flag in present]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"name": name, "machine": platform.machine(), "cores": cores, "extensions": flags}


def environment() -> dict[str, Any]:
    """What a reader needs to reproduce a run."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu(),
        "libraries": library_versions(),
    }


def code_digest(function: Callable[..., Any] | type) -> str:
    """Digest of the source that a function or class runs, its project's helpers included.

    A function without a source file (made in a console, say) counts by its own source text where
    Python still has it, else by its qualified name.
    """
    try:
        path = inspect.getsourcefile(function)
    except TypeError:
        path = None
    if path is None or not Path(path).is_file():
        try:
            text = inspect.getsource(function)
        except (OSError, TypeError):
            text = f"{function.__module__}.{function.__qualname__}"
        return digest(text)
    return file_code_digest(Path(path).resolve())


@functools.cache
def file_code_digest(path: Path) -> str:
    """Digest of a Python file and of the files of its project that it imports."""
    seen: dict[str, str] = {}
    _collect(path, _project_root(path), seen)
    return digest(seen)


def _project_root(path: Path) -> Path:
    """The folder whose modules count as the same project: above the outermost package."""
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _collect(path: Path, root: Path, seen: dict[str, str]) -> None:
    # Names, not absolute paths, so that another folder gives the same digest.
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    if name in seen:
        return
    source = path.read_bytes()
    seen[name] = hashlib.sha256(source).hexdigest()
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return  # importing it will say so
    for dotted in _imports(tree, path, root):
        target = root.joinpath(*dotted.split("."))
        for file in (target.with_suffix(".py"), target / "__init__.py"):
            if file.is_file():
                _collect(file, root, seen)


def _imports(tree: ast.AST, path: Path, root: Path) -> Iterator[str]:
    """Dotted names that the tree imports, relative ones resolved."""
    package = path.parent.relative_to(root).parts if path.is_relative_to(root) else ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *(node.module or "").split("."))).strip(".")
            yield base
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)
