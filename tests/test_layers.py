"""What operators stand for, as it is kept beside a LiteRT file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lepton_compress import layers
from lepton_compress.errors import InputError
from lepton_compress.layers import Layer, Layers, Value

HELD = Layers(
    (
        Layer("PAD", "2", 2, "stem.conv/Conv", "stem.conv", ()),
        Layer("CONV_2D", "3", 3, "stem.conv/Conv", "stem.conv", (Value("r", (1, 4), (4,), (0,)),)),
        Layer("DEQUANTIZE", "scores", 4, "", "", ()),
    ),
    approximate=True,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a file with the JSON beside it."""
    file = tmp_path / "model.tflite"
    layers.beside(file).write_text(layers.to_json(HELD))
    return file


def test_it_comes_back_as_it_was_written(path: Path) -> None:
    assert layers.read(path) == HELD
    assert layers.beside(path).name == "model.layers.json"


def test_a_file_without_one(tmp_path: Path) -> None:
    assert layers.read(tmp_path / "other.tflite") is None
    assert layers.named(tmp_path / "other.tflite", [("PAD", "2")]) == {}


def test_tensors_have_the_names_of_nodes(path: Path) -> None:
    found = layers.named(path, [("PAD", "2"), ("CONV_2D", "3"), ("DEQUANTIZE", "scores")])
    assert found == {"2": "stem.conv/Conv", "3": "stem.conv/Conv"}


def test_one_of_another_file_is_not_believed(path: Path) -> None:
    assert layers.named(path, [("CONV_2D", "2")]) == {}
    assert layers.named(path, [("CONV_2D", "3"), ("ADD", "7")]) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no list of layers, or is damaged; export the model again"),
        ("[]", "is no list of layers"),
        ('{"version": 1}', "is no list of layers"),
        ('{"version": 1, "approximate": false, "operators": [{}]}', "is no list of layers"),
        ('{"version": 2, "operators": []}', "is of version 2, which is not known; delete it"),
    ],
)
def test_a_damaged_one_is_named(path: Path, text: str, said: str) -> None:
    layers.beside(path).write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        layers.read(path)
    assert str(caught.value).startswith(str(layers.beside(path)))


def test_values_of_another_shape_are_damage(path: Path) -> None:
    held = json.loads(layers.beside(path).read_text())
    held["operators"][1]["values"][0].pop("order")
    layers.beside(path).write_text(json.dumps(held))
    with pytest.raises(InputError, match="is no list of layers"):
        layers.read(path)
