"""Step models that are run like the whole-sequence ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from lepton_compress.artifacts import Model
from lepton_compress.errors import InputError
from lepton_compress.export.stepwise import stepwise
from lepton_compress.load import forms
from lepton_compress.profile.process import Job, Worker
from lepton_compress.targets import frames, onnxruntime_session
from lepton_compress.targets.onnxruntime_cpu import onnxruntime_cpu
from lepton_compress.targets.stepping import SteppedRunner
from lepton_compress.verify import LIMIT, difference
from tests.export.recurrent import FRAMES, WIDTH, gru, sequences, written

LAST = onnx.helper.make_node("Gather", ["states", "end"], ["y"], "last", axis=1)


@pytest.fixture(scope="module")
def model() -> Model:
    return written(*gru(), LAST, one=[1], end=np.array(-1))


@pytest.fixture(scope="module")
def file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("step") / "step.onnx"
    onnx.save(stepwise(model).value, path)
    return path


def runner_of(path: Path) -> SteppedRunner:
    made = onnxruntime_cpu(path, 1)
    assert isinstance(made, SteppedRunner)
    return made


@pytest.mark.parametrize("batch", [1, 3])
def test_a_runner_takes_whole_sequences(model: Model, file: Path, batch: int) -> None:
    runner = runner_of(file)
    assert [(spec.name, spec.shape) for spec in runner.inputs] == [("x", ("batch", FRAMES, WIDTH))]
    assert [spec.name for spec in runner.outputs] == ["y"]
    wanted = forms.call(model, sequences(batch))
    for _ in range(2):  # nothing is left of one sequence for the next
        made = dict(zip(["y"], runner.run(sequences(batch)), strict=True))
        assert difference(wanted, made) <= LIMIT


def test_frames_as_they_come_give_the_same(model: Model, file: Path) -> None:
    given, stream = sequences(1)["x"], runner_of(file).start()
    for place in range(FRAMES):
        (made,) = stream.feed({"x": given[:, place : place + 1]})
    assert difference(forms.call(model, {"x": given}), {"y": made}) <= LIMIT


def test_a_sequence_without_a_frame_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match="x is shorter than one frame of 1"):
        runner_of(file).run({"x": np.zeros((1, 0, WIDTH), np.float32)})


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("{", "cannot be read"),
        ('{"version": 9}', "of version 9"),
        ('{"version": 1}', "lacks what it says of its steps"),
    ],
)
def test_damaged_metadata_is_told(file: Path, tmp_path: Path, told: str, said: str) -> None:
    made = onnx.load(file)
    made.metadata_props[0].value = told
    onnx.save(made, tmp_path / "odd.onnx")
    with pytest.raises(InputError, match=said):
        onnxruntime_cpu(tmp_path / "odd.onnx", 1)


def test_a_state_that_the_file_lacks_is_told(file: Path, tmp_path: Path) -> None:
    made = onnx.load(file)
    about = json.loads(made.metadata_props[0].value)
    about["states"][0]["output"] = "elsewhere"
    made.metadata_props[0].value = json.dumps(about)
    onnx.save(made, tmp_path / "odd.onnx")
    with pytest.raises(InputError, match="elsewhere"):
        onnxruntime_cpu(tmp_path / "odd.onnx", 1)


def test_the_worker_times_a_whole_sequence(file: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", sequences(1)["x"])
    named = (str(tmp_path / "inputs.npz"), ("x",))
    program = onnxruntime_session.__name__
    job = Job("onnxruntime-cpu", str(file), 1, (), *named, program=program)
    with Worker(job) as worker:
        assert worker.ready(60).first_call > 0
        whole = np.median(worker.run(50, 60))
    runner, given = runner_of(file), sequences(1)["x"]
    one = runner_of(file)
    assert one.about["frame"]["step"] == 1
    with Worker(Job(**{**vars(job), "path": str(file), "inputs": _short(tmp_path)})) as worker:
        worker.ready(60)
        frame = np.median(worker.run(50, 60))
    assert whole > 3 * frame  # of 12 frames
    assert runner.run({"x": given[:, :1]})[0].shape == (1, 16)


def _short(folder: Path) -> str:
    np.savez(folder / "short.npz", sequences(1)["x"][:, :1])
    return str(folder / "short.npz")


def test_the_time_by_operator_is_of_all_frames(file: Path) -> None:
    rows = onnxruntime_session.operators(file, 1, sequences(1))
    assert "GRU" in {row[0] for row in rows}
    once = onnxruntime_session.operators(file, 1, {"x": sequences(1)["x"][:, :1]})
    assert sum(row[3] for row in rows) > 2 * sum(row[3] for row in once)


def test_two_files_are_all_that_a_device_needs(model: Model, file: Path, tmp_path: Path) -> None:
    for module in (onnxruntime_session, frames):
        shutil.copy(str(module.__file__), tmp_path)
    np.save(tmp_path / "x.npy", sequences(2)["x"])
    code = (
        "import sys, numpy, onnxruntime_session\n"
        f"session = onnxruntime_session.load({str(file)!r}, 1)\n"
        "made = session.run({'x': numpy.load('x.npy')})\n"
        "assert not any(name.startswith('lepton') for name in sys.modules)\n"
        "numpy.save('y.npy', made[0])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    made = {"y": np.load(tmp_path / "y.npy")}
    assert difference(forms.call(model, sequences(2)), made) <= LIMIT


def test_the_first_call_of_a_sequence_can_be_made_alone(file: Path) -> None:
    about = runner_of(file).about
    feeds = frames.first(sequences(2), about)
    assert {name: array.shape for name, array in feeds.items()} == {
        "x": (2, 1, WIDTH),
        "state_0": (1, 2, 16),
    }
    assert frames.count(sequences(2)["x"], about["frame"]) == FRAMES
