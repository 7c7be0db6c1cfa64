"""The reference models as LiteRT files, beside ONNX Runtime."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

from lepton_compress.artifacts import Model, Split, TensorSpec
from lepton_compress.export.lower import lower
from lepton_compress.load.forms import call
from tests.compress.nets import apply
from tests.export.litert import error, metadata, operators, run, written

EXACT = 1e-4
"""Of the largest output: what summing in another order may make of float32."""

SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "digits_cnn": ("image", (1, 8, 8)),
    "resnet8": ("image", (3, 32, 32)),
    "mobilenet_v1_025": ("image", (3, 96, 96)),
    "keyword_dscnn": ("features", (1, 49, 10)),
    "dense_autoencoder": ("features", (640,)),
    "text_cnn": ("ids", (64,)),
    "sentiment_transformer": ("ids", (64,)),
    "keyword_gru": ("features", (49, 40)),
    "keyword_lstm": ("features", (49, 40)),
}
IMAGES = ["digits_cnn", "resnet8", "mobilenet_v1_025", "keyword_dscnn", "dense_autoencoder"]
SMALL = {"RESHAPE", "QUANTIZE", "DEQUANTIZE", "PAD"}


@functools.cache
def samples(name: str) -> Split:
    """Inputs of a model; real digits where they ship with a package."""
    given, shape = SHAPES[name]
    draw = np.random.default_rng(0)
    if name == "digits_cnn":
        from reference_models.digits_cnn.data import load

        return Split({given: load()["calibration"][0]})
    if given == "ids":
        held = draw.integers(1, 8000, size=(40, *shape))
        for row, length in enumerate(draw.integers(5, 64, size=40)):
            held[row, length:] = 0
        return Split({given: held})
    # Smooth, as what the models were trained on is.
    steps = draw.normal(size=(40, *shape)).astype(np.float32)
    return Split(
        {given: np.cumsum(steps, axis=-1, dtype=np.float32) / np.float32(shape[-1] ** 0.5)}
    )


@functools.cache
def graph(name: str) -> Model:
    trained = importlib.import_module(f"reference_models.{name}.model").trained()
    given, shape = SHAPES[name]
    dtype = "int64" if given == "ids" else "float32"
    return lower(
        Model("module", trained, (TensorSpec(given, dtype, ("batch", *shape)),), ()), samples(name)
    )


@functools.cache
def quantized(name: str) -> Model:
    parameters = {"calibration": "minmax", "rounding": "nearest", "activations": "uint8"}
    return apply("quantize", graph(name), samples(name), weight_bits=8, **parameters).model


def test_16_bit_activations_agree(tmp_path: Path) -> None:
    parameters = {"rounding": "nearest", "activations": "uint16", "symmetric": True}
    held = samples("digits_cnn")
    model = apply("quantize", graph("digits_cnn"), held, weight_bits=8, **parameters).model
    path = written(model, tmp_path)
    assert operators(path)["CONV_2D"] == 3
    made = run(path, feeds("digits_cnn", 40))[model.outputs[0]]
    assert error(call(model, feeds("digits_cnn", 40))[model.outputs[0]], made) < 1e-3


def feeds(name: str, count: int) -> dict[str, np.ndarray]:
    return next(samples(name).batches(count))


@pytest.mark.parametrize("delegates", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_float_is_what_onnx_runtime_computes(name: str, delegates: bool, tmp_path: Path) -> None:
    path = written(graph(name), tmp_path)
    made = run(path, feeds(name, 8), delegates=delegates)
    for output, wanted in call(graph(name), feeds(name, 8)).items():
        assert error(wanted, made[output]) < EXACT


@pytest.mark.parametrize("name", IMAGES[:4])
def test_images_are_never_transposed(name: str, tmp_path: Path) -> None:
    for model in (graph(name), quantized(name)):
        path = written(model, tmp_path)
        assert operators(path)["TRANSPOSE"] == 0
        assert operators(path)["RELU"] == 0
        assert metadata(path)["inputs"][SHAPES[name][0]]["permutation"] == [0, 2, 3, 1]


@pytest.mark.parametrize("name", IMAGES)
def test_int8_is_a_step_from_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    path = written(quantized(name), tmp_path)
    made = run(path, feeds(name, 40))
    for output, wanted in call(quantized(name), feeds(name, 40)).items():
        assert error(wanted, made[output]) < 3 / 256


@pytest.mark.parametrize("name", IMAGES[:4])
def test_int8_computes_in_integers_alone(name: str, tmp_path: Path) -> None:
    path = written(quantized(name), tmp_path, borders="int8")
    counted = operators(path)
    assert counted["QUANTIZE"] == counted["DEQUANTIZE"] == 0
    about = metadata(path)
    assert about["inputs"][SHAPES[name][0]]["held_as"] == "int8"
    assert all(each["scale"] > 0 for each in about["outputs"].values())


def test_int8_agrees_on_all_but_half_a_percent_of_digits(tmp_path: Path) -> None:
    from reference_models.digits_cnn.data import load

    images, labels = load()["evaluation"]
    model = quantized("digits_cnn")
    wanted = call(model, {"image": images})[model.outputs[0]].argmax(1)
    for delegates in (True, False):
        made = run(written(model, tmp_path), {"image": images}, delegates=delegates)
        said = made[model.outputs[0]].argmax(1)
        assert (said == wanted).mean() >= 0.995
        assert (said == labels).mean() > 0.97
