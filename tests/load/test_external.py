"""Graphs whose tensors stay in files: what is read, what is written, what is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lepton_compress.artifacts import Dataset, Model, Split, StepContext, StepOutcome
from lepton_compress.errors import InputError
from lepton_compress.load import external, forms
from lepton_compress.load.model import read_onnx_file
from lepton_compress.registry import get
from lepton_compress.report.silent import Silent
from tests import large

WIDTH, LAYERS = 160, 3
FEEDS = {"x": np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)}
STREAMING = {
    "quantize_weights": {"algorithm": "rtn", "block_size": 16},
    "quantize_dynamic": {},
    "bfloat16": {},
}


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every graph with external data counts as large, and only tiny tensors as small."""
    monkeypatch.setattr(external, "LARGE", 0)
    monkeypatch.setattr(external, "_INLINE", 128)


@pytest.fixture
def file(tmp_path: Path, lowered: None) -> Path:
    large.write(tmp_path, width=WIDTH, layers=LAYERS, variants="  int8: [quantize_dynamic]")
    return tmp_path / "model.onnx"


def read(file: Path) -> Model:
    graph = read_onnx_file(file)
    return Model("graph", graph, *forms.signature(graph), file.parent)


def whole(file: Path) -> Model:
    """The same model in memory."""
    graph = onnx.load(file)
    return Model("graph", graph, *forms.signature(graph))


def apply(step: str, model: Model, folder: Path | None, **parameters: object) -> StepOutcome:
    split = Split(FEEDS)
    data = Dataset(split, split, split, "")
    context = StepContext(data, lambda: model, 0, 1, Silent(), scratch=folder)
    plugin = get("step", step)
    made: StepOutcome = plugin.function(model, plugin.params(**parameters), context)
    return made


def test_weights_are_left_in_their_file(file: Path) -> None:
    model = read(file)
    assert external.is_large(model.value)
    assert len(model.value.SerializeToString()) < 4000
    for tensor, held in zip(
        model.value.graph.initializer, whole(file).value.graph.initializer, strict=True
    ):
        given = external.array_of(tensor, model.folder)
        assert np.array_equal(given, onnx.numpy_helper.to_array(held))
        assert not given.flags.writeable


def test_a_small_file_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lowered: None
) -> None:
    large.write(tmp_path, width=WIDTH, layers=1, variants="  a: [bfloat16]")
    monkeypatch.setattr(external, "LARGE", 2**30)
    assert not external.is_large(read_onnx_file(tmp_path / "model.onnx"))


def test_it_computes_the_same(file: Path) -> None:
    wanted, given = forms.call(whole(file), FEEDS), forms.call(read(file), FEEDS)
    for name, array in wanted.items():
        assert np.abs(array - given[name]).max() < 1e-5 * np.abs(array).max()


def test_what_was_saved_is_the_same(file: Path, tmp_path: Path) -> None:
    model, folder = read(file), tmp_path / "kept"
    folder.mkdir()
    forms.save(model, model, folder)
    kept = forms.load(folder, lambda: model)
    assert kept.folder == folder
    assert forms.fingerprint(kept) == forms.fingerprint(model)
    (data,) = external.beside(folder / forms.GRAPH)
    # onnx refuses files of several names, so neither may become one.
    assert data.stat().st_nlink == (tmp_path / "weights.bin").stat().st_nlink == 1
    assert external.is_large(read_onnx_file(folder / forms.GRAPH))
    assert all(np.array_equal(a, b) for a, b in zip(numbers(kept), numbers(model), strict=True))


def by_name(model: Model) -> dict[str, np.ndarray]:
    stored = model.value.graph.initializer
    return {each.name: external.array_of(each, model.folder) for each in stored}


def numbers(model: Model) -> list[np.ndarray]:
    return [external.array_of(each, model.folder) for each in model.value.graph.initializer]


def test_a_changed_weight_is_another_model(file: Path, tmp_path: Path) -> None:
    before = forms.fingerprint(read(file))
    with (tmp_path / "weights.bin").open("r+b") as data:
        data.seek(40)
        data.write(b"\x01\x02\x03\x04")
    assert forms.fingerprint(read(file)) != before


@pytest.mark.parametrize("step", STREAMING)
def test_a_step_that_streams_makes_what_it_makes_in_memory(
    step: str, file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    model = read(file)
    mark = forms.fingerprint(model)
    streamed = apply(step, model, folder, **STREAMING[step])
    held = apply(step, whole(file), None, **STREAMING[step])
    assert streamed.changed
    assert forms.fingerprint(model) == mark
    # Nothing is left in the model's own file.
    assert {path.name for path in folder.iterdir()} == {"tensors-of-the-step.data"}
    forms.save(streamed.model, model, folder)
    kept = forms.load(folder, lambda: model)
    wanted, given = by_name(held.model), by_name(kept)
    assert set(given) == set(wanted)
    assert all(np.array_equal(given[name], array) for name, array in wanted.items())
    apart = [forms.call(each, FEEDS) for each in (held.model, kept)]
    for name, array in apart[0].items():
        assert np.abs(array - apart[1][name]).max() < 1e-4 * np.abs(array).max()


@pytest.mark.parametrize("algorithm", ["auto", "gptq", "awq"])
def test_what_needs_activations_is_refused(algorithm: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too large to be held in memory.*take hqq or rtn"):  # noqa: RUF043
        apply("quantize_weights", read(file), tmp_path, algorithm=algorithm)


def test_hqq_streams(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    made = apply("quantize_weights", read(file), folder, algorithm="hqq")
    assert set(made.statistics["algorithms"].values()) == {"hqq"}


def test_nothing_to_do_leaves_the_model(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    names = [f"layer{place}" for place in range(LAYERS + 2)]
    made = apply("quantize_dynamic", read(file), folder, keep=names)
    assert not made.changed
    assert "named in `keep`" in made.notes[1]


def test_a_file_outside_the_folder_is_refused(file: Path) -> None:
    graph = onnx.load(file, load_external_data=False)
    for entry in graph.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights.bin"
    onnx.save(graph, file)
    with pytest.raises(InputError, match="outside its folder"):
        read_onnx_file(file)
