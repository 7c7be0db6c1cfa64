"""`explain --layers`, and runs whose LiteRT artifacts are wrong, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

from lepton_compress.errors import EXIT_GATE, EXIT_OK, UserError
from lepton_compress.explain import parting
from lepton_compress.layers import SUFFIX
from lepton_compress.provenance import file_digest
from lepton_compress.report.silent import Silent
from tests.bench import GRAPH, Bench, copy_of, furnish, refused

if TYPE_CHECKING:
    from tests.conftest import Install

SPOILS = '''
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lepton_compress.export.litert import Litert, export_litert
from lepton_compress.registry import Params, plugin


@plugin("exporter", "spoils", Params, evaluates="litert-cpu")
def spoils(model, params, folder):
    """Writes the weights of the second convolution with another sign."""
    path = export_litert(model, Litert(), folder)
    held = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph, conv = held.subgraphs[0], schema.BuiltinOperator.CONV_2D
    codes = [each.builtinCode for each in held.operatorCodes]
    second = [each for each in graph.operators if codes[each.opcodeIndex] == conv][1]
    tensor = graph.tensors[second.inputs[1]]
    buffer = held.buffers[tensor.buffer]
    dtype = np.float32 if tensor.type == schema.TensorType.FLOAT32 else np.int8
    values = np.array(buffer.data, np.uint8).view(dtype).copy()
    buffer.data = (-values).view(np.uint8)
    builder = flatbuffers.Builder(4096)
    builder.Finish(held.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
'''
RECIPE = {**GRAPH, "exports": ["onnx", "litert"], "variants": {"int8": ["quantize"]}}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A run in both formats. Do not change it; copy it."""
    bench = Bench(tmp_path_factory.mktemp("layers"))
    furnish(bench.folder)
    bench.recipe(RECIPE)
    done = bench.lepton("run", "recipe.yaml")
    assert done.code == EXIT_OK, done
    return bench


def test_layers_lie_beside_the_artifact_and_are_no_part_of_it(ran: Bench) -> None:
    folder = ran.folder / "runs" / "tiny"
    (made,) = (
        each
        for each in ran.result()["artifacts"]
        if (each["candidate"], each["format"]) == ("int8", "litert")
    )
    file = folder / made["path"]
    assert file.with_suffix(SUFFIX).is_file()
    assert (made["bytes"], made["beside"]) == (file.stat().st_size, [])
    assert made["sha256"] == file_digest(file)
    assert SUFFIX not in (folder / "manifest.json").read_text()


@pytest.mark.parametrize("artifact", ["runs/tiny:int8", "runs/tiny/artifacts/litert/int8.tflite"])
def test_a_sound_artifact(ran: Bench, artifact: str) -> None:
    done = ran.lepton("explain", artifact, "--layers")
    assert done.code == EXIT_OK, done
    for said in ("norm1/Conv", "CONV_2D", "steps", "quantised", "artifacts/onnx/baseline.onnx"):
        assert said in done.out
    assert "every layer computes what its source computes" in done.out
    told = json.loads(ran.lepton("explain", artifact, "--layers", "--json").out)
    assert told["first"] == ""
    assert told["samples"] == 64
    assert {each["unit"] for each in told["layers"]} == {"steps", "relative"}


def test_another_file_with_its_source_named(ran: Bench, tmp_path: Path) -> None:
    bench = copy_of(ran.folder, tmp_path / "copy")
    made = bench.folder / "runs/tiny/artifacts"
    shutil.copyfile(made / f"litert/baseline{SUFFIX}", made / f"litert/other{SUFFIX}")
    shutil.copyfile(made / "litert/baseline.tflite", made / "litert/other.tflite")
    given = ("--against", made / "onnx/int8.onnx", "--recipe", "recipe.yaml", "--layers")
    # The baseline's file does not compute what the integer graph does. They share the outputs, as
    # nothing in it stands for a value that is rounded.
    done = bench.lepton("explain", made / "litert/other.tflite", *given)
    assert done.code == EXIT_OK, done
    assert "> scores/Gemm" in done.out
    assert "scores/Gemm is the first that computes something else" in done.out


@pytest.mark.parametrize(
    ("artifact", "more", "says"),
    [
        ("runs/tiny/artifacts/onnx/int8.onnx", {}, "is no LiteRT file, whose layers are compared"),
        ("runs/tiny:int9", {}, "did you mean 'int8'"),
        ("absent.tflite", {}, r"no such file; name a file \(.tflite\)"),
        ("bare.tflite", {}, r"has no list of its layers beside it \(bare.layers.json\)"),
        ("alone.tflite", {}, "the graph that it was written from is not known; name it by"),
        ("runs/tiny:int8", {"against": "absent.onnx"}, "absent.onnx: no such file"),
        ("runs/tiny:int8", {"data": "a.npz", "recipe_path": "b"}, "with --data or --recipe"),
    ],
)
def test_bad_input(
    ran: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    artifact: str,
    more: dict[str, str],
    says: str,
) -> None:
    bench = copy_of(ran.folder, tmp_path / "copy")
    source = bench.folder / "runs/tiny/artifacts/litert/int8.tflite"
    for name in ("bare", "alone"):
        shutil.copyfile(source, bench.folder / f"{name}.tflite")
    shutil.copyfile(source.with_suffix(SUFFIX), bench.folder / f"alone{SUFFIX}")
    monkeypatch.chdir(bench.folder)
    given: dict[str, Any] = {"against": None, "recipe_path": None, "data": None}
    given |= {name: Path(held) for name, held in more.items()}
    with pytest.raises(UserError, match=says):
        parting.divergence(artifact, **given, samples=4, observer=Silent())


def test_a_file_of_another_kind_ends_in_one_line(ran: Bench) -> None:
    done = ran.lepton("explain", "runs/tiny/artifacts/onnx/int8.onnx", "--layers")
    refused(done, ("is no LiteRT file",))


def test_a_layer_s_option_does_not_take_those_of_nodes(ran: Bench) -> None:
    done = ran.lepton("explain", "runs/tiny:int8", "--layers", "--cpu", "avx2")
    assert done.code == 2
    assert "--cpu" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_run_names_the_layer_that_is_wrong(tmp_path: Path, third_party: Install) -> None:
    site = third_party({"exporter.spoils": "spoiling:spoils"}, spoiling=SPOILS)
    bench = Bench(tmp_path / "bench")
    furnish(bench.folder)
    bench.recipe(RECIPE, exports=["onnx", "spoils"], require="every")
    done = bench.lepton("run", "recipe.yaml", path=(site,))
    assert done.code == EXIT_GATE, done
    reasons = [
        each["reason"]
        for each in bench.result()["verdicts"]
        if (each["gate"], each["status"]) == ("parity", "FAIL")
    ]
    assert len(reasons) == 2
    assert all("conv2/Conv is the first to compute something else" in said for said in reasons)
    assert "conv2/Conv is the first" in (bench.folder / "runs/tiny/report.md").read_text()
