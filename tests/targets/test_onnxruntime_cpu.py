"""The runtime `onnxruntime-cpu`."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lepton_compress import registry
from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.targets.onnxruntime_cpu import onnxruntime_cpu


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, [output])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=opset), path)
    return path


@pytest.fixture
def gather(tmp_path: Path) -> Path:
    """Takes table (rows, 4) and which (batch,), gives the rows (batch, 4)."""
    return save(
        tmp_path / "gather.onnx",
        [helper.make_node("Gather", ["table", "which"], ["rows"])],
        [
            helper.make_tensor_value_info("table", TensorProto.FLOAT, [None, 4]),
            helper.make_tensor_value_info("which", TensorProto.INT64, ["batch"]),
        ],
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", 4]),
    )


@pytest.fixture
def reshape(tmp_path: Path) -> Path:
    return save(
        tmp_path / "reshape.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "columns"]),
    )


def test_it_is_in_the_registry() -> None:
    plugin = registry.get("runtime", "onnxruntime-cpu")
    assert plugin.function is onnxruntime_cpu
    assert plugin.summary


def test_inputs_and_outputs_have_numpy_names_and_symbolic_dimensions(gather: Path) -> None:
    runner = onnxruntime_cpu(gather, 1)
    assert runner.inputs == (
        TensorSpec("table", "float32", ("table_0", 4)),
        TensorSpec("which", "int64", ("batch",)),
    )
    assert runner.outputs == (TensorSpec("rows", "float32", ("batch", 4)),)


@pytest.mark.parametrize("threads", [1, 2])
def test_running_gives_one_array_for_each_output(gather: Path, threads: int) -> None:
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    (rows,) = onnxruntime_cpu(gather, threads).run({"table": table, "which": np.array([2, 0])})
    np.testing.assert_array_equal(rows, table[[2, 0]])
    assert rows.dtype == np.float32


@pytest.mark.parametrize("content", [b"", b"not a model", None], ids=["empty", "text", "absent"])
def test_a_file_that_cannot_be_loaded_is_one_clear_line(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        onnxruntime_cpu(path, 1)
    said = str(caught.value)
    assert said.startswith(f"{path}: ONNX Runtime cannot load it: ")
    assert "\n" not in said
    assert "[ONNXRuntimeError]" not in said
    assert said.count(path.name) <= 2


def test_a_model_of_a_later_format_is_refused_without_the_source_of_the_runtime(
    gather: Path,
) -> None:
    model = onnx.load(gather)
    model.ir_version = 99
    onnx.save(model, gather)
    with pytest.raises(InputError, match="Unsupported model IR version: 99") as caught:
        onnxruntime_cpu(gather, 1)
    assert ".cc" not in str(caught.value)


def test_an_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    element = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch"])
    path = save(
        tmp_path / "sequence.onnx",
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        helper.make_value_info("y", helper.make_sequence_type_proto(element)),
    )
    with pytest.raises(InputError, match="'y' is a seq"):
        onnxruntime_cpu(path, 1)


def test_wrong_arrays_are_refused(gather: Path) -> None:
    with pytest.raises(InputError, match="which"):
        onnxruntime_cpu(gather, 1).run({"table": np.zeros((3, 4), np.float32)})


def test_a_failure_while_running_is_an_input_error(reshape: Path) -> None:
    feeds = {"x": np.zeros((2, 4), np.float32), "shape": np.array([3, 3])}
    with pytest.raises(InputError, match="cannot run it") as caught:
        onnxruntime_cpu(reshape, 1).run(feeds)
    assert "\n" not in str(caught.value)
    assert ".h:" not in str(caught.value)


def test_warnings_of_the_runtime_do_not_reach_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # An initialiser that no node uses draws a warning at the runtime's own level.
    path = save(
        tmp_path / "unused.onnx",
        [helper.make_node("Relu", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"]),
    )
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("unused", TensorProto.FLOAT, [1], [0.0]))
    onnx.save(model, path)
    onnxruntime_cpu(path, 1).run({"x": np.zeros(3, np.float32)})
    assert capfd.readouterr() == ("", "")


def test_importing_the_plugin_imports_no_runtime() -> None:
    code = (
        "import sys, lepton_compress.targets.onnxruntime_cpu;"
        "sys.exit(bool({'numpy', 'onnxruntime', 'onnx', 'torch'} & set(sys.modules)))"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0
