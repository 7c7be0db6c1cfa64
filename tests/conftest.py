"""Fixtures that several test files use."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lepton_compress import provenance, registry
from tests.bench import Bench, copy_of, furnish

# A busy machine is no defect, and a folder may serve all examples of a property.
settings.register_profile(
    "house",
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Runs the real command line: `cli("plan", "recipe.yaml", cwd=folder)`."""

    def run(*args: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("lepton-compress")
        command = [str(program), *map(str, args)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LEPTON")}
        return subprocess.run(
            command, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
        )

    return run


TINY_RECIPE = """\
version: 1
name: tiny
model: {onnx: model.onnx}
data: {npz: {path: data.npz, inputs: [x], targets: y, calibration: 20 %, evaluation: 40 %}}
metrics: [accuracy]
variants:
  int8: [quantize]
  coarse: [quantize: {per_channel: false}]
gates: {drop: 100 %, size: {limit: 1 MB, strict: true}}
measure: {rounds: 5, cap: 1 s}
"""


def make_tiny(folder: Path) -> None:
    """A two-layer ONNX classifier of eight numbers, its data and its recipe."""
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=s).astype(np.float32) for s in ((8, 16), (16, 3)))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"], "first"),
            helper.make_node("Relu", ["hidden"], ["active"], "relu"),
            helper.make_node("MatMul", ["active", "second"], ["scores"], "second"),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="tests"
    )
    checker.check_model(model)
    save(model, folder / "model.onnx")
    x = rng.normal(size=(100, 8)).astype(np.float32)
    y = (np.maximum(x @ first, 0) @ second).argmax(axis=1)
    np.savez(folder / "data.npz", x=x, y=y)
    (folder / "recipe.yaml").write_text(TINY_RECIPE)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with model.onnx, data.npz and recipe.yaml, not run yet."""
    make_tiny(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Path:
    """The same folder after a run, with `.lepton` and `runs/tiny`. Do not change it; copy it."""
    folder = tmp_path_factory.mktemp("tiny-run")
    make_tiny(folder)
    done = cli("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small model, its data and its recipes. Look, do not touch."""
    folder = tmp_path_factory.mktemp("furnished") / "folder"
    furnish(folder)
    return folder


@pytest.fixture
def bench(furnished: Path, tmp_path: Path) -> Bench:
    """A copy of that folder, and the command line in it."""
    return copy_of(furnished, tmp_path / "bench")
