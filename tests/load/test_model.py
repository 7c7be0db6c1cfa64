"""Where models come from: what is accepted, under which names, and what is refused and why."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from lepton_compress.artifacts import Dataset, TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from lepton_compress.load.data import make_dataset
from lepton_compress.load.model import external_files, open_model, open_module, read_onnx_file
from lepton_compress.recipe import ModelSpec


def dataset(dtype: str = "float32", names: tuple[str, ...] = ("x",), width: int = 4) -> Dataset:
    draw = np.random.default_rng(0)

    def split(count: int) -> Any:
        arrays = {name: (10 * draw.normal(size=(count, width))).astype(dtype) for name in names}
        return arrays, draw.integers(2, size=count)

    return make_dataset({name: split(6) for name in ("train", "calibration", "evaluation")}, "data")


class Sums(nn.Module):
    """Takes two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": left * self.scale + right, "difference": left - right}


class Embeds(nn.Module):
    """Takes whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.table(ids.abs() % 100).mean(1)
        return made


def gives(function: Callable[..., Any]) -> nn.Module:
    """A module with that forward."""

    class Given(nn.Module):
        forward = staticmethod(function)

    return Given()


class TestInputs:
    def test_are_named_as_forward_names_them_in_its_order(self) -> None:
        origin = open_module(Sums(), dataset(names=("right", "left")), ("sum", "difference"))
        model = origin.build()
        assert [each.name for each in model.inputs] == ["left", "right"]
        assert model.outputs == ("sum", "difference")
        assert model.inputs[0] == TensorSpec("left", "float32", ("batch", 4))

    def test_a_single_one_needs_no_name(self) -> None:
        origin = open_module(gives(lambda image, scale=2.0: image * scale), dataset())
        assert [each.name for each in origin.build().inputs] == ["image"]

    def test_may_be_whole_numbers(self) -> None:
        (spec,) = open_module(Embeds(), dataset("int64")).build().inputs
        assert spec.dtype == "int64"

    @pytest.mark.parametrize(
        ("module", "data", "says"),
        [
            (Sums(), dataset(names=("a", "b")), "takes left, right, but the data has a, b; name"),
            (Sums(), dataset(), "does not accept the data .*right"),
            (gives(lambda *given: given[0]), dataset(), "takes nothing, but the data has x"),
            (nn.Linear(4, 2), dataset("float64"), r"float64\[2, 4\].*; check the shape and dtype"),
            (nn.Linear(5, 2), dataset(), r"does not accept the data .*float32\[2, 4\]"),
            (gives(lambda x: 1 / 0), dataset(), "ZeroDivisionError"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, module: nn.Module, data: Dataset, says: str) -> None:
        with pytest.raises(InputError, match=says):
            open_module(module, data).build()


class TestOutputs:
    @pytest.mark.parametrize(
        ("function", "says"),
        [
            (lambda x: x / 0, "gives NaN or infinity in output on the first calibration samples"),
            (lambda x: x.sum(), r"its output output is \[\] for two samples: .* not the batch"),
            (lambda x: x.T, r"output is \[4, 2\] for two samples"),
            (lambda x: "text", "returns no tensor but str"),
        ],
    )
    def test_that_cannot_be_used_are_refused(
        self, function: Callable[[Any], Any], says: str
    ) -> None:
        with pytest.raises(InputError, match=says):
            open_module(gives(function), dataset()).build()


class TestInMemory:
    def test_the_user_s_module_is_left_as_it_was(self) -> None:
        module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
        before = copy.deepcopy(module.state_dict())
        origin = open_module(module, dataset())
        made = origin.build()
        made.value[0].weight.data.zero_()
        assert module.training
        assert all(each.training for each in module)
        assert not made.value.training
        assert all(torch.equal(before[name], held) for name, held in module.state_dict().items())

    def test_what_is_changed_later_does_not_count(self) -> None:
        module = nn.Linear(4, 2)
        origin = open_module(module, dataset())
        first = forms.fingerprint(origin.build())
        module.weight.data.zero_()
        assert forms.fingerprint(origin.build()) == first

    def test_each_build_is_fresh(self) -> None:
        origin = open_module(nn.Linear(4, 2), dataset())
        origin.build().value.weight.data.zero_()
        assert bool(origin.build().value.weight.any())

    def test_equal_modules_are_known_again_and_others_told_apart(self) -> None:
        def made(seed: int, act: nn.Module) -> str:
            torch.manual_seed(seed)
            return open_module(nn.Sequential(nn.Linear(4, 2), act), dataset()).fingerprint

        assert made(0, nn.ReLU()) == made(0, nn.ReLU())
        assert len({made(0, nn.ReLU()), made(1, nn.ReLU()), made(0, nn.SiLU())}) == 3

    def test_one_that_cannot_be_copied_is_refused(self) -> None:
        module = nn.Linear(4, 2)
        module.cache = module(torch.ones(1, 4))
        with pytest.raises(InputError, match=r"Linear: cannot be copied: RuntimeError.*; detach"):
            open_module(module, dataset())


class TestFactory:
    def test_without_weights_gives_the_same_each_time(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text(
            "from torch import nn\n\ndef make(width=2):\n    return nn.Linear(4, width)\n"
        )
        state = torch.get_rng_state()
        origin = open_model(ModelSpec(factory="own.py:make"), tmp_path, dataset())
        marks = {forms.fingerprint(origin.build()) for _ in range(2)}
        assert len(marks) == 1
        assert torch.equal(torch.get_rng_state(), state)

    def test_fingerprint_covers_code_arguments_and_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "own.py"
        path.write_text(
            "from torch import nn\n\ndef make(width=2):\n    return nn.Linear(4, width)\n"
        )
        torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "w.pt")

        def mark(**changes: Any) -> str:
            values = {"factory": "own.py:make", "weights": "w.pt", **changes}
            return open_model(ModelSpec(**values), tmp_path, dataset()).fingerprint

        marks = [mark(), mark(args={"width": 3}), mark(outputs=["a"]), mark(weights=None)]
        torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "w.pt")
        marks.append(mark())
        path.write_text(path.read_text() + "\n# changed\n")
        marks.append(mark())
        assert len(set(marks)) == len(marks)
        assert mark() == marks[-1]


def saved(path: Path, module: nn.Module, given: tuple[Any, ...], **named: Any) -> Path:
    """An exported program with a dynamic batch."""
    batch = {0: torch.export.Dim("batch")}
    shapes: Any = [torch.utils._pytree.tree_map(lambda _: batch, each) for each in given]
    shapes = (*shapes, *(batch for _ in named))
    made = torch.export.export(module, given, named, dynamic_shapes=shapes)
    torch.export.save(made, path)
    return path


class TestProgram:
    X, Z = torch.ones(3, 4), torch.zeros(3, 4)

    def test_takes_inputs_by_position_or_by_name(self, tmp_path: Path) -> None:
        data = dataset(names=("left", "right"))
        for name, given, named in (
            ("positions", (self.X, self.Z), {}),
            ("mixed", (self.X,), {"right": self.Z}),
        ):
            saved(tmp_path / f"{name}.pt2", Sums(), given, **named)
            spec = ModelSpec(program=f"{name}.pt2", outputs=["sum", "difference"])
            model = open_model(spec, tmp_path, data).build()
            feeds = next(data.evaluation.batches(2))
            made = forms.call(model, feeds)
            assert np.array_equal(made["sum"], feeds["left"] + feeds["right"])
            assert np.array_equal(made["difference"], feeds["left"] - feeds["right"])

    def test_with_a_fixed_batch_is_refused(self, tmp_path: Path) -> None:
        torch.export.save(
            torch.export.export(nn.Linear(4, 2), (torch.ones(1, 4),)), tmp_path / "m.pt2"
        )
        with pytest.raises(InputError, match="does not accept the data"):
            open_model(ModelSpec(program="m.pt2"), tmp_path, dataset()).build()

    def test_with_nested_inputs_is_refused(self, tmp_path: Path) -> None:
        module = gives(lambda pair: pair[0] + pair[1])
        saved(tmp_path / "m.pt2", module, ((self.X, self.Z),))
        data = dataset(names=("pair_0", "pair_1"))
        with pytest.raises(InputError, match=r"m\.pt2: takes its inputs inside a tuple"):
            open_model(ModelSpec(program="m.pt2"), tmp_path, data).build()

    def test_data_with_other_names_is_refused(self, tmp_path: Path) -> None:
        saved(tmp_path / "m.pt2", Sums(), (self.X, self.Z))
        with pytest.raises(InputError, match="the data has the inputs a, b, but the model takes"):
            open_model(ModelSpec(program="m.pt2"), tmp_path, dataset(names=("a", "b"))).build()


def graph(batch: int | str = "batch", **changes: Any) -> onnx.ModelProto:
    """y = 2x."""
    made = helper.make_graph(
        [helper.make_node("Mul", ["x", "f"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(np.full(4, 2, np.float32), "f")],
    )
    options = {"opset_imports": [helper.make_opsetid("", 20)], "ir_version": 10, **changes}
    return helper.make_model(made, **options)


def external(folder: Path, location: str) -> Path:
    """A graph whose tensor lies in another file."""
    held = graph()
    tensor = held.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    data, tensor.raw_data = tensor.raw_data, b""
    tensor.data_location = TensorProto.EXTERNAL
    path = folder / "m.onnx"
    path.write_bytes(held.SerializeToString())
    file = (folder / location).resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return path


class TestOnnx:
    def opened(self, folder: Path, held: onnx.ModelProto, data: Dataset | None = None) -> Any:
        (folder / "m.onnx").write_bytes(held.SerializeToString())
        return open_model(ModelSpec(onnx="m.onnx"), folder, data or dataset()).build()

    def test_keeps_its_names(self, tmp_path: Path) -> None:
        model = self.opened(tmp_path, graph(), dataset(names=("other",)))
        assert (model.form, model.outputs) == ("graph", ("y",))
        assert model.inputs == (TensorSpec("x", "float32", ("batch", 4)),)

    def test_with_a_fixed_batch_is_refused(self, tmp_path: Path) -> None:
        says = r"m\.onnx: the input 'x' has the fixed shape \[1, 4\]; export it with a dynamic"
        with pytest.raises(InputError, match=says):
            self.opened(tmp_path, graph(1))

    def test_newer_than_the_runtime_is_refused_readably(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"m\.onnx: ONNX Runtime cannot .*IR version.* 14"):
            self.opened(tmp_path, graph(ir_version=14))

    def test_a_graph_that_is_not_valid_is_refused(self, tmp_path: Path) -> None:
        held = graph()
        held.graph.node[0].input[1] = "nowhere"
        with pytest.raises(InputError, match=r"m\.onnx: not a valid ONNX model .*nowhere"):
            self.opened(tmp_path, held)

    def test_a_graph_without_operators_is_refused(self, tmp_path: Path) -> None:
        held = graph()
        del held.graph.node[:]
        held.graph.output[0].name = "x"
        with pytest.raises(InputError, match="has no operators; export it again"):
            self.opened(tmp_path, held)

    @pytest.mark.parametrize("location", ["w.bin", "deep/w.bin"])
    def test_data_beside_it_is_read_and_counts(self, tmp_path: Path, location: str) -> None:
        path = external(tmp_path, location)
        assert external_files(path) == [(tmp_path / location).resolve()]
        held = read_onnx_file(path)
        assert np.array_equal(numpy_helper.to_array(held.graph.initializer[0]), np.full(4, 2))
        before = open_model(ModelSpec(onnx="m.onnx"), tmp_path, dataset()).fingerprint
        (tmp_path / location).write_bytes(np.full(4, 3, np.float32).tobytes())
        assert open_model(ModelSpec(onnx="m.onnx"), tmp_path, dataset()).fingerprint != before

    @pytest.mark.parametrize("location", ["../w.bin", "deep/../../w.bin"])
    def test_data_elsewhere_is_refused(self, tmp_path: Path, location: str) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "deep").mkdir()
        path = external(folder, location)
        with pytest.raises(InputError, match=r"keeps the tensor 'f' outside its folder.*; put the"):
            read_onnx_file(path)

    def test_data_behind_a_link_is_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        path = external(folder, "w.bin")
        (folder / "w.bin").rename(tmp_path / "secret")
        (folder / "w.bin").symlink_to(tmp_path / "secret")
        with pytest.raises(InputError, match="outside its folder"):
            read_onnx_file(path)

    def test_missing_data_is_named(self, tmp_path: Path) -> None:
        path = external(tmp_path, "w.bin")
        (tmp_path / "w.bin").unlink()
        with pytest.raises(InputError, match=r"m\.onnx: its external data 'w\.bin' is missing"):
            read_onnx_file(path)
