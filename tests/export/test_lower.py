"""From torch to ONNX: every kind of model with a dynamic batch, and twice the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lepton_compress.artifacts import Model, Split, TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.export.lower import clean, lower
from lepton_compress.load import forms
from lepton_compress.verify import LIMIT, difference

Feeds = dict[str, NDArray[Any]]


class Image(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(4, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.last(torch.relu(self.norm(self.first(image))).mean((2, 3)))
        return made


class Pair(nn.Module):
    """Two inputs, of two types; two outputs in a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)
        self.mix = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor, side: torch.Tensor) -> dict[str, torch.Tensor]:
        mixed = self.mix(torch.cat([self.table(ids).mean(1), side], 1))
        return {"scores": mixed, "label": mixed.argmax(1)}


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return [self.mix(x), (x * 2, None)]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.layer = kind(4, 6, batch_first=True)
        self.last = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.layer(x)
        made: torch.Tensor = self.last(states[:, -1])
        return made


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(x).mean(1)
        return made


class Bakes(nn.Module):
    """Works for a batch of two alone, that of the example."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 4) * 2


class Counts(nn.Module):
    """Reads the number of samples while it is traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([row * 2 for row in x])


class Branches(nn.Module):
    """Goes another way for other numbers, which no graph can."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if bool(x.sum() > 0) else x


def draw(seed: int = 0, **shapes: tuple[Any, ...]) -> Callable[[int], Feeds]:
    """Makes a batch of a size: name to shape of a sample, and integers up to a number if given."""

    def feeds(count: int) -> Feeds:
        rng = np.random.default_rng(seed + count)
        made = {}
        for name, (shape, high) in shapes.items():
            size = (count, *shape)
            made[name] = (
                rng.integers(high, size=size) if high else rng.normal(size=size).astype("float32")
            )
        return made

    return feeds


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Feeds], tuple[str, ...]]] = {
    "convolutions": (Image, draw(image=((3, 6, 6), 0)), ("scores",)),
    "two inputs, two outputs": (
        Pair,
        draw(ids=((5,), 50), side=((4,), 0)),
        ("scores", "label"),
    ),
    "nested outputs": (Nested, draw(x=((4,), 0)), ("output_0", "output_1")),
    "GRU": (lambda: Recurrent(nn.GRU), draw(x=((5, 4), 0)), ("y",)),
    "LSTM": (lambda: Recurrent(nn.LSTM), draw(x=((5, 4), 0)), ("y",)),
    "attention": (Attends, draw(x=((5, 8), 0)), ("y",)),
}


def prepared(name: str) -> tuple[Model, Callable[[int], Feeds]]:
    make, feeds, outputs = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make().eval()
    specs = forms.input_specs(feeds(2), list(feeds(2)))
    return Model("module", module, specs, outputs), feeds


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_computes_the_same_at_any_batch(name: str) -> None:
    model, feeds = prepared(name)
    before = forms.fingerprint(model)
    graph = lower(model, Split(feeds(4)))
    assert graph.form == "graph"
    assert [each.name for each in graph.inputs] == list(feeds(1))
    assert all(each.shape[0] == "batch" for each in graph.inputs)
    assert graph.outputs == model.outputs
    for count in (1, 2, 7):
        wanted, given = forms.call(model, feeds(count)), forms.call(graph, feeds(count))
        assert difference(wanted, given) < LIMIT
    assert forms.fingerprint(model) == before


@pytest.mark.parametrize("name", ["convolutions", "GRU", "two inputs, two outputs"])
def test_twice_gives_the_same_bytes(name: str) -> None:
    made = []
    for _ in range(2):
        model, feeds = prepared(name)
        graph = lower(model, Split(feeds(4)))
        made.append(graph.value.SerializeToString(deterministic=True))
    assert made[0] == made[1]


def test_a_program_lowers_like_its_module() -> None:
    model, feeds = prepared("convolutions")
    given = {name: torch.from_numpy(array) for name, array in feeds(3).items()}
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(
        model.value, (), given, dynamic_shapes=dict.fromkeys(given, batch)
    )
    graph = lower(Model("program", program, model.inputs, model.outputs), Split(feeds(4)))
    wanted, got = forms.call(model, feeds(7)), forms.call(graph, feeds(7))
    assert difference(wanted, got) < LIMIT


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (Bakes, r"works for a batch of 2 alone; let forward\(\) take"),
        (Counts, "works for a batch of 2 alone"),
        (Branches, r"torch\.onnx cannot export it: .*; replace the construct"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(module: type[nn.Module], says: str) -> None:
    spec = TensorSpec("x", "float32", ("batch", 4))
    model = Model("module", module(), (spec,), ("y",))
    with pytest.raises(InputError, match=says):
        lower(model, Split({"x": np.ones((4, 4), np.float32)}))


class TestClean:
    @pytest.fixture(scope="class")
    @staticmethod
    def graph() -> onnx.ModelProto:
        model, feeds = prepared("convolutions")
        held: onnx.ModelProto = lower(model, Split(feeds(4))).value
        return held

    def test_nothing_tells_where_it_was_made(self, graph: onnx.ModelProto) -> None:
        held = graph.SerializeToString()
        for trace in (str(Path.cwd()), __file__, "site-packages", "pkg.torch", "stack_trace"):
            assert trace.encode() not in held
        assert graph.producer_name == "lepton-compress"

    def test_nodes_are_named_by_their_layer(self, graph: onnx.ModelProto) -> None:
        names = [node.name for node in graph.graph.node]
        assert "last/Gemm" in names
        assert any(name.endswith("/Conv") for name in names)
        assert len(set(names)) == len(names)

    def test_batch_normalisation_is_folded(self, graph: onnx.ModelProto) -> None:
        kinds = {node.op_type for node in graph.graph.node}
        assert "BatchNormalization" not in kinds
        assert not kinds & {"Identity", "Constant"}

    def test_twice_changes_nothing_more(self, graph: onnx.ModelProto) -> None:
        again = clean(graph)
        assert again.SerializeToString(deterministic=True) == graph.SerializeToString(
            deterministic=True
        )

    def test_leaves_what_it_was_given_alone(self, graph: onnx.ModelProto) -> None:
        before = graph.SerializeToString(deterministic=True)
        clean(graph)
        assert graph.SerializeToString(deterministic=True) == before
