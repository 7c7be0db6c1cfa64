"""The committed weights of the models for sound and text reach what their cards say."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference_models
from reference_models import card
from reference_models.training import answers

HERE = Path(reference_models.__file__).parent
DATA = Path(os.environ.get("LEPTON_DATA") or "/nowhere")
LIKE = 0.005
"""Sums differ in their last bits from one processor to the next, and so may a few answers."""


def needs(*files: str) -> pytest.MarkDecorator:
    there = all((DATA / file).is_file() for file in files)
    said = f"LEPTON_DATA names no folder with {' and '.join(files)}"
    return pytest.mark.skipif(not there, reason=said)


def held(name: str) -> card.Card:
    return card.read(HERE / name)[name]


def trained(name: str) -> Any:
    return importlib.import_module(f"reference_models.{name}.model").trained()


def check(name: str, made: card.Measured) -> None:
    wanted = next(each for each in held(name).measured if each.split == made.split)
    assert made.samples == wanted.samples
    assert made.value == pytest.approx(wanted.value, abs=LIKE)
    assert (HERE / name / "weights.safetensors").stat().st_size == held(name).bytes


@needs("fsdd.zip")
@pytest.mark.parametrize(
    ("name", "settings"),
    [("keyword_dscnn", "MFCCS"), ("keyword_gru", "LOG_MELS"), ("keyword_lstm", "LOG_MELS")],
)
def test_keywords(name: str, settings: str) -> None:
    from reference_models import spoken_digits

    split = spoken_digits.load()["evaluation"]
    features = spoken_digits.features(getattr(spoken_digits, settings), split["inputs"]["sound"])
    found = answers(trained(name), {"features": features}).argmax(1)
    check(name, card.accuracy("own split", found, split["targets"]))
    assert held(name).measured[0].value >= 0.95
    assert held(name).parameters <= 100_000


@needs("rt-polarity.pos", "rt-polarity.neg")
@pytest.mark.parametrize("name", ["sentiment_transformer", "text_cnn"])
def test_sentiment(name: str) -> None:
    from reference_models import film_reviews

    split = film_reviews.load()["evaluation"]
    ids = film_reviews.tokens(split["inputs"]["text"], HERE / name)
    found = answers(trained(name), {"ids": ids}).argmax(1)
    check(name, card.accuracy("evaluation", found, split["targets"]))
    network, words = held(name).measured
    assert network.value >= words.value, "at least a bag of words on the same split"


@needs("fsdd.zip")
def test_anomalies() -> None:
    from reference_models.dense_autoencoder import data, train

    made = train.measured(trained("dense_autoencoder"), data.load()["evaluation"])
    check("dense_autoencoder", made[0])
    assert made[0].interval[0] > 0.7, "no better than chance"


def test_tones_clicks_and_mirrors_are_planted() -> None:
    from reference_models.dense_autoencoder.data import KINDS, SAMPLES, planted

    draw = np.random.default_rng(0)
    window = np.round(draw.normal(scale=2000, size=SAMPLES)).astype(np.int16)
    assert (planted(window, "none", draw) == window).all()
    for kind in KINDS:
        assert (planted(window, kind, draw) != window).any()


@needs("fsdd.zip")
def test_no_speaker_held_out_is_trained_on() -> None:
    from reference_models import spoken_digits

    parts = spoken_digits.load(spoken_digits.STRANGERS)
    speakers = set(parts["evaluation"]["slices"]["speaker"])
    assert speakers == set(spoken_digits.STRANGERS["speaker"])
    assert len(parts["evaluation"]["targets"]) == 1000
