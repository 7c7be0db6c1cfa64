"""What every exporter keeps to: one file, the same each time, that computes what the graph does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lepton_compress import registry
from lepton_compress.load import forms
from lepton_compress.verify import LIMIT, difference
from tests.contract.needed import GRAPHS, feeds, installed, of_kind, parameters

RUNTIMES = {"onnx": "onnxruntime-cpu", "litert": "litert-cpu", "executorch": "executorch-cpu"}
"""What can run each format. A new exporter gets its line here."""

every = pytest.mark.parametrize("name", installed(of_kind("exporter")))
each_graph = pytest.mark.parametrize("held", GRAPHS)


def export(name: str, held: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = registry.get("exporter", name).call(GRAPHS[held](), parameters("exporter", name), folder)
    assert isinstance(path, Path)
    return path


@every
@each_graph
def test_a_file_in_the_folder_is_written(name: str, held: str, tmp_path: Path) -> None:
    path = export(name, held, tmp_path)
    assert path.is_file()
    assert path.is_relative_to(tmp_path)
    assert path.stat().st_size > 0


@every
@each_graph
def test_twice_gives_the_same_bytes(name: str, held: str, tmp_path: Path) -> None:
    one, other = (export(name, held, tmp_path / number) for number in "12")
    assert one.read_bytes() == other.read_bytes()
    assert one.name == other.name


@every
@each_graph
def test_no_path_gets_into_it(name: str, held: str, tmp_path: Path) -> None:
    data = export(name, held, tmp_path).read_bytes()
    for trace in (tmp_path, Path.cwd(), Path(__file__).parent):
        assert str(trace).encode() not in data


@every
@each_graph
def test_the_graph_is_left_alone(name: str, held: str, tmp_path: Path) -> None:
    model = GRAPHS[held]()
    mark = forms.fingerprint(model)
    registry.get("exporter", name).call(model, parameters("exporter", name), tmp_path)
    assert forms.fingerprint(model) == mark


@every
@each_graph
@pytest.mark.parametrize("batch", [1, 7])
def test_it_computes_what_the_graph_computes(
    name: str, held: str, batch: int, tmp_path: Path
) -> None:
    model = GRAPHS[held]()
    runner = registry.get("runtime", RUNTIMES[name]).function(export(name, held, tmp_path), 1)
    given = feeds(model, batch)
    made = dict(zip([spec.name for spec in runner.outputs], runner.run(given), strict=True))
    assert difference(forms.call(model, given), made) <= LIMIT
    assert all(np.isfinite(array).all() for array in made.values())
