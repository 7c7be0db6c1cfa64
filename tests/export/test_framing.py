"""Frames that a graph cuts out of a row of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import Model, Split, TensorSpec
from lepton_compress.export import framing
from lepton_compress.export.comparable import caller, steps
from lepton_compress.export.stepwise import stepwise
from lepton_compress.load import forms
from lepton_compress.preprocess.audio import Audio, audio
from lepton_compress.preprocess.nodes import Nodes
from lepton_compress.verify import LIMIT, difference
from tests.reference_models.test_sound_and_text_models import needs, trained

SAMPLES = 1600
value = helper.make_tensor_value_info


def sound(**settings: Any) -> onnx.ModelProto:
    """The nodes of the preprocessing `audio` for 200 ms at 8 kHz."""
    raw = TensorSpec("sound", "int16", ("batch", SAMPLES))
    made = audio(Audio.model_validate({"rate": 8000, **settings}), raw, Path())
    nodes = Nodes("front")
    assert made.build is not None
    return built(nodes, made.build(nodes, "sound"))


def built(nodes: Nodes, gives: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes.nodes,
        "front",
        [value("sound", TensorProto.INT16, ["batch", SAMPLES])],
        [value(gives, TensorProto.FLOAT, None)],
        nodes.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("settings", "frames", "window", "hop"),
    [
        ({"hop": "20 ms"}, 9, 256, 160),
        ({}, 11, 256, 128),
        ({"frame": "25 ms", "hop": "10 ms", "features": "mfcc"}, 18, 200, 80),
        ({"hop": "32 ms"}, 6, 256, 256),
    ],
)
def test_the_preprocessing_of_sound_is_known_by_what_it_does(
    settings: dict[str, Any], frames: int, window: int, hop: int
) -> None:
    found = framing.find(sound(**settings), "sound", (10007, SAMPLES))
    assert found is not None
    assert (found.frames, found.window, found.hop) == (frames, window, hop)


def sliced(start: int, step: int) -> onnx.ModelProto:
    nodes = Nodes("front")
    row = nodes.add("Cast", ["sound"], to=TensorProto.FLOAT)
    bounds = [nodes.constant([each], np.int64) for each in (start, start + 800 * step, 1, step)]
    row = nodes.add("Slice", [row, *bounds])
    return built(nodes, nodes.add("Reshape", [row, nodes.constant([0, 8, 100], np.int64)]))


@pytest.mark.parametrize(("start", "step"), [(5, 1), (0, 2)])
def test_samples_left_out_are_no_framing(start: int, step: int) -> None:
    assert framing.find(sliced(0, 1), "sound", (10007, SAMPLES)) is not None
    assert framing.find(sliced(start, step), "sound", (10007, SAMPLES)) is None


def test_samples_that_are_used_beside_the_frames_are_no_framing() -> None:
    model = sound()
    model.graph.node.append(helper.make_node("ReduceMax", ["sound"], ["loudest"], "loudest"))
    assert framing.find(model, "sound", (10007, SAMPLES)) is None


def listening() -> Model:
    """A GRU behind log-mel bands, over 200 ms of sound."""
    nodes = Nodes("front")
    raw = TensorSpec("sound", "int16", ("batch", SAMPLES))
    made = audio(Audio.model_validate({"rate": 8000, "mean": -10, "std": 5}), raw, Path())
    assert made.build is not None
    features = made.build(nodes, "sound")
    draw = np.random.default_rng(0)
    for name, shape in (("W", (1, 24, 40)), ("R", (1, 24, 8))):
        array = draw.normal(size=shape).astype(np.float32)
        nodes.constants.append(numpy_helper.from_array(array, name))
    turned = nodes.add("Transpose", [features], perm=[1, 0, 2])
    node = helper.make_node("GRU", [turned, "W", "R"], ["", "hidden"], "gru", hidden_size=8)
    nodes.nodes.append(node)
    model = built(nodes, nodes.add("Squeeze", ["hidden", nodes.constant([0], np.int64)]))
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "batch"
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 8
    return Model("graph", model, *forms.signature(model))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_takes_the_samples_of_one_hop(batch: int) -> None:
    model = listening()
    step = stepwise(model)
    about = steps(step.value)
    assert about is not None
    assert (about["frame"]["step"], about["frame"]["lead"]) == (128, 128)
    assert about["states"][0]["source"] == "sound"
    assert (about["states"][0]["dtype"], about["states"][0]["zero"]) == ("int16", False)
    draw = np.random.default_rng(batch)
    given = {"sound": draw.integers(-9000, 9000, (batch, SAMPLES)).astype(np.int16)}
    assert difference(forms.call(model, given), caller(step)(given)) <= LIMIT


@pytest.mark.slow
@needs("fsdd.zip")
@pytest.mark.parametrize("name", ["keyword_gru", "keyword_lstm"])
def test_the_reference_models_on_recordings(name: str) -> None:
    from lepton_compress.compress.dynamic_int8 import quantize
    from lepton_compress.compress.quantize_dynamic import QuantizeDynamic
    from lepton_compress.export.lower import lower
    from lepton_compress.export.unrounded import unrounded
    from reference_models import spoken_digits

    sounds = spoken_digits.load()["evaluation"]["inputs"]["sound"]
    features = spoken_digits.features(spoken_digits.LOG_MELS, sounds[:40])
    split = Split({"features": features})
    spec = TensorSpec("features", "float32", ("batch", *features.shape[1:]))
    graph = lower(Model("module", trained(name), (spec,), ("scores",)), split)
    wanted = forms.call(graph, split.inputs)
    assert difference(wanted, caller(stepwise(graph))(split.inputs)) <= LIMIT
    small = quantize(graph, split, QuantizeDynamic()).model
    step = stepwise(small)
    both = [caller(unrounded(each))(split.inputs) for each in (small, step)]
    assert difference(*both) <= LIMIT
    found = caller(step)(split.inputs)["scores"].argmax(1)
    assert (found == wanted["scores"].argmax(1)).mean() >= 0.95
