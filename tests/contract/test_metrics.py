"""What every metric keeps to: a mean of its terms, blind to order, better for what is better."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton_compress import evaluate, registry
from lepton_compress.artifacts import MetricOutcome
from lepton_compress.job import bind_metric
from lepton_compress.recipe import MetricUse
from tests.contract.needed import PARAMETERS, files, of_kind, parameters

COUNT, CLASSES = 30, 5
REGRESSION = {"mean_absolute_error", "mean_squared_error", "r2"}
"""Metrics that compare numbers; the others look for a class among scores."""

every = pytest.mark.parametrize("name", of_kind("metric"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files(tmp_path_factory.mktemp("metrics"))


def sample(name: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Outputs that are partly right, outputs that are right, and targets."""
    draw = np.random.default_rng(0)
    if name in REGRESSION:
        targets = draw.normal(size=(COUNT, 2))
        return targets + draw.normal(size=targets.shape), targets, targets
    if name == "word_error_rate":
        words = draw.integers(CLASSES, size=(COUNT, 7))
        return np.where(draw.random(words.shape) < 0.3, CLASSES, words), words, words
    if name == "mean_average_precision":
        corner, size = draw.uniform(0, 50, (COUNT, 3, 2)), draw.uniform(10, 50, (COUNT, 3, 2))
        kinds = draw.integers(CLASSES, size=(COUNT, 3, 1))
        boxes = np.concatenate([corner, corner + size], axis=2)
        found = np.concatenate([boxes, draw.random((COUNT, 3, 1)), kinds], axis=2)
        moved = found + np.array([9, 9, 9, 9, 0, 0]) * (draw.random((COUNT, 3, 1)) < 0.5)
        return moved, found, np.concatenate([boxes, kinds], axis=2)
    labels = draw.integers(CLASSES, size=COUNT)
    right = np.eye(CLASSES)[labels]
    return right + draw.normal(size=right.shape), right, labels


def measure(name: str, outputs: NDArray[Any], targets: NDArray[Any], folder: Path) -> MetricOutcome:
    held = {"y": outputs.astype(np.float32)}
    plugin = registry.get("metric", name)
    made = plugin.call(held, targets, parameters("metric", name), folder)
    assert isinstance(made, MetricOutcome)
    return made


@every
def test_its_value_is_the_mean_of_its_terms(name: str, folder: Path) -> None:
    outputs, _, targets = sample(name)
    made = measure(name, outputs, targets, folder)
    assert isinstance(made.value, float)
    assert math.isfinite(made.value)
    if made.outcomes is not None:
        terms = np.asarray(made.outcomes)
        assert terms.shape == (COUNT,)
        assert made.value == pytest.approx(terms.mean())


@every
@given(order=st.permutations(range(COUNT)))
@settings(max_examples=20)
def test_the_order_of_samples_does_not_matter(name: str, folder: Path, order: list[int]) -> None:
    outputs, _, targets = sample(name)
    made = measure(name, outputs, targets, folder)
    other = measure(name, outputs[order], targets[order], folder)
    assert other.value == pytest.approx(made.value, rel=1e-9)
    if made.outcomes is not None:
        np.testing.assert_array_equal(np.asarray(other.outcomes), np.asarray(made.outcomes)[order])


@every
def test_what_is_right_is_better(name: str, folder: Path) -> None:
    outputs, right, targets = sample(name)
    some = measure(name, outputs, targets, folder)
    best = measure(name, right, targets, folder)
    assert best.higher_is_better is some.higher_is_better
    sign = 1 if best.higher_is_better else -1
    assert sign * best.value > sign * some.value


@every
def test_what_it_looks_at_is_left_alone(name: str, folder: Path) -> None:
    outputs, _, targets = sample(name)
    kept = outputs.astype(np.float32), targets.copy()
    kept[0].flags.writeable = kept[1].flags.writeable = False
    first = measure(name, kept[0], kept[1], folder)
    assert first.value == measure(name, outputs, targets, folder).value


@every
def test_it_makes_a_score(name: str, folder: Path) -> None:
    outputs, _, targets = sample(name)
    parameters = PARAMETERS.get(("metric", name), {})
    metric = bind_metric(MetricUse(name=name, parameters=parameters), folder)
    made = evaluate.score(
        metric.measure, {"y": outputs}, targets, candidate="a", format="onnx", metric=name
    )
    assert made.samples == COUNT
    if made.outcomes is not None or made.replicates is not None:
        assert made.interval[0] <= made.value <= made.interval[1]


@every
def test_its_mark_stays_until_its_parameters_change(name: str, folder: Path) -> None:
    def mark(**more: Any) -> str:
        given = PARAMETERS.get(("metric", name), {}) | more
        return bind_metric(MetricUse(name=name, parameters=given), folder).mark

    changes: dict[str, dict[str, Any]] = {"python": {"higher_is_better": False}, "top_k": {"k": 3}}
    assert mark() == mark()
    assert mark() != mark(**changes.get(name, {"output": "y"}))
