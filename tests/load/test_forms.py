"""The forms of a model: copied, told apart, run, saved as data and loaded again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from lepton_compress.artifacts import Model, TensorSpec
from lepton_compress.errors import InputError, PluginError
from lepton_compress.load import forms

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
SPEC = (TensorSpec("x", "float32", ("batch", 4)),)


class Net(nn.Module):
    """Two layers, one tied pair, a buffer that is saved and one that is not."""

    kept: torch.Tensor
    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 4)
        self.tied = nn.Linear(4, 6)
        self.tied.weight = self.first.weight
        self.register_buffer("kept", torch.ones(4))
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.slope = 0.5
        self.sizes = (1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x) + self.tied(x)
        made: torch.Tensor = self.second(hidden) * self.slope + self.kept + self.table
        return made


def module() -> Model:
    return Model("module", Net().eval(), SPEC, ("y",))


def graph(factor: float = 2.0) -> Model:
    made = helper.make_graph(
        [helper.make_node("Mul", ["x", "f"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("f", TensorProto.FLOAT, [], [factor])],
    )
    held = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Model("graph", held, *forms.signature(held))


def program() -> Model:
    batch = {"x": {0: torch.export.Dim("batch")}}
    made = torch.export.export(Net().eval(), (torch.from_numpy(X),), dynamic_shapes=batch)
    return Model("program", made, SPEC, ("y",))


MAKERS = {"module": module, "graph": graph, "program": program}

CHANGES: dict[str, Callable[[Any], Any]] = {
    "a weight": lambda net: net.first.weight.data[0, 0].add_(1),
    "a bias": lambda net: net.second.bias.data.neg_(),
    "a buffer": lambda net: net.kept.add_(1),
    "a buffer that is not persistent": lambda net: net.table.add_(1),
    "a number": lambda net: setattr(net, "slope", 0.25),
    "a tuple": lambda net: setattr(net, "sizes", (1, 3)),
    "a type": lambda net: net.second.double(),
}


def narrow(net: Any) -> None:
    """Remove two hidden units."""
    net.first.weight = nn.Parameter(net.first.weight[:4].detach().clone())
    net.tied.weight = net.first.weight
    for layer in (net.first, net.tied):
        layer.bias = nn.Parameter(layer.bias[:4].detach().clone())
        layer.out_features = 4
    net.second.weight = nn.Parameter(net.second.weight[:, :4].detach().clone())
    net.second.in_features = 4


EDITS: dict[str, Callable[[Any], object]] = {**CHANGES, "widths": narrow, "nothing": id}


class TestFingerprint:
    @pytest.mark.parametrize("form", MAKERS)
    def test_of_equals_is_equal(self, form: str) -> None:
        assert forms.fingerprint(MAKERS[form]()) == forms.fingerprint(MAKERS[form]())

    @pytest.mark.parametrize("name", [*CHANGES, "widths"])
    def test_sees_every_change(self, name: str) -> None:
        model = module()
        before = forms.fingerprint(model)
        EDITS[name](model.value)
        assert forms.fingerprint(model) != before

    def test_sees_a_layer_of_another_kind(self) -> None:
        one, other = nn.Sequential(nn.Sigmoid()), nn.Sequential(nn.Tanh())
        made = [forms.fingerprint(Model("module", each, SPEC, ())) for each in (one, other)]
        assert made[0] != made[1]

    def test_of_graphs_tells_them_apart(self) -> None:
        assert forms.fingerprint(graph(2.0)) != forms.fingerprint(graph(3.0))

    def test_running_or_training_mode_is_no_change(self) -> None:
        model = module()
        before = forms.fingerprint(model)
        forms.call(model, {"x": X})
        model.value.train()
        assert forms.fingerprint(model) == before


class TestDuplicate:
    @pytest.mark.parametrize("name", CHANGES)
    def test_of_a_module_is_independent(self, name: str) -> None:
        model = module()
        before = forms.fingerprint(model)
        CHANGES[name](forms.duplicate(model).value)
        assert forms.fingerprint(model) == before

    def test_of_a_graph_is_independent(self) -> None:
        model = graph()
        forms.duplicate(model).value.graph.node[0].op_type = "Add"
        assert model.value.graph.node[0].op_type == "Mul"


class TestCall:
    def test_every_form_gives_the_same(self) -> None:
        wanted = forms.call(module(), {"x": X})
        given = forms.call(program(), {"x": X})
        assert list(wanted) == list(given) == ["y"]
        assert np.allclose(wanted["y"], given["y"], atol=1e-6)
        assert np.array_equal(forms.call(graph(), {"x": X})["y"], X * 2)

    def test_no_gradient_is_kept(self) -> None:
        model = module()
        forms.call(model, {"x": X})
        assert all(each.grad is None for each in model.value.parameters())

    @pytest.mark.parametrize(
        ("returned", "names"),
        [
            (lambda x: x, ["output"]),
            (lambda x: (x, x + 1), ["output_0", "output_1"]),
            (lambda x: [x, (x + 1, x + 2)], ["output_0", "output_1", "output_2"]),
            (lambda x: {"b": x, "a": x + 1}, ["output_0", "output_1"]),
            (lambda x: (x, None, 3), ["output"]),
        ],
    )
    def test_outputs_of_any_structure_get_names(
        self, returned: Callable[[Any], Any], names: list[str]
    ) -> None:
        class Gives(nn.Module):
            def forward(self, x: torch.Tensor) -> Any:
                return returned(x)

        made = forms.call(Model("module", Gives(), SPEC, ()), {"x": X})
        assert list(made) == names
        # In the order in which they are returned.
        assert np.array_equal(next(iter(made.values())), X)

    def test_names_must_be_as_many(self) -> None:
        with pytest.raises(InputError, match="gives 1 outputs, but 2 are named; name 1"):
            forms.call(module().replace(outputs=("a", "b")), {"x": X})

    def test_what_returns_no_tensor_is_refused(self) -> None:
        class Gives(nn.Module):
            def forward(self, x: torch.Tensor) -> Any:
                return 5

        with pytest.raises(InputError, match="returns no tensor but int"):
            forms.call(Model("module", Gives(), SPEC, ()), {"x": X})

    @pytest.mark.parametrize("form", MAKERS)
    def test_data_that_does_not_fit_is_refused(self, form: str) -> None:
        says = {"graph": "ONNX Runtime cannot run it"}.get(
            form, r"does not accept.*x float64\[3, 4\]"
        )
        with pytest.raises(InputError, match=says):
            forms.call(MAKERS[form](), {"x": X.astype(np.float64)})


class TestSaved:
    @pytest.mark.parametrize("name", [*CHANGES, "widths", "nothing"])
    def test_a_module_loads_as_it_was(self, tmp_path: Path, name: str) -> None:
        changed = module()
        EDITS[name](changed.value)
        forms.save(changed, module(), tmp_path)
        loaded = forms.load(tmp_path, module)
        assert forms.fingerprint(loaded) == forms.fingerprint(changed)
        if name != "a type":
            given = forms.call(loaded, {"x": X})["y"]
            assert np.array_equal(given, forms.call(changed, {"x": X})["y"])

    @pytest.mark.parametrize("name", ["a weight", "widths"])
    def test_tied_weights_stay_tied(self, tmp_path: Path, name: str) -> None:
        changed = module()
        EDITS[name](changed.value)
        forms.save(changed, module(), tmp_path)
        loaded = forms.load(tmp_path, module).value
        assert loaded.tied.weight is loaded.first.weight

    def test_a_graph_loads_as_it_was(self, tmp_path: Path) -> None:
        forms.save(graph(), graph(), tmp_path)
        loaded = forms.load(tmp_path, graph)
        assert loaded == graph()

    def test_nothing_is_pickled(self, tmp_path: Path) -> None:
        changed = module()
        narrow(changed.value)
        forms.save(changed, module(), tmp_path)
        assert {each.suffix for each in tmp_path.iterdir()} == {".json", ".safetensors"}
        held = json.loads((tmp_path / "structure.json").read_text())
        assert held["first"] == {"out_features": 4}

    @pytest.mark.parametrize(
        "change",
        [
            lambda net: setattr(net, "second", nn.Conv1d(6, 4, 1)),
            lambda net: setattr(net, "third", nn.ReLU()),
            lambda net: delattr(net, "tied"),
            lambda net: net.register_buffer("more", torch.ones(1)),
            lambda net: setattr(net.second, "bias", None),
        ],
    )
    def test_other_layers_cannot_be_told_as_a_difference(
        self, tmp_path: Path, change: Callable[[Any], Any]
    ) -> None:
        changed = module()
        change(changed.value)
        with pytest.raises(PluginError, match="exchanged, added or removed"):
            forms.save(changed, module(), tmp_path)

    def test_another_process_computes_the_same(self, tmp_path: Path) -> None:
        source = (
            "import torch\nfrom torch import nn\n"
            "class Net(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.a = nn.Linear(4, 8)\n"
            "        self.b = nn.Linear(8, 2)\n"
            "    def forward(self, x):\n"
            "        return self.b(self.a(x).relu())\n"
        )
        (tmp_path / "own.py").write_text(source)
        held: dict[str, Any] = {"__name__": "own"}
        exec(source, held)
        original = Model("module", held["Net"]().eval(), SPEC, ("y",))
        changed = forms.duplicate(original)
        net = changed.value
        net.a.weight, net.a.bias = (
            nn.Parameter(p[:5].detach()) for p in (net.a.weight, net.a.bias)
        )
        net.b.weight = nn.Parameter(net.b.weight[:, :5].detach())
        net.a.out_features = net.b.in_features = 5
        forms.save(changed, original, tmp_path)
        np.save(tmp_path / "x.npy", X)
        code = (
            "import own, numpy as np; from pathlib import Path\n"
            "from lepton_compress.artifacts import Model, TensorSpec\n"
            "from lepton_compress.load import forms\n"
            "make = lambda: Model('module', own.Net(), (), ('y',))\n"
            "np.save('y.npy', forms.call(forms.load(Path(), make), {'x': np.load('x.npy')})['y'])"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
        assert np.array_equal(np.load(tmp_path / "y.npy"), forms.call(changed, {"x": X})["y"])


class TestSignature:
    def test_initialisers_are_no_inputs(self) -> None:
        held = graph().value
        held.graph.input.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, []))
        inputs, outputs = forms.signature(held)
        assert [each.name for each in inputs] == ["x"]
        assert outputs == ("y",)

    def test_dimensions_without_a_name_are_shown(self) -> None:
        value = helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", None, 3])
        assert forms.spec(value) == TensorSpec("x", "int64", ("batch", "?", 3))
