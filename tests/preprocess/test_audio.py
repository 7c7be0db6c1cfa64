"""Features of sound: against what is known of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from pydantic import ValidationError
from scipy.fft import dct as scipy_dct

from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.preprocess.audio import Audio, audio
from lepton_compress.preprocess.form import Preprocessing
from lepton_compress.preprocess.mel import dct, from_mel, to_mel
from lepton_compress.preprocess.nodes import Nodes

RATE = 8000


def made(length: int = RATE, **settings: Any) -> Preprocessing:
    params = Audio.model_validate({"rate": RATE, **settings})
    return audio(params, TensorSpec("sound", "int16", ("batch", length)), Path())


def tone(hertz: float, amplitude: float = 0.5) -> np.ndarray:
    time = np.arange(RATE) / RATE
    return np.round(32767 * amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.int16)[None]


def computed(made: Preprocessing, raw: np.ndarray) -> Any:
    nodes = Nodes("sound")
    last = made.build(nodes, "raw") if made.build else ""
    graph = helper.make_graph(
        nodes.nodes,
        "features",
        [helper.make_tensor_value_info("raw", TensorProto.INT16, list(raw.shape))],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        nodes.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"raw": raw})[0]


@pytest.mark.parametrize("hertz", [300, 1000, 2500])
def test_a_tone_is_loudest_in_the_band_it_lies_in(hertz: int) -> None:
    features = made(mels=20).apply(tone(hertz))
    low, high = to_mel(np.array([20.0, RATE / 2]))
    centres = from_mel(np.linspace(low, high, 22))[1:-1]
    nearest = int(np.abs(centres - hertz).argmin())
    assert (np.abs(features[0].argmax(axis=1) - nearest) <= 1).all()


def test_a_tone_has_the_energy_that_theory_gives() -> None:
    # A sine of amplitude A on a frequency of the transform has |X| = A * sum(window) / 2.
    features = made(mels=20, frame="32 ms", hop="32 ms").apply(tone(1000, 0.5))
    assert np.exp(features[0].max()) == pytest.approx((0.5 * 128 / 2) ** 2, rel=0.25)


def test_twice_the_amplitude_adds_the_logarithm_of_four() -> None:
    quiet, loud = (made().apply(tone(700, each)).max() for each in (0.25, 0.5))
    assert loud - quiet == pytest.approx(np.log(4), abs=1e-3)


def test_silence_is_the_logarithm_of_the_floor() -> None:
    features = made(floor=1e-5).apply(np.zeros((1, RATE), np.int16))
    assert features == pytest.approx(np.log(1e-5))


def test_the_cosine_transform_is_scipys() -> None:
    values = np.random.default_rng(0).normal(size=(3, 40))
    assert values @ dct(40, 13) == pytest.approx(scipy_dct(values, norm="ortho")[:, :13])


@pytest.mark.parametrize("settings", [{}, {"features": "mfcc"}, {"floor": 1e-9}])
def test_nodes_and_original_agree_where_bands_are_all_but_empty(settings: dict[str, Any]) -> None:
    preprocessing = made(**settings)
    raw = tone(440, 0.9)
    raw[:, 4000:] = 0
    wanted = preprocessing.apply(raw)
    assert np.abs(computed(preprocessing, raw) - wanted).max() <= 1e-3 * np.abs(wanted).max()


def test_its_nodes_need_no_fourier_operator() -> None:
    nodes = Nodes("sound")
    preprocessing = made()
    assert preprocessing.build is not None
    preprocessing.build(nodes, "raw")
    assert {node.op_type for node in nodes.nodes} & {"STFT", "DFT", "MelWeightMatrix"} == set()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"high": 5000}, "ends at half"),
        ({"low": 4000}, "not below high"),
        ({"frame": "32.1 ms"}, "whole number"),
        ({"frame": "0.875 ms", "hop": "0.5 ms"}, "even number"),
        ({"hop": "40 ms"}, "longer than the frame"),
        ({"fft": 128}, "at least the 256 samples"),
        ({"coefficients": 4}, "mfcc"),
        ({"features": "mfcc", "mels": 10}, "cannot come out"),
        ({"mean": [1, 2]}, "2 values for 40 features"),
        ({"std": 0}, "greater than 0"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        Audio.model_validate({"rate": RATE, **settings})


@pytest.mark.parametrize(
    ("dtype", "shape", "said"),
    [
        ("float32", ("batch", 8000), "takes int16"),
        ("int16", ("batch", 1, 8000), "takes int16"),
        ("int16", ("batch", 100), "shorter than one frame"),
    ],
)
def test_other_samples_are_refused(dtype: str, shape: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        audio(Audio(rate=RATE), TensorSpec("sound", dtype, shape), Path())


def test_bands_that_no_frequency_lies_in_are_refused() -> None:
    with pytest.raises(InputError, match="hold no frequency"):
        made(mels=120)
