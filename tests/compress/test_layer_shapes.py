"""The shapes that widths make are those of the nets that are so wide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lepton_compress.artifacts import Place
from lepton_compress.compress import channels, latency_table, layer_graphs
from lepton_compress.compress.layer_shapes import Shape, watch
from lepton_compress.compress.narrowing import Narrowing
from tests.compress.modules import CLASSES, PRUNABLE, model_of

X = {"x": np.random.default_rng(1).normal(size=(1, 1, 6, 6)).astype(np.float32)}
HERE = Place("here", "onnxruntime-cpu", 1, 1)


class Recurrent(nn.Module):
    """A GRU over six steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(6, 16, batch_first=True)
        self.scores = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.scores(self.cells(x.squeeze(1))[0][:, -1])
        return made


KINDS: dict[str, Callable[[], nn.Module]] = {**PRUNABLE, "recurrent": Recurrent}


def narrowing(name: str, round_to: int = 4) -> Narrowing:
    """A small net and its groups."""
    model = model_of(KINDS[name])
    example = {"x": np.repeat(X["x"], 2, axis=0)}
    groups, _ = channels.find_groups(model.value, example, set())
    return Narrowing(model, example, groups, round_to)


@pytest.mark.parametrize("name", KINDS)
def test_follow_from_the_widths(name: str) -> None:
    held = narrowing(name)
    sizes = held.sizes(X)
    assert sizes.whole
    draw = np.random.default_rng(0)
    for _ in range(3):
        widths = {each: int(draw.choice(held.options[each])) for each in sizes.whole}
        seen = watch(held.cut(widths).value, X)
        assert sizes.layers(widths) == seen.layers
        assert sizes.elements(widths) == pytest.approx(seen.elements)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("attention", "recurrent")])
def test_multiply_as_often_as_torch_counts(name: str) -> None:
    held = narrowing(name)
    counted = channels.cost(held.model.value, X)["macs"]
    assert held.sizes(X).macs(held.sizes(X).whole) == counted


def _conv(depthwise: bool, transposed: bool = False) -> Shape:
    net = nn.ConvTranspose2d if transposed else nn.Conv2d
    given = net(8, 8, 3, stride=2, padding=1, groups=8 if depthwise else 1)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = given

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.inner(x)
            return made

    (shape,) = watch(Named(), {"x": np.zeros((1, 8, 6, 6), np.float32)}).layers
    return shape


RECURRENT = (("steps", 3), ("batch", 1), ("directions", 2))


@pytest.mark.parametrize(
    ("shape", "made"),
    [
        (_conv(depthwise=False), (1, 8, 3, 3)),
        (_conv(depthwise=True), (1, 8, 3, 3)),
        (_conv(depthwise=False, transposed=True), (1, 8, 11, 11)),
        (Shape("product", (5, 7), (("rows", 3),)), (3, 7)),
        (Shape("batched", (2, 3, 4, 5)), (2, 3, 5)),
        (Shape("GRU", (5, 7), (*RECURRENT, ("gates", 3))), (3, 2, 1, 7)),
        (Shape("LSTM", (5, 7), (*RECURRENT, ("gates", 4))), (3, 2, 1, 7)),
        (Shape("RNN", (5, 7), (*RECURRENT, ("gates", 1))), (3, 2, 1, 7)),
    ],
)
def test_a_layer_alone_runs_in_the_runtime(shape: Shape, made: tuple[int, ...]) -> None:
    import onnxruntime

    graph, feeds = layer_graphs.graph(shape)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert session.run(None, feeds)[0].shape == made


class TestTable:
    def test_is_measured_on_the_target_and_kept_as_it_is(self) -> None:
        held = narrowing("separable")
        sizes = held.sizes(X)
        grids = latency_table.grids(sizes, held.narrowest("global", sizes.whole), 4)
        whole = layer_graphs.graph(Shape("product", (64, 64), (("rows", 8),)))
        table = latency_table.measure(grids, whole, HERE, cap=0.01, seed=0)
        assert table.seconds > 0
        for layer in sizes.seen.layers:
            assert table.time(layer) >= 0
        again = latency_table.Table.from_json(table.as_json())
        assert [again.time(each) for each in sizes.seen.layers] == [
            table.time(each) for each in sizes.seen.layers
        ]

    def test_never_falls_as_layers_grow(self) -> None:
        draw = np.random.default_rng(0)
        noisy = np.add.outer(np.arange(5.0), np.arange(4.0)) + draw.normal(size=(5, 4))
        made = latency_table._rising(noisy)
        assert all((np.diff(made, axis=axis) >= 0).all() for axis in (0, 1))
        assert abs((made - noisy).mean()) < 0.3

    def test_is_linear_between_what_was_measured(self) -> None:
        fixed = (("rows", 1),)
        axes = (latency_table.Axis((4, 8)), latency_table.Axis((2, 4, 8)))
        name = "product 4..8 2..8 rows=1"
        times = np.array([[1.0, 2.0, 4.0], [3.0, 4.0, 8.0]])
        table = latency_table.Table({name: axes}, {name: times}, 1.0)
        assert table.time(Shape("product", (4, 4), fixed)) == 2
        assert table.time(Shape("product", (8, 6), fixed)) == 6
        assert table.time(Shape("product", (6, 2), fixed)) == 2
        assert table.time(Shape("product", (6, 6), fixed)) == 4.5

    def test_a_large_net_has_few_widths_of_each_layer(self) -> None:
        held = narrowing("plain", round_to=1)
        sizes = held.sizes(X)
        grids = latency_table.grids(sizes, held.narrowest("global", sizes.whole), 1)
        count = sum(int(np.prod([len(a.sizes) for a in axes])) for _, axes in grids.values())
        assert 3 * 3 < count <= latency_table.SHAPES
