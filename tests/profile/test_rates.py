"""Throughput, and requests that arrive by themselves."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from lepton_compress.profile.arrivals import sojourns
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.rates import load, throughput
from lepton_compress.units import show_rate
from tests.profile.test_measure import perceptron, profiles


def test_a_queue_counts_from_the_intended_arrival() -> None:
    service, count = 0.004, 40
    # They arrive ten times as fast as they are served: each waits for all before it.
    taken = np.array(sojourns(lambda: time.sleep(service), 10 / service, count, 0)) * 1e-9
    assert taken[-1] > 0.7 * count * service
    assert np.all(np.diff(taken) > 0)


def test_without_a_queue_a_request_takes_its_call() -> None:
    taken = sojourns(lambda: None, 1000.0, 20, 0)
    assert len(taken) == 20
    assert min(taken) >= 0
    assert np.median(taken) < 0.01 * 1e9


def test_arrivals_keep_their_rate_and_their_seed() -> None:
    start = time.perf_counter()
    sojourns(lambda: None, 2000.0, 400, 1)
    assert 0.15 < time.perf_counter() - start < 2.0


def test_throughput_is_samples_over_time() -> None:
    turns = [np.array([1_000_000, 3_000_000]), np.array([2_000_000])]
    found = throughput(turns, 8, 0)
    assert found is not None
    point, (low, high) = found
    assert (point, low, high) == pytest.approx((4000.0, 4000.0, 4000.0))
    assert throughput([], 8, 0) is None


def test_a_percentile_needs_arrivals_behind_it() -> None:
    spells = [np.arange(1, 101) * 1_000_000 for _ in range(2)]
    made = load(50.0, spells, 0)
    assert (made.rate, made.arrivals) == (50.0, 200)
    assert set(made.latency) == {"p50", "p90"}
    assert made.latency["p50"] == pytest.approx(0.05)
    low, high = made.interval["p90"]
    assert low <= made.latency["p90"] <= high


def test_rates_are_shown_with_four_digits() -> None:
    assert [show_rate(each) for each in (0.5, 50.0, 1234.56, 123_456.7)] == [
        *("0.5/s", "50/s", "1235/s", "123457/s"),
    ]


def test_every_artifact_serves_at_every_rate(tmp_path: Path) -> None:
    small = perceptron(tmp_path / "small.onnx", 2)
    subjects = [Subject("baseline", "onnx", small), Subject("same", "onnx", small)]
    for profile in profiles(subjects, rates=[5000.0]).values():
        (one,) = profile.loads
        assert (one.rate, one.arrivals) == (5000.0, 1000)
        assert 0 < one.latency["p50"] <= one.latency["p99"]
        assert profile.throughput is not None
        assert profile.throughput_interval is not None
        low, high = profile.throughput_interval
        assert 0 < low <= profile.throughput <= high
