"""What every runtime that simulates a device keeps to: the same figures of the same file, nothing
made up, and an artifact that does not fit is said not to."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from lepton_compress import registry
from lepton_compress.artifacts import Fit
from lepton_compress.errors import InputError
from tests.contract.needed import of_kind, parameters

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert writes the models of these tests")
from tests import litert_models, onnx_models

SIMULATORS = [name for name in of_kind("runtime") if registry.get("runtime", name).simulates]
WRITERS: dict[str, Any] = {"litert": litert_models.network, "onnx": onnx_models.network}
"""What writes a small model that fits, by the format. A new format gets its line here."""
ODD = {"litert": "SIGN", "onnx": "Shrink"}
"""What no device takes."""

every = pytest.mark.parametrize("name", SIMULATORS)


def write(name: str, folder: Path, **more: Any) -> Path:
    plugin = registry.get("runtime", name)
    for each in module(name).PACKAGES:
        pytest.importorskip(each, reason=f"{name} needs {each}, which is not installed")
    path: Path = WRITERS[plugin.formats[0]](folder / "model", **more)
    return path


def module(name: str) -> Any:
    path, _ = registry.table()["runtime", name]
    return importlib.import_module(path.partition(":")[0])


def fit(name: str, path: Path) -> Fit:
    found: Fit = registry.get("runtime", name).call(path, parameters("runtime", name))
    return found


def test_there_are_some() -> None:
    assert {"ethos-u", "onnxruntime-qnn", "tflite-micro"} <= set(SIMULATORS)


@every
def test_a_model_that_fits_has_figures(name: str, tmp_path: Path) -> None:
    made = fit(name, write(name, tmp_path))
    assert isinstance(made, Fit)
    assert made.problem == ""
    assert any(letter.isdigit() for letter in made.tool)
    assert made.operators == 5
    assert made.fallbacks == ()
    told = [each for each in (made.seconds, made.ram, made.flash) if each is not None]
    assert told
    assert all(each > 0 for each in told)
    json.dumps([made.configuration, made.figures], allow_nan=False)


@every
def test_twice_gives_the_same(name: str, tmp_path: Path) -> None:
    path = write(name, tmp_path)
    assert fit(name, path) == fit(name, path)


@every
def test_it_leaves_the_file_alone_and_writes_nothing(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(name, tmp_path)
    before = path.read_bytes()
    fit(name, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")


@every
def test_what_it_does_not_take_is_named(name: str, tmp_path: Path) -> None:
    odd = ODD[registry.get("runtime", name).formats[0]]
    made = fit(name, write(name, tmp_path, odd=odd))
    found = [(each.operator, each.name) for each in made.fallbacks]
    assert found == [(odd, f"net.{odd.lower()}")]
    assert made.seconds is None


@every
@pytest.mark.parametrize("damage", ["absent", "empty", "text", "half", "folder"])
def test_a_file_that_is_none_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    path = write(name, tmp_path)
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "absent":
        kept = {"empty": b"", "text": b"no model at all\n", "half": data[: len(data) // 2]}
        path.write_bytes(kept[damage])
    with pytest.raises(InputError) as caught:
        fit(name, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@every
def test_a_preflight_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = registry.get("runtime", name)
    assert plugin.requires is not None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (said,) = plugin.requires(parameters("runtime", name), ())
    assert "pip install 'lepton-compress[" in said
