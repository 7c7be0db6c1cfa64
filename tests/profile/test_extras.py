"""Callers at once, calls after rests, and time by operator."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lepton_compress.artifacts import QUANTILES, Profile
from lepton_compress.profile import extras
from lepton_compress.profile.callers import share
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.process import Called
from lepton_compress.profile.rates import concurrency
from tests.profile.test_measure import Watcher, perceptron, profiles


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Profile]:
    folder = tmp_path_factory.mktemp("extras")
    subjects = [
        Subject("baseline", "onnx", perceptron(folder / "small.onnx", 2)),
        Subject("deep", "onnx", perceptron(folder / "deep.onnx", 6)),
    ]
    return profiles(subjects, callers=[1, 2], operators=True, cap=5.0, rests=None)


def test_callers_that_wait_overlap_and_the_next_call_is_anyones() -> None:
    seen: list[int] = []

    def call() -> None:
        seen.append(threading.get_ident())
        time.sleep(0.01)

    times, seconds = share(call, 4, 40, ())
    assert len(times) == 40
    assert min(times) >= 0.009e9
    # One after the other they would take 0.4 s.
    assert 0.09 < seconds < 0.3
    assert len(set(seen[1:])) == 4


def test_a_call_that_fails_is_told_by_the_one_who_waits() -> None:
    def call() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        share(call, 2, 10, ())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned")
def test_callers_have_their_processors_only_meanwhile() -> None:
    before, seen = os.sched_getaffinity(0), set[int]()
    one = max(before)
    share(lambda: seen.update(os.sched_getaffinity(0)), 2, 4, [one])
    assert seen == {one}
    assert os.sched_getaffinity(0) == before


def test_samples_a_second_are_of_all_callers_together() -> None:
    spells = [Called(np.full(100, 10_000_000), 0.25, 2) for _ in range(10)]
    made = concurrency(4, spells, 8, 0)
    assert (made.callers, made.cpus, made.calls) == (4, 2, 1000)
    assert made.throughput == pytest.approx(3200.0)
    assert made.latency["p99"] == pytest.approx(0.01)


def test_every_artifact_has_every_number_of_callers(found: dict[str, Profile]) -> None:
    for profile in found.values():
        assert [each.callers for each in profile.callers] == [1, 2]
        for each in profile.callers:
            assert each.calls >= 1000
            low, high = each.throughput_interval
            assert 0 < low <= each.throughput <= high
            assert 0 < each.latency["p50"] <= each.latency["p99"]
    usable = len(os.sched_getaffinity(0))
    assert [each.cpus for each in found["deep"].callers] == [1, min(2, usable)]


def test_operators_are_those_of_the_graph_with_their_shares(found: dict[str, Profile]) -> None:
    for name, layers in (("baseline", 2), ("deep", 6)):
        held = found[name].operators
        assert {(each.operator, each.dtype) for each in held} == {
            ("MatMul", "float32"),
            ("Tanh", "float32"),
        }
        assert {each.nodes for each in held} == {layers}
        assert sum(each.share for each in held) == pytest.approx(1.0)
        assert [each.share for each in held] == sorted((e.share for e in held), reverse=True)
        assert all(each.seconds > 0 for each in held)


def test_a_pass_that_fails_is_a_note_and_no_failure(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "small.onnx", 2)
    # The rounds' own workers have loaded the file by then; the profiler's has not begun.
    watcher = Watcher(each_round=lambda number: path.unlink(missing_ok=True))
    subjects = [Subject("baseline", "onnx", path)]
    (profile,) = profiles(subjects, operators=True, observer=watcher).values()
    assert (profile.status, profile.operators) == ("measured", ())
    said = "here: no time by operator of baseline: "
    assert [note for note in watcher.notes if note.startswith(said)]


def test_calls_after_rests_fit_into_a_tenth_of_the_cap(found: dict[str, Profile]) -> None:
    for profile in found.values():
        assert [(each.gap, each.calls) for each in profile.idle] == [(0.001, 40), (0.01, 40)]
        for each in profile.idle:
            assert len(each.quantiles) == len(QUANTILES)
            assert list(each.quantiles) == sorted(each.quantiles)
            assert each.quantiles[0] > 0


@pytest.mark.parametrize(
    ("cap", "held"),
    [
        (0.05, {}),
        (0.2, {0.001: 20}),
        (20.0, {0.001: 40, 0.01: 40, 0.1: 15}),
        (600.0, {0.001: 40, 0.01: 40, 0.1: 40}),
    ],
)
def test_the_shortest_rests_come_first(cap: float, held: dict[float, int]) -> None:
    assert extras.affordable(cap) == held


def test_rests_that_were_asked_for_are_taken_whatever_the_cap(tmp_path: Path) -> None:
    subjects = [Subject("baseline", "onnx", perceptron(tmp_path / "small.onnx", 2))]
    (profile,) = profiles(subjects, rests=[0.002, 0.0005], cap=0.1).values()
    assert [(each.gap, each.calls) for each in profile.idle] == [(0.0005, 200), (0.002, 200)]


def test_a_runtime_without_a_profiler_has_no_times() -> None:
    assert extras.shares([]) == ()


def test_settings_say_how_it_was_measured(found: dict[str, Profile]) -> None:
    for profile in found.values():
        assert profile.session["intra_op_num_threads"] == 1
        assert profile.session["execution_mode"] == "ORT_SEQUENTIAL"
