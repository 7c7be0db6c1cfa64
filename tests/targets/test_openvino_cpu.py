"""The runtime `openvino-cpu`: it agrees with ONNX Runtime, and refuses what OpenVINO lets pass."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lepton_compress import registry
from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError, MissingExtraError
from lepton_compress.export.stepwise import stepwise
from lepton_compress.load import forms
from lepton_compress.profile.process import Job, Worker
from lepton_compress.targets import frames, openvino_session
from lepton_compress.targets.onnxruntime_cpu import onnxruntime_cpu
from lepton_compress.targets.openvino_cpu import openvino_cpu
from lepton_compress.targets.stepping import SteppedRunner
from lepton_compress.verify import LIMIT, difference
from tests.contract.needed import feeds, graph, image_data, parameters, several
from tests.export.recurrent import gru, sequences, written

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

LAST = onnx.helper.make_node("Gather", ["states", "end"], ["y"], "last", axis=1)


def saved(path: Path, model: Any) -> Path:
    onnx.save(model.value, path)
    return path


@functools.cache
def quantized() -> Any:
    from tests.compress.nets import apply

    return apply("quantize", graph(), image_data().calibration).model


def pictures() -> Any:
    return image_data().evaluation.named(["image"]).inputs


@pytest.fixture
def both(tmp_path: Path) -> Path:
    return saved(tmp_path / "several.onnx", several())


class TestAnswers:
    def test_integers_are_those_of_onnx_runtime(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "int8.onnx", quantized())
        given = pictures()
        (ours,), (theirs,) = openvino_cpu(path, 1).run(given), onnxruntime_cpu(path, 1).run(given)
        assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.98
        span = theirs.max() - theirs.min()
        assert np.abs(ours - theirs).max() < 3 * span / 255
        rows = openvino_session.operators(path, 1, {"image": given["image"][:1]})
        assert {"Convolution", "int8"} <= {part for row in rows for part in row[:2]}

    def test_float_graphs_are_computed_in_float32(self, tmp_path: Path) -> None:
        # In bfloat16 a product of these loses what the sum then asks for.
        weights = {"w": np.full((64, 64), 1.001, np.float32)}
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
        size = ["batch", 64]
        from tests.compress.nets import model_of

        model = model_of(nodes, weights, ("x", TensorProto.FLOAT, size), ("y", size))
        path = saved(tmp_path / "float.onnx", model)
        given = {"x": np.full((2, 64), 1.003, np.float32)}
        (made,) = openvino_cpu(path, 1).run(given)
        np.testing.assert_allclose(made, given["x"] @ weights["w"], rtol=1e-6)
        assert openvino_session.settings(1)["INFERENCE_PRECISION_HINT"] == "f32"

    def test_what_comes_out_is_the_callers(self, both: Path) -> None:
        runner = openvino_cpu(both, 1)
        first = runner.run(feeds(several(), 2))
        kept = [array.copy() for array in first]
        runner.run(feeds(several(), 2) | {"ids": np.zeros(2, np.int64)})
        for array, copy in zip(first, kept, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_callers_at_the_same_time_get_their_own(self, both: Path) -> None:
        runner = openvino_cpu(both, 2)
        found: dict[int, list[Any]] = {}

        def ask(batch: int) -> None:
            given = feeds(several(), batch)
            found[batch] = [runner.run(given)[0] for _ in range(20)]

        callers = [threading.Thread(target=ask, args=(batch,)) for batch in (1, 2, 3, 4)]
        for each in callers:
            each.start()
        for each in callers:
            each.join()
        for batch, made in found.items():
            wanted = forms.call(several(), feeds(several(), batch))["scores"]
            for array in made:
                np.testing.assert_allclose(array, wanted, rtol=1e-5)
        assert set(found) == {1, 2, 3, 4}


class TestInput:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            # OpenVINO itself computes something of all of these but the unknown one.
            ({"side": np.zeros((2, 2), np.float32)}, r"side has the shape \(\?, 4\)"),
            ({"side": np.zeros((2, 4), np.float64)}, "side is float32, and is given float64"),
            ({"side": None}, "takes ids, side, and is given ids"),
            ({"more": np.zeros(1)}, "takes ids, side, and is given ids, side, more"),
            ({"ids": np.zeros(3, np.int64)}, "for different numbers of samples"),
        ],
    )
    def test_arrays_that_do_not_fit(self, both: Path, wrong: dict[str, Any], said: str) -> None:
        given = {**feeds(several(), 2), **wrong}
        given = {name: array for name, array in given.items() if array is not None}
        with pytest.raises(InputError, match=said) as caught:
            openvino_cpu(both, 1).run(given)
        assert str(caught.value).startswith(str(both))
        assert "\n" not in str(caught.value)
        assert ".cpp" not in str(caught.value)

    def test_an_operator_that_it_lacks_is_named(self, tmp_path: Path) -> None:
        value = helper.make_tensor_value_info
        made = helper.make_graph(
            [helper.make_node("Odd", ["x"], ["y"], "odd", domain="our.own")],
            "odd",
            [value("x", TensorProto.FLOAT, ["batch"])],
            [value("y", TensorProto.FLOAT, ["batch"])],
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("our.own", 1)]
        onnx.save(helper.make_model(made, ir_version=10, opset_imports=opsets), tmp_path / "o.onnx")
        with pytest.raises(InputError, match=r"cannot load it: .*Odd") as caught:
            openvino_cpu(tmp_path / "o.onnx", 1)
        assert "\n" not in str(caught.value)

    def test_open_sizes_have_names(self, both: Path) -> None:
        runner = openvino_cpu(both, 1)
        ids, side = (
            TensorSpec("ids", "int64", ("batch",)),
            TensorSpec("side", "float32", ("batch", 4)),
        )
        assert runner.inputs == (ids, side)

    def test_without_it_the_extra_is_named(
        self, both: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingExtraError, match=r"lepton-compress\[openvino\]"):
            openvino_cpu(both, 1)
        plugin = registry.get("runtime", "openvino-cpu")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert plugin.requires is not None
        (said,) = plugin.requires(parameters("runtime", "openvino-cpu"), ())
        assert "pip install 'lepton-compress[openvino]'" in said


class TestSettings:
    @pytest.mark.parametrize("threads", [1, 4])
    def test_every_alternative_loads_and_takes_no_more_threads(
        self, both: Path, threads: int
    ) -> None:
        wanted = openvino_cpu(both, threads).run(feeds(several(), 2))
        for changes in openvino_session.alternatives(threads):
            assert changes.items() - openvino_session.settings(threads).items()
            assert changes.get("INFERENCE_NUM_THREADS", 1) <= threads
            made = openvino_cpu(both, threads, changes).run(feeds(several(), 2))
            np.testing.assert_allclose(made[0], wanted[0], rtol=1e-5)
        # A setting that flushes denormals would do so for everything else in this process.
        assert np.finfo(np.float64).tiny / np.float64(2) > 0

    def test_a_setting_that_is_none_is_refused(self, both: Path) -> None:
        with pytest.raises(InputError, match="NO_SUCH") as caught:
            openvino_cpu(both, 1, {"NO_SUCH": 1})
        assert "\n" not in str(caught.value)

    def test_the_threads_are_those_asked_for(self, both: Path) -> None:
        session = openvino_session.opened(both, 2)
        assert session.compiled.get_property("INFERENCE_NUM_THREADS") == 2
        assert not session.compiled.get_property("ENABLE_CPU_PINNING")


class TestSteps:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return saved(
            tmp_path / "step.onnx", stepwise(written(*gru(), LAST, one=[1], end=np.array(-1)))
        )

    def test_a_step_model_takes_whole_sequences(self, file: Path) -> None:
        runner = openvino_cpu(file, 1)
        assert isinstance(runner, SteppedRunner)
        wanted = onnxruntime_cpu(file, 1).run(sequences(3))
        assert difference({"y": wanted[0]}, {"y": runner.run(sequences(3))[0]}) <= LIMIT

    def test_damaged_metadata_is_told(self, file: Path) -> None:
        made = onnx.load(file)
        made.metadata_props[0].value = '{"version": 9}'
        onnx.save(made, file)
        with pytest.raises(InputError, match="of version 9"):
            openvino_cpu(file, 1)

    def test_two_files_are_all_that_a_device_needs(self, file: Path, tmp_path: Path) -> None:
        for module in (openvino_session, frames):
            shutil.copy(str(module.__file__), tmp_path)
        np.save(tmp_path / "x.npy", sequences(2)["x"])
        code = (
            "import sys, numpy, openvino_session\n"
            f"made = openvino_session.load({str(file)!r}, 1).run({{'x': numpy.load('x.npy')}})\n"
            "assert not any(name.startswith('lepton') for name in sys.modules)\n"
            # Nothing is there that could report the import over the network.
            "assert sys.modules['openvino_telemetry'] is None\n"
            "numpy.save('y.npy', made[0])\n"
        )
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
        wanted = openvino_cpu(file, 1).run(sequences(2))
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), wanted[0])


def test_the_worker_times_it_and_tells_the_time_by_operator(tmp_path: Path) -> None:
    path = saved(tmp_path / "int8.onnx", quantized())
    given = {"image": pictures()["image"][:1]}
    np.savez(tmp_path / "inputs.npz", *given.values())
    named = (str(tmp_path / "inputs.npz"), tuple(given))
    job = Job("openvino-cpu", str(path), 1, (), *named, program=openvino_session.__name__)
    with Worker(job) as worker:
        assert worker.ready(60).first_call > 0
        assert min(worker.run(20, 60)) > 0
    with Worker(Job(**{**vars(job), "operators": True})) as worker:
        rows = worker.operators(60)
    assert all(seconds >= 0 and count >= 1 for _, _, count, seconds in rows)
    json.dumps(rows)


def test_importing_the_plugin_imports_no_runtime() -> None:
    code = (
        "import sys, lepton_compress.targets.openvino_cpu;"
        "sys.exit(bool({'numpy', 'openvino', 'onnx', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
