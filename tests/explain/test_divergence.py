"""A LiteRT file beside its graph: a sound one passes, and a fault is found where it is."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

from lepton_compress import layers
from lepton_compress.accounts import LayerGap
from lepton_compress.artifacts import Model, Split, TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.explain import divergence, parting
from lepton_compress.export.lower import lower
from tests import bench
from tests.compress.nets import apply
from tests.export.litert import loaded, written

Tampering = Callable[[Any, Any], None]


@functools.cache
def samples() -> Split:
    return Split({"image": bench.splits()["calibration"][0]})


@functools.cache
def plain() -> Model:
    spec = TensorSpec("image", "float32", ("batch", 1, 6, 6))
    return lower(Model("module", bench.trained(), (spec,), ("scores",)), samples())


@functools.cache
def quantized() -> Model:
    return apply("quantize", plain(), samples(), activations="uint8").model


GRAPHS = {"float": plain, "int8": quantized}
each_graph = pytest.mark.parametrize("held", GRAPHS)


def compared(path: Path, model: Model, **more: Any) -> tuple[LayerGap, ...]:
    known = layers.read(path)
    assert known is not None
    gaps, count, _ = divergence.compare(path, known, model.value, samples(), 16, **more)
    assert count == 16
    return gaps


def tampered(path: Path, layer: str, change: Tampering) -> Path:
    """A copy whose operator for a layer had something done to it: `change(model, operator)`."""
    known = layers.read(path)
    assert known is not None
    index = next(each.index for each in known.operators if each.layer == layer and each.values)
    model = loaded(path)
    operator = next(each for each in model.subgraphs[0].operators if index in each.outputs)
    change(model, operator)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    made = path.with_name("tampered.tflite")
    made.write_bytes(bytes(builder.Output()))
    shutil.copyfile(layers.beside(path), layers.beside(made))
    return made


def weight(model: Any, operator: Any) -> Any:
    """The tensor of an operator's weights."""
    return model.subgraphs[0].tensors[operator.inputs[1]]


def with_one_weight_negated(model: Any, operator: Any) -> None:
    tensor = weight(model, operator)
    dtype = np.float32 if tensor.type == 0 else np.int8
    buffer = model.buffers[tensor.buffer]
    values = np.array(buffer.data, np.uint8).view(dtype).copy()
    values[np.abs(values.astype(np.float32)).argmax()] *= -1
    buffer.data = values.view(np.uint8)


def with_scales_in_another_order(model: Any, operator: Any) -> None:
    scales = weight(model, operator).quantization
    assert len(set(scales.scale)) > 1
    scales.scale = np.array(scales.scale, np.float32)[::-1].copy()


@each_graph
def test_every_layer_of_a_sound_file_computes_the_same(held: str, tmp_path: Path) -> None:
    model = GRAPHS[held]()
    gaps = compared(written(model, tmp_path), model)
    assert parting.first(gaps) == ""
    named = [each.layer for each in gaps]
    assert [n for n in named if n.partition("/")[0] in ("norm1", "conv2", "pool", "scores")] == [
        "norm1/Conv", "conv2/Conv", "pool/MaxPool", "scores/Gemm",
    ]  # fmt: skip
    assert {each.unit for each in gaps} == {"relative"} | ({"steps"} if held == "int8" else set())
    # Nothing is compared with itself: kernels that sum in another order differ in the last bits.
    assert any(each.alone > 0 for each in gaps)


@each_graph
@pytest.mark.parametrize("layer", ["norm1", "conv2", "scores"])
def test_a_wrong_weight_is_found_in_its_layer(held: str, layer: str, tmp_path: Path) -> None:
    model = GRAPHS[held]()
    path = tampered(written(model, tmp_path), layer, with_one_weight_negated)
    gaps = compared(path, model)
    assert parting.first(gaps).startswith(f"{layer}/")
    # Those behind it compute what they should from what they are given.
    assert [each.layer.partition("/")[0] for each in gaps if each.parts] == [layer]
    after = next(each for each in reversed(gaps) if each.layer.startswith("scores"))
    assert after.together > after.limit


@pytest.mark.parametrize("layer", ["norm1", "conv2"])
def test_swapped_scales_are_found_in_their_layer(layer: str, tmp_path: Path) -> None:
    path = tampered(written(quantized(), tmp_path), layer, with_scales_in_another_order)
    assert parting.first(compared(path, quantized())) == f"{layer}/Conv"


def test_what_quantisation_costs_stands_beside(tmp_path: Path) -> None:
    gaps = compared(written(quantized(), tmp_path), quantized(), reference=plain().value)
    told = {each.layer: each.quantized for each in gaps if each.quantized is not None}
    assert {"norm1/Conv", "conv2/Conv", "pool/MaxPool", "scores/Gemm"} <= set(told)
    assert all(0 < value < 0.1 for value in told.values())


@pytest.mark.parametrize("parameters", [{"batch": 4}, {"layout": "nchw"}, {"borders": "int8"}])
def test_however_the_file_is_written(parameters: dict[str, Any], tmp_path: Path) -> None:
    gaps = compared(written(quantized(), tmp_path, **parameters), quantized())
    assert parting.first(gaps) == ""
    assert "conv2/Conv" in [each.layer for each in gaps]


@pytest.mark.parametrize("weights", ["float16", "int8", "dynamic"])
def test_weights_that_the_file_alone_rounds_are_no_fault(weights: str, tmp_path: Path) -> None:
    gaps = compared(written(plain(), tmp_path, weights=weights), plain())
    assert parting.first(gaps) == ""
    assert {each.limit for each in gaps} == {divergence.APPROXIMATE}
    assert max(each.alone for each in gaps) > divergence.RELATIVE


def test_too_few_samples_for_one_call(tmp_path: Path) -> None:
    path = written(plain(), tmp_path, batch=64)
    known = layers.read(path)
    assert known is not None
    with pytest.raises(InputError, match="48 samples do not fill one call of 64"):
        divergence.compare(path, known, plain().value, samples(), 16)


def test_samples_of_another_model(tmp_path: Path) -> None:
    path = written(plain(), tmp_path)
    known = layers.read(path)
    assert known is not None
    two = Split({name: np.zeros((4, 2), np.float32) for name in ("a", "b")})
    with pytest.raises(InputError, match="the model takes image"):
        divergence.compare(path, known, plain().value, two, 4)
