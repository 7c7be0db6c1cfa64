"""What the QNN provider says is read as it is: what is where, why, how far apart outputs are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lepton_compress import catalogue, registry
from lepton_compress.artifacts import Fallback
from lepton_compress.errors import InputError, MissingExtraError
from lepton_compress.targets import hexagon, hexagon_program
from lepton_compress.targets.onnxruntime_qnn import OnnxruntimeQnn
from tests import onnx_models
from tests.compress.nets import apply
from tests.contract.needed import graph, image_data, parameters

QNN, CPU = "QNNExecutionProvider", "CPUExecutionProvider"
SAID = """\
[V:, a.cc:1 LogNodeSupport] Validation FAILED for 1 nodes in OrtNodeUnit (Pad) :
\tOperator type: Pad Node name: first/align Node index: 12
\tREASON : Failed to add node.

[V:, a.cc:1 LogNodeSupport] Validation PASSED for 1 nodes in OrtNodeUnit (Relu) :
\tOperator type: Relu Node name: relu Node index: 13

[V:, a.cc:1 LogNodeSupport] Validation FAILED for 3 nodes in OrtNodeUnit (Odd) :
\tOperator type: DequantizeLinear Node name: odd/in Node index: 1
\tOperator type: Odd Node name: odd_token_3 Node index: 2
\tREASON : Operators of type `Odd` are not supported by QNN EP.Odd node `odd` will not be assigned.
"""


class TestReading:
    def test_reasons_go_by_the_names_of_the_artifact(self) -> None:
        assert hexagon.reasons(SAID) == {
            "first/align": "Failed to add node",
            "odd/in": "Operators of type `Odd` are not supported by QNN EP",
            "odd": "Operators of type `Odd` are not supported by QNN EP",
        }

    def test_what_is_left_to_the_processor_is_the_artifacts(self) -> None:
        placed = [
            (QNN, [("conv_token_1", "Conv")]),
            (CPU, [("x_QuantizeLinear", "QuantizeLinear")]),
            (CPU, [("Transpose_token_4", "Transpose")]),
            (CPU, [("odd_token_3", "Odd"), ("first/align", "Pad")]),
            (CPU, [("moved", "Transpose")]),
        ]
        held = {"conv": "Conv", "odd": "Odd", "first/align": "Pad", "moved": "Transpose"}
        first, second, third = hexagon.left_over(placed, held, {"odd": "not supported"})
        assert first == Fallback("Odd", "odd", "not supported", "")
        assert (second.operator, second.name) == ("Pad", "first/align")
        assert "layout: keep" in second.remedy
        assert third.name == "moved"

    @pytest.mark.parametrize(
        ("made", "wanted", "steps"),
        [
            ([0.0, 1.0], [0.0, 1.0], 0),
            ([0.0, 0.5], [0.0, 1.0], 127.5),
            ([np.nan, 1.0], [0.0, 1.0], 255),
            ([np.nan, 0.0, 1.0], [np.nan, 0.0, 1.0], 0),
            ([0.0], [0.0, 1.0], 255),
            ([2.0, 2.0], [1.0, 1.0], 255),
        ],
    )
    def test_differences_are_in_steps(self, made: Any, wanted: Any, steps: float) -> None:
        assert hexagon_program.apart(np.array(made), np.array(wanted)) == pytest.approx(steps)

    def test_integers_are_apart_by_whole_steps(self) -> None:
        assert hexagon_program.apart(np.array([3, 9]), np.array([3, 4])) == 5

    @pytest.mark.parametrize(("steps", "problem"), [(15.9, False), (16.1, True)])
    def test_a_sixteenth_of_the_range_is_a_problem(self, steps: float, problem: bool) -> None:
        found = {"steps": [0.0, steps], "levels": [255, 255], "outputs": ["a", "b"]}
        said = hexagon.difference(found)
        assert bool(said) is problem
        assert not problem or "'b' is up to 16.1 of 255 steps apart" in said


def test_the_devices_name_their_architectures() -> None:
    known = OnnxruntimeQnn.model_json_schema()["properties"]["architecture"]["enum"]
    for each in known:
        device = catalogue.find(f"hexagon-{each}")
        assert (device.runtime, device.options) == ("onnxruntime-qnn", {"architecture": each})


def test_without_the_provider_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    with pytest.raises(MissingExtraError, match=r"lepton-compress\[hexagon\]"):
        hexagon.fit(onnx_models.network(tmp_path / "net.onnx"), OnnxruntimeQnn(architecture="v73"))


class TestFit:
    """By the provider itself."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("onnxruntime_qnn", reason="the extra `hexagon` is not installed")

    def fit(self, path: Path, **options: Any) -> Any:
        return registry.get("runtime", "onnxruntime-qnn").call(
            path, OnnxruntimeQnn(**{"architecture": "v73", **options})
        )

    def exported(self, folder: Path, **options: Any) -> Path:
        exporter = registry.get("exporter", "onnx")
        model = apply("quantize", graph(), image_data().calibration).model
        path: Path = exporter.call(model, exporter.params(**options), folder)
        return path

    @pytest.mark.parametrize("architecture", ["v68", "v81"])
    def test_an_integer_artifact_is_on_it_as_a_whole(
        self, architecture: str, tmp_path: Path
    ) -> None:
        made = self.fit(self.exported(tmp_path, layout="keep"), architecture=architecture)
        assert made.problem == ""
        assert made.fallbacks == ()
        assert made.operators >= 4
        assert made.flash == made.figures["context_bytes"] > 1000
        assert made.figures["parts"] == 1
        assert made.figures["largest_difference_steps"] < 8
        assert (made.seconds, made.ram) == (None, None)
        assert made.configuration["architecture"] == architecture
        assert made.tool.startswith("onnxruntime-qnn 2.")

    def test_a_layout_for_another_processor_is_told_with_what_helps(self, tmp_path: Path) -> None:
        path = self.exported(tmp_path)
        if not any(node.name.endswith("/align") for node in onnx.load(path).graph.node):
            pytest.skip("the layout is that of x86 alone")
        made = self.fit(path)
        said = [made.problem, *(each.remedy for each in made.fallbacks)]
        assert any("layout: keep" in each for each in said)

    def test_what_the_processor_computes_is_named_and_no_flash_is_told(
        self, tmp_path: Path
    ) -> None:
        made = self.fit(onnx_models.network(tmp_path / "net.onnx", odd="Shrink"))
        (one,) = made.fallbacks
        assert (one.operator, one.name) == ("Shrink", "net.shrink")
        assert one.reason == "Operators of type `Shrink` are not supported by QNN EP"
        assert one.remedy == "use Relu or HardSwish"
        assert made.flash is None
        assert made.figures["parts"] == 2

    def test_nothing_on_it_is_a_problem(self, tmp_path: Path) -> None:
        path = onnx_models.network(tmp_path / "net.onnx", odd="Shrink")
        model = onnx.load(path)
        keep = model.graph.node[2]
        keep.input[0], keep.output[0] = "x", "y"
        del model.graph.node[3:], model.graph.node[:2], model.graph.initializer[:]
        model.graph.output[0].CopyFrom(model.graph.input[0])
        model.graph.output[0].name = "y"
        onnx.save(model, path)
        made = self.fit(path)
        assert made.problem.startswith("nothing of it runs on the Hexagon (Shrink at 'net.shrink'")
        assert made.flash is None

    def test_a_refusal_of_the_compiler_is_one_line(self, tmp_path: Path) -> None:
        made = self.fit(onnx_models.network(tmp_path / "net.onnx", odd="Selu"))
        assert made.problem.startswith("QNN cannot compile it: Failed to finalize")
        assert "`float16`" in made.problem
        assert "\n" not in made.problem
        assert ".cc" not in made.problem

    def test_an_open_size_is_a_problem(self, tmp_path: Path) -> None:
        sizes = ("batch", 8, "rows", 8)
        made = self.fit(onnx_models.network(tmp_path / "net.onnx", sizes=sizes))
        assert made.problem == "'x' leaves its size 'rows' open; Hexagons take fixed sizes"

    def test_a_crash_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "program.py"
        program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
        monkeypatch.setattr(hexagon_program, "__file__", str(program))
        made = self.fit(onnx_models.network(tmp_path / "net.onnx"))
        assert made.problem == "QNN cannot compile it: it crashed (signal 11)"

    def test_an_empty_graph_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "empty.onnx").write_bytes(b"")
        with pytest.raises(InputError, match="holds no operators"):
            self.fit(tmp_path / "empty.onnx")

    def test_what_it_tells_is_json(self, tmp_path: Path) -> None:
        made = self.fit(onnx_models.network(tmp_path / "net.onnx"))
        json.dumps([made.configuration, made.figures], allow_nan=False)


def test_the_preflight_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = registry.get("runtime", "onnxruntime-qnn")
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert plugin.requires is not None
    (said,) = plugin.requires(parameters("runtime", "onnxruntime-qnn"), ())
    assert said.endswith("pip install 'lepton-compress[hexagon]'")
