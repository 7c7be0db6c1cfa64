"""Measuring with real processes. Times are compared, never asserted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.artifacts import QUANTILES, Profile, Progress
from lepton_compress.profile import lanes as module
from lepton_compress.profile import measure as measure_module
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.measure import measure
from lepton_compress.profile.session import Limits
from lepton_compress.recipe import TargetSpec

BATCH = 4
WIDTH = 128
INPUTS = {"x": np.ones((BATCH, WIDTH), np.float32)}

RUNTIME = '''
"""A runtime whose artifacts are words that say how it behaves."""

import os
import sys
import time

from lepton_compress.registry import Params, plugin

PACKAGES = ("numpy",)


class Fake(Params):
    pass


class Runner:
    inputs = outputs = ()

    def __init__(self, manner, path):
        self.manner, self.calls, self.seconds = manner, 0, 0.0
        if manner in ("steady", "slow once"):
            self.seconds = 0.001
        if manner == "slow once" and not path.with_suffix(".seen").exists():
            path.with_suffix(".seen").touch()
            self.seconds = 0.003

    def run(self, feeds):
        self.calls += 1
        time.sleep(self.seconds)
        if self.manner == "prints":
            print("a line that is no JSON", flush=True)
            os.write(1, b"another\\n")
        if self.manner == "hangs" and self.calls > 20:
            time.sleep(3600)
        if self.manner == "crashes" and self.calls > 20:
            os.write(2, b"the last words\\n")
            os._exit(7)
        if self.manner == "raises" and self.calls > 20:
            raise ValueError("cannot go\\non")
        return []


@plugin("runtime", "fake", Fake, formats=("onnx",))
def fake(path, threads):
    """Behaves as the artifact says."""
    return Runner(path.read_text(), path)
'''


@dataclass
class Watcher:
    """An observer that can do something after a round."""

    each_round: Callable[[int], None] = lambda number: None
    notes: list[str] = field(default_factory=list)
    rounds: int = 0

    @contextlib.contextmanager
    def work(self, label: str, total: int | None = None) -> Iterator[Progress]:
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.rounds += steps
        if steps:
            self.each_round(self.rounds)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = {child.pid for child in psutil.Process().children()}
    yield
    assert {child.pid for child in psutil.Process().children()} <= before


def perceptron(path: Path, layers: int, width: int = WIDTH) -> Path:
    """An ONNX model of square layers."""
    weights = np.random.default_rng(0).standard_normal((width, width)).astype(np.float32) / width
    nodes, initialisers = [], []
    for index in range(layers):
        source, made = (f"h{index}" if index else "x"), f"h{index + 1}"
        # Distinct weights, or the runtime would share them.
        initialisers.append(numpy_helper.from_array(weights * (index + 1), f"w{index}"))
        nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Tanh", [f"m{index}"], [made]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [value("x", TensorProto.FLOAT, ["batch", width])],
        [value(f"h{layers}", TensorProto.FLOAT, ["batch", width])],
        initialisers,
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=opset), path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return perceptron(tmp_path / "small.onnx", 4)


@pytest.fixture
def fakes(tmp_path: Path, third_party: Callable[..., Path]) -> Callable[[str], Subject]:
    """Makes subjects of the runtime `fake`, which is installed as a third party's would be."""
    third_party({"runtime.fake": "fake_runtime:fake"}, fake_runtime=RUNTIME)

    def make(manner: str) -> Subject:
        path = tmp_path / f"{manner}.txt"
        path.write_text(manner)
        return Subject(manner, "fake", path)

    return make


