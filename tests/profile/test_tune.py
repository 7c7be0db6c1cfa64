"""Settings of a session: only what is faster twice, and computes the same, is noted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from lepton_compress.artifacts import Profile
from lepton_compress.profile import tune as module
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.tune import DEFAULT, tune
from lepton_compress.recipe import TargetSpec
from lepton_compress.targets import onnxruntime_session
from tests.profile.test_measure import INPUTS, Watcher, perceptron

RUNTIME = '''
"""A runtime with settings: how long a call takes, and what is added to the result."""

import time

import numpy as np

from lepton_compress.registry import Params, plugin

PACKAGES = ("numpy",)


class Adjustable(Params):
    pass


def settings(threads):
    return {"pause": 0.002, "add": 0.0}


def alternatives(threads):
    return [{"pause": 0.001}, {"pause": 0.003}, {"pause": 0.0, "add": 1.0}]


class Runner:
    inputs = outputs = ()

    def __init__(self, held):
        self.held = held

    def run(self, feeds):
        time.sleep(self.held["pause"])
        return [np.ones(2, np.float32) + self.held["add"]]


@plugin("runtime", "adjustable", Adjustable, formats=("onnx",))
def adjustable(path, threads, changes=None):
    """Behaves as its settings say."""
    return Runner({**settings(threads), **(changes or {})})
'''


def tuned(runtime: str, path: Path, **changes: Any) -> Any:
    target = TargetSpec(name="here", runtime=runtime, batch=4)
    held = {"inputs": INPUTS, "cap": 5.0, "seed": 0, "observer": Watcher(), **changes}
    return tune(Subject("a", "onnx", path), target=target, **held)


def test_the_fastest_that_computes_the_same_is_found(
    tmp_path: Path, third_party: Callable[..., Path]
) -> None:
    third_party({"runtime.adjustable": "adjustable:adjustable"}, adjustable=RUNTIME)
    path = tmp_path / "a.txt"
    path.touch()
    found = tuned("adjustable", path)
    assert found.settings == {"pause": 0.001}
    assert found.ratio is not None
    assert 0.3 < found.ratio < 0.9
    first = [each for each in found.trials if each.number == 1]
    assert [each.faster for each in first] == [True, False, False]
    assert first[2].reason.startswith("computes something else than the default (by 1)")
    assert [each.settings for each in found.trials if each.number == 2] == [{"pause": 0.001}]
    assert "faster both times" in found.reason


Seen = list[list[str]]


def measuring(ratios: Sequence[Mapping[str, float]], noise: float = 1.0) -> tuple[Any, Seen]:
    """Stands for `measure`: ratios by setting, one mapping a time that it is called."""
    seen: Seen = []

    def measure(subjects: Sequence[Subject], **_: Any) -> list[Profile]:
        now = ratios[len(seen)]
        seen.append([each.candidate for each in subjects])
        return [
            Profile(
                candidate=each.candidate,
                format="onnx",
                target="here",
                runtime="onnxruntime-cpu",
                status="measured",
                provenance="measured",
                batch=1,
                threads=1,
                ratio=now.get(each.candidate, 1.2),
                ratio_interval=(
                    now.get(each.candidate, 1.2) - 0.01,
                    now.get(each.candidate, 1.2) + 0.01,
                ),
                noise=noise,
            )
            for each in subjects
        ]

    return measure, seen


BASIC = "graph_optimization_level=ORT_ENABLE_BASIC"
ARENA = "enable_cpu_mem_arena=False"


def with_ratios(
    monkeypatch: pytest.MonkeyPatch, path: Path, *ratios: Mapping[str, float], noise: float = 1.0
) -> tuple[Any, Seen]:
    stand_in, seen = measuring(ratios, noise)
    monkeypatch.setattr(module, "measure", stand_in)
    return tuned("onnxruntime-cpu", path), seen


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return perceptron(tmp_path / "small.onnx", 2)


def test_luck_of_the_first_time_is_not_noted(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    found, seen = with_ratios(monkeypatch, small, {ARENA: 0.9}, {ARENA: 1.0})
    assert (found.settings, found.ratio) == ({}, None)
    assert found.reason == "what was faster at first was not when measured again"
    assert seen[1] == [DEFAULT, ARENA]


def test_a_gain_within_the_noise_is_none(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    found, seen = with_ratios(monkeypatch, small, {ARENA: 0.9}, noise=0.85)
    assert found.settings == {}
    assert len(seen) == 1


def test_good_ones_are_tried_together(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    both = f"{ARENA}, {BASIC}"
    ratios = {ARENA: 0.8, BASIC: 0.9, both: 0.7}
    found, seen = with_ratios(monkeypatch, small, ratios, ratios)
    assert seen[1] == [DEFAULT, ARENA, both]
    assert found.settings == {
        "enable_cpu_mem_arena": False,
        "graph_optimization_level": "ORT_ENABLE_BASIC",
    }


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_alternative_opens_a_session_within_the_threads(small: Path, threads: int) -> None:
    expected = onnxruntime_session.load(small, threads).run(INPUTS)
    for changes in onnxruntime_session.alternatives(threads):
        session = onnxruntime_session.load(small, threads, changes)
        options = session.session.get_session_options()
        assert options.intra_op_num_threads <= threads
        assert options.inter_op_num_threads <= threads
        np.testing.assert_allclose(session.run(INPUTS)[0], expected[0], rtol=1e-4, atol=1e-5)


def test_settings_reach_the_session(small: Path) -> None:
    changes = {
        "execution_mode": "ORT_PARALLEL",
        "inter_op_num_threads": 2,
        "enable_cpu_mem_arena": False,
        "graph_optimization_level": "ORT_ENABLE_BASIC",
        "session.intra_op.allow_spinning": "0",
    }
    options = onnxruntime_session.load(small, 2, changes).session.get_session_options()
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert not options.enable_cpu_mem_arena
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.graph_optimization_level == level
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


NONE_HERE = "def alternatives(threads):\n    return []\n\n\ndef others"


@pytest.mark.parametrize("instead", ["def others", NONE_HERE])
def test_a_runtime_without_settings_says_so(
    tmp_path: Path, third_party: Callable[..., Path], instead: str
) -> None:
    plain = RUNTIME.replace("def alternatives", instead)
    third_party({"runtime.adjustable": "adjustable:adjustable"}, adjustable=plain)
    found = tuned("adjustable", tmp_path / "a.txt")
    assert (found.settings, found.reason) == ({}, "adjustable has no settings to try")
