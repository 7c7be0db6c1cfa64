"""The exporter `onnx`: what stands in the file, from torch and from other people's ONNX files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from lepton_compress.artifacts import Model, Split, TensorSpec
from lepton_compress.export.lower import clean, lower
from lepton_compress.export.onnx import Onnx, export_onnx
from lepton_compress.load import forms
from lepton_compress.verify import LIMIT, difference
from tests.bench import splits, trained

SECRET = "/home/someone/secret/train.py"


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def foreign(*names: str) -> onnx.ModelProto:
    """A chain of products as another exporter might write it, its nodes named like this."""
    draw = np.random.default_rng(0)
    nodes, last = [], "x"
    weights = []
    for place, name in enumerate(names):
        weights.append(
            numpy_helper.from_array(draw.normal(size=(4, 4)).astype(np.float32), f"w{place}")
        )
        nodes.append(helper.make_node("MatMul", [last, f"w{place}"], [f"m{place}"], name))
        nodes.append(helper.make_node("Relu", [f"m{place}"], [f"r{place}"], name and f"{name}/act"))
        last = f"r{place}"
    graph = helper.make_graph(
        nodes, "theirs", [value("x", "n", 4)], [value(last, "n", 4)], weights, doc_string=SECRET
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="theirs"
    )
    helper.set_model_props(model, {"author": SECRET})
    model.doc_string = SECRET
    for node in model.graph.node:
        node.doc_string = SECRET
    return model


def branching() -> onnx.ModelProto:
    """Doubles or halves by the sum of its input; each branch is a graph of its own."""

    def body(name: str, factor: float) -> onnx.GraphProto:
        by = numpy_helper.from_array(np.array(factor, np.float32), f"{name}_by")
        node = helper.make_node("Mul", ["x", f"{name}_by"], [name], doc_string=SECRET)
        return helper.make_graph([node], name, [], [value(name, "n", 4)], [by], doc_string=SECRET)

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node(
            "If",
            ["positive"],
            ["y"],
            then_branch=body("twice", 2.0),
            else_branch=body("half", 0.5),
        ),
    ]
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    graph = helper.make_graph(nodes, "g", [value("x", "n", 4)], [value("y", "n", 4)], [zero])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node]


def as_model(graph: onnx.ModelProto) -> Model:
    return Model("graph", graph, *forms.signature(graph))


@pytest.fixture(scope="module")
def lowered() -> Model:
    """The small trained network as a graph."""
    spec = TensorSpec("image", "float32", ("batch", 1, 6, 6))
    return lower(
        Model("module", trained(), (spec,), ("scores",)),
        Split({"image": splits()["calibration"][0]}),
    )


class TestFile:
    def test_it_is_the_graph(self, lowered: Model, tmp_path: Path) -> None:
        path = export_onnx(lowered, Onnx(), tmp_path)
        assert list(tmp_path.iterdir()) == [path]
        read = onnx.load(path)
        onnx.checker.check_model(read, full_check=True)
        assert read == lowered.value
        inputs, outputs = forms.signature(read)
        assert inputs == (TensorSpec("image", "float32", ("batch", 1, 6, 6)),)
        assert outputs == ("scores",)

    def test_its_bytes_tell_nothing_of_where_it_was_made(
        self, lowered: Model, tmp_path: Path
    ) -> None:
        data = export_onnx(lowered, Onnx(), tmp_path).read_bytes()
        strange = (Path(sys.prefix), Path.home(), Path.cwd(), Path(__file__).parent)
        for each in (*map(str, strange), "site-packages", ".py", "pkg.torch", "Traceback"):
            assert each.encode() not in data

    def test_another_process_writes_the_same_bytes(self, lowered: Model, tmp_path: Path) -> None:
        here = export_onnx(lowered, Onnx(), tmp_path).read_bytes()
        # The same weights for both: trained again, they may differ in their last bits.
        weights = tmp_path / "weights.safetensors"
        save_file(trained().state_dict(), weights)
        code = (
            "import sys, pathlib\n"
            "from safetensors.torch import load_file\n"
            "from lepton_compress.artifacts import Model, Split, TensorSpec\n"
            "from lepton_compress.export.lower import lower\n"
            "from lepton_compress.export.onnx import Onnx, export_onnx\n"
            "from tests.bench import network, splits\n"
            "net = network()().eval()\n"
            "net.load_state_dict(load_file(sys.argv[2]))\n"
            "spec = TensorSpec('image', 'float32', ('batch', 1, 6, 6))\n"
            "model = Model('module', net, (spec,), ('scores',))\n"
            "graph = lower(model, Split({'image': splits()['calibration'][0]}))\n"
            "export_onnx(graph, Onnx(), pathlib.Path(sys.argv[1]))\n"
        )
        folder = tmp_path / "there"
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-c", code, str(folder), str(weights)],
            check=True,
            capture_output=True,
            cwd=Path(__file__).parents[2],
        )
        assert (folder / "model.onnx").read_bytes() == here

    def test_nodes_are_named_once_each(self, lowered: Model) -> None:
        held = names(lowered.value)
        assert all(held)
        assert len(set(held)) == len(held)


class TestForeign:
    """An ONNX file that somebody else has exported."""

    def test_names_survive(self) -> None:
        model = foreign("encoder.0", "encoder.1")
        assert names(clean(model)) == names(model)

    @pytest.mark.parametrize(
        "given", [("a", "a", "a_2"), ("a", "a_2", "a", "a"), ("", "", ""), ("MatMul", "", "MatMul")]
    )
    def test_missing_and_doubled_names_are_made_up(self, given: tuple[str, ...]) -> None:
        model = clean(foreign(*given))
        made = names(model)
        assert all(made)
        assert len(set(made)) == len(made) == 2 * len(given)
        assert names(clean(model)) == made

    def test_nothing_that_was_noted_in_it_is_left(self) -> None:
        model = foreign("a", "b")
        assert SECRET.encode() in model.SerializeToString()
        cleaned = clean(model)
        assert SECRET.encode() not in cleaned.SerializeToString()
        assert cleaned.producer_name == "lepton-compress"
        assert SECRET.encode() in model.SerializeToString()

    def test_nor_in_its_branches(self) -> None:
        model = branching()
        assert SECRET.encode() in model.SerializeToString()
        assert SECRET.encode() not in clean(model).SerializeToString()

    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize("make", [branching, lambda: foreign("a", "b")])
    def test_it_computes_the_same(self, make: type[onnx.ModelProto], sign: int) -> None:
        model = make()
        before, after = as_model(model), as_model(clean(model))
        for batch in (1, 7):
            rows = np.random.default_rng(1).random((batch, 4)).astype(np.float32)
            feeds = {"x": sign * rows}
            assert difference(forms.call(before, feeds), forms.call(after, feeds)) < LIMIT