def profiles(
    subjects: list[Subject],
    *,
    baseline: str = "baseline",
    runtime: str = "onnxruntime-cpu",
    rounds: int = 5,
    **changes: Any,
) -> dict[str, Profile]:
    """Measure, and name the profiles by candidate."""
    threads = changes.pop("threads", 1)
    target = TargetSpec(name="here", runtime=runtime, threads=threads, batch=BATCH)
    settings = {"limits": Limits(), "cap": 0.0, "seed": 0, "observer": Watcher(), "inputs": INPUTS}
    found = measure(
        subjects, baseline=baseline, target=target, rounds=rounds, **{**settings, **changes}
    )
    assert [profile.candidate for profile in found] == [each.candidate for each in subjects]
    return {profile.candidate: profile for profile in found}


def workers() -> list[psutil.Process]:
    """Of this process, in the order they were started."""
    children = psutil.Process().children()
    found = [each for each in children if "lepton_compress.profile.worker" in each.cmdline()]
    return sorted(found, key=lambda each: (each.create_time(), each.pid))


def test_a_model_of_twice_the_size_is_slower_and_itself_is_not(small: Path, tmp_path: Path) -> None:
    found = profiles(
        [
            Subject("baseline", "onnx", small),
            Subject("same", "onnx", small),
            Subject("twice", "onnx", perceptron(tmp_path / "twice.onnx", 8)),
        ],
        rounds=15,
    )
    assert {profile.status for profile in found.values()} == {"measured"}
    baseline, same, twice = found["baseline"], found["same"], found["twice"]
    assert (baseline.ratio, baseline.ratio_interval) == (1.0, (1.0, 1.0))
    assert twice.ratio_interval is not None
    assert twice.ratio_interval[0] > 1.2
    for ratio, interval in (
        (same.ratio, same.ratio_interval),
        (baseline.noise, baseline.noise_interval),
    ):
        assert ratio is not None
        assert interval is not None
        assert interval[0] <= ratio <= interval[1]
        assert interval[0] < 1.2
        assert interval[1] > 0.8
    assert baseline.noise == same.noise == twice.noise


def test_a_profile_says_how_it_was_measured(small: Path) -> None:
    (profile,) = profiles([Subject("baseline", "onnx", small)], rounds=6).values()
    assert (profile.target, profile.runtime) == ("here", "onnxruntime-cpu")
    assert (profile.batch, profile.threads, profile.rounds) == (BATCH, 1, 6)
    assert profile.provenance == "measured"
    assert profile.samples >= 6 * module.MIN_CALLS
    assert set(profile.latency) == set(profile.interval)
    assert profile.latency["p50"] <= profile.latency["p90"]
    for name, value in profile.latency.items():
        low, high = profile.interval[name]
        assert 0 < low <= value <= high
    assert profile.cold_start is not None
    assert profile.cold_start > profile.latency["p50"]
    assert profile.peak_memory is not None
    assert profile.peak_memory > 0


def test_the_whole_distribution_of_the_calls_is_told(small: Path) -> None:
    (made,) = profiles([Subject("baseline", "onnx", small)], rounds=6).values()
    assert len(made.quantiles) == len(QUANTILES)
    assert list(made.quantiles) == sorted(made.quantiles)
    assert 0 < made.quantiles[0] < made.quantiles[-1]
    assert made.quantiles[QUANTILES.index(0.5)] == pytest.approx(made.latency["p50"])


