"""The step `bfloat16`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.errors import InputError
from tests.compress.nets import apply, cnn, decibels, mlp, outputs, recurrent, transformer

NETS = {
    "cnn": cnn(),
    "mlp": mlp(128),
    "lstm": recurrent("LSTM"),
    "computed weights": recurrent("GRU", computed=True),
    "transformer": transformer(fused=False),
    "fused": transformer(fused=True),
}


@pytest.mark.parametrize(("model", "split"), NETS.values(), ids=NETS)
def test_half_the_bytes_and_eight_bits_of_precision(model: Model, split: Split) -> None:
    made = apply("bfloat16", model, split)
    assert 30 < decibels(outputs(model, split), outputs(made.model, split)) < 70
    assert made.statistics["bytes_after"] < 0.6 * made.statistics["bytes_before"]
    assert made.model.inputs == model.inputs
    assert any("computes in float32" in note for note in made.notes)


def test_weights_are_rounded_to_nearest_even() -> None:
    model, split = mlp(128)
    made = apply("bfloat16", model, split).model.value
    before = {each.name: numpy_helper.to_array(each) for each in model.value.graph.initializer}
    for tensor in made.graph.initializer:
        if tensor.data_type != TensorProto.BFLOAT16:
            continue
        bits = before[tensor.name.removesuffix("_bfloat16")].view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        given = numpy_helper.to_array(tensor).view(np.uint16)
        assert np.array_equal(given, rounded)


def test_what_float16_cannot_hold_is_held() -> None:
    model, split = mlp(128)
    large = onnx.ModelProto()
    large.CopyFrom(model.value)
    array = numpy_helper.to_array(large.graph.initializer[0]) * 1e6
    large.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w1"))
    made = apply("bfloat16", model.replace(value=large), split)
    assert np.isfinite(outputs(made.model, split)).all()
    assert made.statistics["output_sqnr_db"] > 30


def test_the_file_is_half(tmp_path: Path) -> None:
    model, split = mlp(1024)
    made = apply("bfloat16", model, split).model
    sizes = [len(each.value.SerializeToString()) for each in (made, model)]
    assert sizes[0] < 0.52 * sizes[1]


def test_kept_weights_stay() -> None:
    model, split = mlp(128)
    made = apply("bfloat16", model, split, keep=["hidden"])
    assert made.statistics["weighted"]["float"] == {"hidden": "named in `keep`"}
    kinds = {each.name: each.data_type for each in made.model.value.graph.initializer}
    assert kinds["w1"] == TensorProto.FLOAT
    with pytest.raises(InputError, match="did you mean 'hidden'"):
        apply("bfloat16", model, split, keep=["hiden"])


def test_nothing_to_store() -> None:
    model, split = mlp(24)
    made = apply("bfloat16", model, split, keep=["hidden", "scores"])
    assert not made.changed
    assert "no float32 weight" in made.notes[0]
