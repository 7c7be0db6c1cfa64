"""Facts of models, weights, runs and kept results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.inspect.subject import inspect
from lepton_compress.inspect.torch_model import read_shape
from lepton_compress.overviews import EntryOverview, Held, Inspection, ModuleRow, ResultOverview

if TYPE_CHECKING:
    from tests.conftest import Cli

NET = """\
import torch
from torch import nn

print("noise of the user's module")


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(width * 16, 2)

    def forward(self, image):
        return self.head(self.body(image).flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attend(x, x, x, need_weights=False)[0]


def lazy():
    return nn.LazyLinear(3)


def number():
    return 3
"""
SHAPE = "image=float32[2,1,4,4]"
CONV_MACS, HEAD_MACS = 16 * 4 * 9, 64 * 2


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return "net.py:Net"


def model(subject: str, **options: object) -> Inspection:
    found = inspect(subject, **options)  # type: ignore[arg-type]
    assert isinstance(found, Inspection)
    return found


class TestOnnx:
    def test_facts(self, tiny: Path) -> None:
        found = model(str(tiny / "model.onnx"))
        assert found.kind == "onnx"
        assert found.operators == {"MatMul": {"float32": 2}, "Relu": {"float32": 1}}
        assert found.parameters == found.macs == 8 * 16 + 16 * 3
        assert found.weights == {"float32": Held(2, 176, 704)}
        assert found.inputs == (TensorSpec("x", "float32", ("batch", 8)),)
        assert found.outputs == (TensorSpec("scores", "float32", ("batch", 3)),)
        assert found.about["opset"] == "ai.onnx 20"
        assert found.about["producer"] == "tests"
        assert found.bytes == (tiny / "model.onnx").stat().st_size
        assert found.modules == (
            ModuleRow("first", "MatMul", 128, None),
            ModuleRow("relu", "Relu", 0, None),
            ModuleRow("second", "MatMul", 48, None),
        )
        assert found.notes == ()

    def test_quantised_weights_are_seen_behind_their_scales(self, tiny_run: Path) -> None:
        found = model(str(tiny_run / "runs" / "tiny" / "artifacts" / "int8.onnx"))
        assert found.parameters == 176
        assert found.weights["int8"].numbers >= 176
        assert "DequantizeLinear" in found.operators
        counts = {row.type: row.parameters for row in found.modules}
        assert sum(counts.values()) == 48  # the last of two
        assert "DequantizeLinear" not in counts

    def test_four_bits_share_a_byte(self, tmp_path: Path) -> None:
        from onnx import TensorProto, helper

        from lepton_compress.inspect.onnx_file import initialisers

        packed = helper.make_tensor("w", TensorProto.INT4, [3], b"\x01\x02", raw=True)
        graph = helper.make_model(helper.make_graph([], "g", [], [], [packed]))
        assert initialisers(graph) == {"int4": Held(1, 3, 2)}

    def test_a_fixed_batch_is_noted(self, tmp_path: Path) -> None:
        from onnx import TensorProto, helper, save

        value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "ab"]
        node = helper.make_node("Relu", ["a"], ["b"])
        opset = [helper.make_opsetid("", 20)]
        made = helper.make_model(
            helper.make_graph([node], "g", value[:1], value[1:]), opset_imports=opset, ir_version=10
        )
        save(made, tmp_path / "fixed.onnx")
        (note,) = model(str(tmp_path / "fixed.onnx")).notes
        assert "fixed batch 1" in note

    def test_a_truncated_file_is_an_error(self, tiny: Path) -> None:
        file = tiny / "model.onnx"
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(InputError, match=r"model\.onnx: not a valid ONNX model"):
            inspect(str(file))


class TestFactory:
    def test_with_shapes_everything_is_counted(self, net: str) -> None:
        found = model(net, shapes=(SHAPE,))
        assert found.kind == "factory"
        assert found.macs == CONV_MACS + HEAD_MACS
        assert found.outputs == (TensorSpec("output", "float32", (2, 2)),)
        assert found.parameters == 4 * 9 + 4 + 64 * 2 + 2
        assert found.weights == {"float32": Held(4, 170, 680)}
        rows = {row.name: row for row in found.modules}
        assert rows["body"] == ModuleRow("body", "Sequential", 40, CONV_MACS)
        assert rows["body.0"] == ModuleRow("body.0", "Conv2d", 40, CONV_MACS)
        assert rows["body.1"] == ModuleRow("body.1", "ReLU", 0, 0)
        assert rows["head"] == ModuleRow("head", "Linear", 130, HEAD_MACS)
        assert found.operators["relu"] == {"float32": 1}

    def test_without_shapes_nothing_is_called(self, net: str) -> None:
        found = model(net, args='{"width": 8}')
        assert found.parameters == 8 * 9 + 8 + 128 * 2 + 2
        assert found.macs is None
        assert found.outputs == ()
        assert "--shape" in found.notes[0]

    def test_attention_is_counted_whole(self, net: str) -> None:
        found = model("net.py:Attention", shapes=("x=float32[1,5,8]",))
        projections = 5 * 8 * 8 * 4
        products = 2 * 5 * 5 * 8
        assert found.macs == projections + products

    def test_weights_are_loaded(self, net: str, tmp_path: Path) -> None:
        save_file({"a": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
        with pytest.raises(InputError, match="do not fit the model"):
            inspect(net, weights=tmp_path / "other.safetensors")

    @pytest.mark.parametrize(
        ("subject", "options", "said"),
        [
            ("none.py:Net", {}, "none.py: no such file"),
            ("net.py:None", {}, "has no 'None'"),
            ("net.py:number", {}, "returned int, not a torch.nn.Module"),
            ("net.py:Net", {"args": '{"w": 1}'}, "raised TypeError"),
            ("net.py:Net", {"weights": Path("none.pt")}, "none.pt: no such file"),
            ("net.py:Net", {"shapes": ("image=float32[1,1,9,9]",)}, "cannot be called"),
            ("net.py:lazy", {}, "lazy parameters"),
        ],
    )
    def test_what_cannot_be_made_is_an_input_error(
        self, net: str, subject: str, options: dict[str, object], said: str
    ) -> None:
        with pytest.raises(InputError, match=said):
            model(subject, **options)

    @pytest.mark.parametrize("args", ["[1]", "{", "3"])
    def test_args_are_a_json_object(self, net: str, args: str) -> None:
        with pytest.raises(RecipeError, match="--args"):
            inspect(net, args=args)

    def test_an_unknown_element_type(self, net: str) -> None:
        with pytest.raises(RecipeError, match="unknown element type 'float33'"):
            inspect(net, shapes=("image=float33[1]",))


def test_shapes_are_read() -> None:
    assert read_shape("image=float32[1, 3, 8]") == TensorSpec("image", "float32", (1, 3, 8))


@pytest.mark.parametrize("text", ["", "image", "image=float32", "image=float32[]", "x=int8[0]"])
def test_malformed_shapes_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--shape"):
        read_shape(text)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import warnings

    import torch
    from torch import nn

    module = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    batch = torch.export.Dim("batch")
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.export.export(module, (torch.zeros(2, 8),), dynamic_shapes=({0: batch},))
        torch.export.save(made, path)
    return path


class TestProgram:
    def test_facts(self, program: Path) -> None:
        found = model(str(program))
        assert found.kind == "program"
        assert found.operators == {"linear": {"float32": 2}, "relu": {"float32": 1}}
        assert (found.parameters, found.macs) == (8 * 4 + 4 + 4 * 3 + 3, 8 * 4 + 4 * 3)
        assert found.inputs == (TensorSpec("input", "float32", ("batch", 8)),)
        assert [spec.shape for spec in found.outputs] == [("batch", 3)]
        assert [(row.name, row.type, row.macs) for row in found.modules] == [
            ("0", "Linear", 32),
            ("1", "ReLU", 0),
            ("2", "Linear", 12),
        ]

    def test_another_file_of_that_name(self, tmp_path: Path) -> None:
        (tmp_path / "net.pt2").write_text("nothing")
        with pytest.raises(InputError, match="not an exported program"):
            inspect(str(tmp_path / "net.pt2"))


class TestWeights:
    def test_facts(self, tmp_path: Path) -> None:
        tensors = {"a": np.zeros((2, 3), np.float16), "b": np.zeros(5, np.int8)}
        save_file(tensors, tmp_path / "w.safetensors", metadata={"by": "tests"})
        found = model(str(tmp_path / "w.safetensors"))
        assert found.weights == {"float16": Held(1, 6, 12), "int8": Held(1, 5, 5)}
        assert found.parameters is None

    @pytest.mark.parametrize(
        "data",
        [b"", b"x", b"\xff" * 16, b"\x02" + b"\0" * 7 + b"[]", b"\x08" + b"\0" * 7 + b'{"a": 1}'],
    )
    def test_other_bytes(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "w.safetensors").write_bytes(data)
        with pytest.raises(InputError, match="not a safetensors file"):
            inspect(str(tmp_path / "w.safetensors"))


class TestRunsAndKeptResults:
    @pytest.mark.parametrize("name", ["runs/tiny", "runs/tiny/result.json"])
    def test_a_run(self, tiny_run: Path, name: str) -> None:
        found = inspect(str(tiny_run / name))
        assert isinstance(found, ResultOverview)
        assert [row.candidate for row in found.candidates] == ["baseline", "int8", "coarse"]
        assert found.candidates[1].steps == ("lower", "quantize")
        assert sum(len(row.chosen_on) for row in found.candidates) == 1

    def test_a_kept_result_with_a_model(self, tiny_run: Path) -> None:
        for file in (tiny_run / ".lepton" / "store").glob("??/*/entry.json"):
            found = inspect(str(file))
            assert isinstance(found, EntryOverview)
            assert found == inspect(str(file.parent))
            if found.label in ("lower", "quantize", "export onnx"):
                assert found.model is not None
                assert found.model.parameters == 176
            else:
                assert found.model is None

    def test_a_damaged_entry(self, tmp_path: Path) -> None:
        (tmp_path / "entry.json").write_text('{"key": 1}')
        with pytest.raises(InputError, match="not a kept result, or is damaged"):
            inspect(str(tmp_path))


class TestCommand:
    def test_onnx(self, tiny_run: Path, cli: Cli) -> None:
        done = cli("inspect", "runs/tiny/artifacts/int8.onnx", cwd=tiny_run)
        assert done.returncode == 0, done.stderr
        for said in ("opset", "176 a sample", "float32[batch, 8]", "DequantizeLinear", "MatMul"):
            assert said in done.stdout

    def test_a_run(self, tiny_run: Path, cli: Cli) -> None:
        done = cli("inspect", "runs/tiny", cwd=tiny_run)
        assert "lower > quantize" in done.stdout
        assert "QuantizeLinear" in done.stdout

    def test_json_without_the_modules_noise(self, tmp_path: Path, cli: Cli) -> None:
        (tmp_path / "net.py").write_text(NET)
        done = cli("inspect", "net.py:Net", "--shape", SHAPE, "--json", cwd=tmp_path)
        assert json.loads(done.stdout)["macs"] == CONV_MACS + HEAD_MACS
        assert done.stderr == ""

    def test_a_kept_result_as_json(self, tiny_run: Path, cli: Cli) -> None:
        entry = next((tiny_run / ".lepton" / "store").glob("??/*/entry.json"))
        found = json.loads(cli("inspect", entry, "--json", cwd=tiny_run).stdout)
        assert found["kind"] == "entry"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["none.onnx"], "no such file"),
            (["data.npz"], "is no model, run or kept result"),
            (["model.pt"], "a checkpoint holds no model; give path.py:factory --weights model.pt"),
            (["."], "holds neither result.json nor entry.json"),
            (["model.onnx", "--shape", SHAPE], "go with a factory"),
            (["recipe.json"], "is not a result"),
        ],
    )
    def test_bad_inputs_are_one_line(
        self, tiny: Path, cli: Cli, arguments: list[str], said: str
    ) -> None:
        shutil.copy(tiny / "data.npz", tiny / "model.pt")
        (tiny / "recipe.json").write_text("{}")
        done = cli("inspect", *arguments, cwd=tiny)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
