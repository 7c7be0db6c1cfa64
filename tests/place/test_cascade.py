"""Thresholds, temperature, and that what is told was not chosen on the same samples."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compress.place import cascade

RANDOM = np.random.default_rng(1)
N = 2000


def pair(strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that say how likely each class is, and true classes drawn by them."""
    random = np.random.default_rng(seed)
    logits = strength * random.normal(size=(N, 4))
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (likely.cumsum(axis=1) > random.random((N, 1))).argmax(axis=1)
    return logits.astype(np.float32), true


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_a_factor(factor: float) -> None:
    logits, true = pair(2.0, 0)
    found = cascade.temperature((factor * logits).astype(np.float32), true)
    assert found == pytest.approx(factor, rel=0.1)


def test_calibrated_confidence_is_how_often_it_is_right() -> None:
    logits, true = pair(2.0, 3)
    hot = (5 * logits).astype(np.float32)
    sure = cascade.confidence(hot, cascade.temperature(hot, true))
    right = hot.argmax(axis=1) == true
    high = sure > 0.8
    assert right[high].mean() == pytest.approx(sure[high].mean(), abs=0.03)
    assert right[~high].mean() == pytest.approx(sure[~high].mean(), abs=0.03)


def test_sending_up_what_is_unsure_keeps_the_gain() -> None:
    logits, true = pair(2.0, 5)
    edge = (logits.argmax(axis=1) == true).astype(float)
    cloud = np.maximum(edge, RANDOM.random(N) < 0.9)
    made = cascade.curve(logits, true, edge, cloud)
    assert made.samples == N // 2
    shares = [point.share for point in made.points]
    assert shares == sorted(shares)
    half = min(made.points, key=lambda point: abs(point.share - 0.5))
    assert half.gain_kept is not None
    assert half.gain_kept > 0.75  # by chance it would be a half
    low, high = half.accuracy_interval
    assert low < half.accuracy < high


def test_what_is_told_is_of_the_other_half() -> None:
    logits, true = pair(2.0, 7)
    edge = (logits.argmax(axis=1) == true).astype(float)
    order = np.random.default_rng(0).permutation(N)
    cloud = edge.copy()
    cloud[order[: N // 2]] = 1.0  # of use on the half that it is chosen on alone
    made = cascade.curve(logits, true, edge, cloud, seed=0)
    best = made.points[-1]
    assert best.chosen_accuracy > 0.95
    assert best.accuracy == pytest.approx(edge[order[N // 2 :]].mean())
    assert best.gain_kept is None


def test_of_an_error_less_is_better() -> None:
    logits, true = pair(2.0, 9)
    edge = (logits.argmax(axis=1) != true).astype(float)
    made = cascade.curve(logits, true, edge, np.zeros(N), higher_is_better=False)
    kept = made.points[-1].gain_kept
    assert kept is not None
    assert kept > 0.9


def test_samples_that_do_not_pair_are_refused() -> None:
    logits, true = pair(1.0, 0)
    with pytest.raises(ValueError, match="four samples of both"):
        cascade.curve(logits, true, [1.0] * N, [1.0] * (N - 1))
    with pytest.raises(ValueError, match="four samples of both"):
        cascade.curve(logits[:3], true[:3], [1.0] * 3, [1.0] * 3)