def test_percentiles_without_enough_samples_are_absent(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CALLS", 20)
    (profile,) = profiles([Subject("baseline", "onnx", small)]).values()
    assert profile.samples <= 100
    assert "p50" in profile.latency
    assert "p99" not in profile.latency


def test_rounds_are_added_until_a_limit_is_decided(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The 99th percentile needs 1000 samples, so 20 a round leave five rounds undecided.
    monkeypatch.setattr(module, "MAX_CALLS", 20)
    limits = Limits(latency=3600.0, percentile="p99")
    subjects = [Subject("baseline", "onnx", small)]
    (profile,) = profiles(subjects, limits=limits, cap=60.0).values()
    assert profile.rounds >= 50
    assert "p99" in profile.latency


def test_no_round_is_added_after_the_cap(small: Path) -> None:
    # A ratio of the baseline to itself is 1, but the same file under another name varies about it.
    subjects = [Subject("baseline", "onnx", small), Subject("same", "onnx", small)]
    found = profiles(subjects, limits=Limits(latency=3600.0, percentile="p99", ratio=1.0), rounds=5)
    assert found["same"].rounds == 5


def test_a_process_that_is_slow_by_chance_is_not_beyond_a_limit(
    fakes: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_module, "LEAST_SECONDS", 0.0)
    subjects = [fakes("steady"), fakes("slow once")]
    held: dict[str, Any] = {"limits": Limits(ratio=1.5), "cap": 60.0}
    slow = profiles(subjects, baseline="steady", runtime="fake", **held)["slow once"]
    assert slow.ratio_interval is not None
    # The first process took three times as long, the second did not.
    assert slow.ratio_interval[0] < 1.5 < slow.ratio_interval[1]
    again = profiles(subjects, baseline="steady", runtime="fake", **held)["slow once"]
    assert again.ratio_interval is not None
    assert again.ratio_interval[1] < 1.5


def test_what_is_really_slow_is_so_in_fresh_processes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_module, "LEAST_SECONDS", 0.0)
    seen: set[int] = set()
    watcher = Watcher(lambda number: seen.update(each.pid for each in workers()))
    watcher.advance = lambda steps=1, note="": seen.update(each.pid for each in workers())  # type: ignore[method-assign]
    subjects = [
        Subject("baseline", "onnx", small),
        Subject("twice", "onnx", perceptron(tmp_path / "twice.onnx", 8)),
    ]
    limits, cap = Limits(ratio=1.05), 60.0
    found = profiles(subjects, limits=limits, cap=cap, observer=watcher)
    assert len(seen) == 6
    interval = found["twice"].ratio_interval
    assert interval is not None
    assert interval[0] > 1.05
    assert found["baseline"].rounds == found["twice"].rounds >= 10


def test_a_corrupted_artifact_fails_alone(small: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(small.read_bytes()[:1000])
    found = profiles([Subject("baseline", "onnx", small), Subject("broken", "onnx", broken)])
    assert found["broken"].status == "failed"
    assert found["broken"].reason.startswith(f"{broken}: ONNX Runtime cannot load it")
    assert "\n" not in found["broken"].reason
    assert found["broken"].latency == {}
    assert found["baseline"].status == "measured"
    assert found["baseline"].noise is not None


def test_inputs_that_do_not_fit_are_a_reason(small: Path) -> None:
    inputs = {"x": np.ones((BATCH, WIDTH + 1), np.float32)}
    (profile,) = profiles([Subject("baseline", "onnx", small)], inputs=inputs).values()
    assert profile.status == "failed"
    assert "invalid dimensions" in profile.reason


def test_an_input_may_have_any_name(tmp_path: Path, small: Path) -> None:
    model = onnx.load(small)
    model.graph.input[0].name = model.graph.node[0].input[0] = "file"
    onnx.save(model, tmp_path / "renamed.onnx")
    subject = Subject("baseline", "onnx", tmp_path / "renamed.onnx")
    (profile,) = profiles([subject], inputs={"file": INPUTS["x"]}).values()
    assert profile.status == "measured"


def test_more_threads_than_processors_is_a_reason(small: Path) -> None:
    (profile,) = profiles([Subject("baseline", "onnx", small)], threads=1000).values()
    assert profile.status == "failed"
    assert "1000 threads need as many CPUs" in profile.reason


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_two_threads_are_measured_on_two_cpus(small: Path) -> None:
    seen: list[int] = []

    def look(number: int) -> None:
        seen.extend(len(each.cpu_affinity()) for each in workers())

    observer = Watcher(look)
    subjects = [Subject("baseline", "onnx", small)]
    (profile,) = profiles(subjects, threads=2, observer=observer).values()
    assert profile.status == "measured"
    assert set(seen) == {2}


def test_without_the_baseline_there_is_no_ratio(small: Path) -> None:
    (profile,) = profiles([Subject("other", "onnx", small)]).values()
    assert profile.status == "measured"
    assert (profile.ratio, profile.noise) == (None, None)


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["baseline", "other", "twin"])
def test_a_killed_worker_fails_alone(small: Path, victim: int) -> None:
    def kill(number: int) -> None:
        if number == 2:
            os.kill(workers()[victim].pid, signal.SIGKILL)

    subjects = [Subject("baseline", "onnx", small), Subject("other", "onnx", small)]
    found = list(profiles(subjects, observer=Watcher(kill)).values())
    failed = [index for index, profile in enumerate(found) if profile.status == "failed"]
    assert failed == [victim][: victim < 2]
    for index, profile in enumerate(found):
        if index in failed:
            assert "SIGKILL" in profile.reason
            assert profile.latency == {}
        else:
            assert profile.rounds == 5
            assert (profile.ratio is None) == (victim == 0)
        assert (profile.noise is None) == (victim in (0, 2))


def test_an_interruption_leaves_no_process(small: Path) -> None:
    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profiles([Subject("baseline", "onnx", small)], observer=Watcher(interrupt))
    assert workers() == []


def test_workers_end_with_a_killed_parent(fakes: Callable[[str], Subject], tmp_path: Path) -> None:
    code = """
import sys
sys.path[:] = sys.argv[3:]
from lepton_compress.profile.process import Job, Worker
worker = Worker(Job("fake", sys.argv[1], 1, (), sys.argv[2], ()))
worker.ready(60)
print(worker.pid, flush=True)
worker.run(100, 3600)
"""
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs)
    command = [sys.executable, "-c", code, str(fakes("hangs").path), str(inputs), *sys.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        # By now it is in a call that does not return, and cannot notice the end of its input.
        time.sleep(0.2)
        parent.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        worker.wait(10)
    assert not worker.is_running()


def test_what_a_runtime_prints_does_not_corrupt_the_answers(
    fakes: Callable[[str], Subject], capfd: pytest.CaptureFixture[str]
) -> None:
    (profile,) = profiles([fakes("prints")], baseline="prints", runtime="fake").values()
    assert profile.status == "measured", profile.reason
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("hangs", "gave no result within 0.5 s"),
        ("crashes", "ended by itself with exit code 7; it last said: the last words"),
        ("raises", "ValueError: cannot go on"),
    ],
)
def test_a_worker_that_goes_wrong_fails_alone_and_says_why(
    fakes: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch, manner: str, reason: str
) -> None:
    monkeypatch.setattr(module, "MIN_TURN_TIMEOUT", 0.5)
    monkeypatch.setattr(module, "TURN_TIMEOUT_FACTOR", 0)
    found = profiles([fakes("good"), fakes(manner)], baseline="good", runtime="fake")
    assert found[manner].status == "failed"
    assert reason in found[manner].reason
    assert found["good"].status == "measured"


def test_an_unknown_runtime_is_a_reason(small: Path) -> None:
    (profile,) = profiles([Subject("baseline", "onnx", small)], runtime="nowhere").values()
    assert profile.status == "failed"
    assert "unknown runtime 'nowhere'" in profile.reason


def test_peak_memory_is_the_artifacts_own(small: Path, tmp_path: Path) -> None:
    # A child begins with its parent's mark in ru_maxrss; this one's must not hide the models'.
    ballast = np.ones(40_000_000)
    wide = perceptron(tmp_path / "wide.onnx", 8, 1024)
    inputs = {"x": np.ones((1, 1024), np.float32)}
    (profile,) = profiles([Subject("baseline", "onnx", wide)], inputs=inputs).values()
    (less,) = profiles([Subject("baseline", "onnx", small)]).values()
    assert profile.peak_memory is not None
    assert less.peak_memory is not None
    assert profile.peak_memory - less.peak_memory > 0.8 * wide.stat().st_size
    assert profile.peak_memory < ballast.nbytes
