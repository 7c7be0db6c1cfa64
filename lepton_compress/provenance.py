"""What determines a result beside its inputs: the code that ran and the libraries under it.

A plug-in's code is its module and every module of the same project that it imports, found by
reading `import` statements, so that nothing is executed and a change in a helper counts too.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    "torchmetrics",
    "numpy",
    "safetensors",
)
OPTIONAL = ("ai-edge-litert", "executorch", "openvino")
"""Runtimes of extras: results depend on them where they are installed."""


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, the same for equal values on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(paths: Sequence[Path]) -> str:
    """`file_digest` of one file; of several, the `digest` of the list of theirs."""
    digests = [file_digest(path) for path in paths]
    return digests[0] if len(digests) == 1 else digest(digests)


@functools.cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on; absent ones are left out."""
    import importlib.metadata

    found = {}
    for name in (*LIBRARIES, *OPTIONAL):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def cpu() -> dict[str, Any]:
    """The processor: its name, the number of usable cores, and the vector extensions it has."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return describe_cpu(text, platform.machine(), platform.processor(), cores)


_X86 = ("x86_64", "amd64", "i386", "i686", "x86")


def is_x86(processor: Mapping[str, Any]) -> bool:
    """Of a processor as `cpu` tells it."""
    return str(processor["machine"]).lower() in _X86


def describe_cpu(text: str, machine: str, name: str, cores: int | None) -> dict[str, Any]:
    """A processor as `cpu` tells it.

    Args:
        text: what /proc/cpuinfo says; empty where there is none.
        machine: the architecture.
        name: what to call it where `text` does not say.
        cores: how many can be used.
    """
    fields = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    present = set((fields.get("flags") or fields.get("Features") or "").split())
    wanted = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
    return {
        "name": fields.get("model name") or name or machine,
        "machine": machine,
        "cores": cores,
        "extensions": [flag for flag in wanted if flag in present],
    }


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
    function = inspect.unwrap(function)  # a decorator's wrapper stands in the decorator's file
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


def file_code_digest(path: Path) -> str:
    """Digest of a Python file and of the files of its project that it imports; of one in another
    installed package, of all that package's code."""
    seen: dict[str, str] = {}
    root = _project_root(path)
    # Distributions share site-packages; the others count by their versions, not by their code.
    shared = root.name in ("site-packages", "dist-packages")
    own = path.relative_to(root).parts[0].removesuffix(".py") if shared else None
    if shared and own != __package__:
        # Following the imports of a large library takes seconds for each file of it.
        return _package_digest(root / path.relative_to(root).parts[0])
    local = {each.name.removesuffix(".py") for each in root.iterdir()}
    known: set[str] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        # Names, not absolute paths, so that another folder gives the same digest.
        name = file.relative_to(root).as_posix()
        if name in seen:
            continue
        stat = file.stat()
        seen[name], imported = _read_code(file, root, stat.st_mtime_ns, stat.st_size)
        for dotted in imported - known:
            top = dotted.partition(".")[0]
            if top in local and own in (None, top):
                waiting += _files(root, dotted)
        known |= imported
    return digest(seen)


@functools.cache
def _package_digest(top: Path) -> str:
    """Digest of an installed package, which does not change while a process runs."""
    files = sorted(top.rglob("*.py")) if top.is_dir() else [top]
    return digest({file.relative_to(top.parent).as_posix(): file_digest(file) for file in files})


def _project_root(path: Path) -> Path:
    """The folder whose modules count as the same project: above the outermost package."""
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


@functools.cache
def _read_code(path: Path, root: Path, changed: int, size: int) -> tuple[str, frozenset[str]]:
    """Digest of a file, and the dotted names it imports. `changed` and `size` key the cache."""
    source = path.read_bytes()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        tree = ast.Module([], [])  # importing it will say so
    package = path.parent.relative_to(root).parts
    names = {".".join(package), *_imports(tree, package)}
    return hashlib.sha256(source).hexdigest(), frozenset(names - {""})


def _files(root: Path, dotted: str) -> Iterator[Path]:
    """The files that importing a dotted name runs: its packages', then its own."""
    folder = root
    for part in dotted.split("."):
        folder = folder / part
        for file in (folder.with_name(part + ".py"), folder / "__init__.py"):
            if file.is_file():
                yield file


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Dotted names that the tree imports, relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *(node.module or "").split("."))).strip(".")
            yield base
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)
