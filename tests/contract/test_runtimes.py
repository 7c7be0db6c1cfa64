"""What every runtime keeps to: it agrees with the graph, and says no to what it cannot run."""

from __future__ import annotations

import functools
import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compress import registry
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from lepton_compress.verify import LIMIT, difference
from tests.contract.needed import GRAPHS, feeds, installed, of_kind, parameters

FORMATS = {"onnxruntime-cpu": "onnx", "openvino-cpu": "onnx", "litert-cpu": "litert"}
FORMATS |= {"executorch-cpu": "executorch"}
"""What each runs, by the name of its exporter. A new runtime gets its line here."""

every = pytest.mark.parametrize(
    "name",
    installed([name for name in of_kind("runtime") if not registry.get("runtime", name).simulates]),
)
each_graph = pytest.mark.parametrize("held", GRAPHS)


def artifact(name: str, held: str, folder: Path) -> Path:
    """A graph in the format that a runtime takes."""
    made, data = _written(FORMATS[name], held)
    path = folder / made
    path.write_bytes(data)
    return path


@functools.cache
def _written(format_: str, held: str) -> tuple[str, bytes]:
    exporter = registry.get("exporter", format_)
    with tempfile.TemporaryDirectory() as folder:
        given = parameters("exporter", format_)
        path: Path = exporter.call(GRAPHS[held](), given, Path(folder))
        return path.name, path.read_bytes()


def load(name: str, path: Path, threads: int = 1) -> Any:
    return registry.get("runtime", name).call(path, threads)


@every
@each_graph
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("threads", [1, 2])
def test_it_agrees_with_the_graph(
    name: str, held: str, batch: int, threads: int, tmp_path: Path
) -> None:
    model = GRAPHS[held]()
    given = feeds(model, batch)
    kept = {key: array.copy() for key, array in given.items()}
    runner = load(name, artifact(name, held, tmp_path), threads)
    outputs = runner.run(given)
    made = dict(zip(model.outputs, outputs, strict=True))
    assert difference(forms.call(model, given), made) <= LIMIT
    for key, array in given.items():
        np.testing.assert_array_equal(array, kept[key])


@every
@each_graph
def test_it_tells_inputs_and_outputs_in_order(name: str, held: str, tmp_path: Path) -> None:
    model = GRAPHS[held]()
    runner = load(name, artifact(name, held, tmp_path))
    assert [(s.name, s.dtype) for s in runner.inputs] == [(s.name, s.dtype) for s in model.inputs]
    assert tuple(spec.name for spec in runner.outputs) == model.outputs
    for spec, array in zip(runner.outputs, runner.run(feeds(model, 2)), strict=True):
        assert spec.dtype == array.dtype.name
        assert len(spec.shape) == array.ndim


@every
def test_twice_gives_the_same(name: str, tmp_path: Path) -> None:
    runner = load(name, artifact(name, "image", tmp_path))
    given = feeds(GRAPHS["image"](), 3)
    for one, other in zip(runner.run(given), runner.run(given), strict=True):
        np.testing.assert_array_equal(one, other)


@every
@pytest.mark.parametrize("damage", ["absent", "empty", "text", "half", "folder"])
def test_a_file_that_is_none_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    path = artifact(name, "image", tmp_path)
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "absent":
        kept = {"empty": b"", "text": b"no model at all\n", "half": data[: len(data) // 2]}
        path.write_bytes(kept[damage])
    with pytest.raises(InputError) as caught:
        load(name, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@every
@pytest.mark.parametrize("wrong", ["missing", "shape", "dtype", "unknown"])
def test_arrays_that_do_not_fit_are_refused(name: str, wrong: str, tmp_path: Path) -> None:
    runner = load(name, artifact(name, "several", tmp_path))
    given: dict[str, Any] = feeds(GRAPHS["several"](), 2)
    if wrong == "missing":
        del given["side"]
    elif wrong == "unknown":
        given["more"] = given["side"]
    elif wrong == "shape":
        given["side"] = given["side"][:, :2, None]
    else:
        given["side"] = given["side"].astype(np.float64)
    with pytest.raises(InputError):
        runner.run(given)


@every
def test_it_names_the_packages_that_it_loads(name: str) -> None:
    module = importlib.import_module(registry.table()["runtime", name][0].partition(":")[0])
    assert module.PACKAGES
    for package in module.PACKAGES:
        importlib.import_module(package)
