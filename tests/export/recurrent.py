"""Recurrent networks as graphs over sequences of 12 frames of 8 numbers, for several tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from lepton_compress.artifacts import Model, Split, TensorSpec
from lepton_compress.export.lower import lower
from lepton_compress.load import forms

FRAMES, WIDTH, HIDDEN = 12, 8, 16


class Net(nn.Module):
    """A dense layer, a recurrence, and what `ends` makes of its states."""

    def __init__(self, kind: type[nn.Module], layers: int, ends: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(WIDTH, WIDTH)
        self.causal = nn.Conv1d(WIDTH, WIDTH, 3, dilation=2)
        self.recurrence = kind(WIDTH, HIDDEN, num_layers=layers, batch_first=True)
        self.norm = nn.LayerNorm(HIDDEN)
        self.scores = nn.Linear(HIDDEN, 4)
        self.ends = ends

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.ends(self, x)
        return made


def last(net: Any, x: torch.Tensor) -> Any:
    return net.scores(net.recurrence(torch.relu(net.first(x)))[0][:, -1])


def states(net: Any, x: torch.Tensor) -> Any:
    hidden, cell = net.recurrence(net.first(x))[1]
    return net.scores(hidden[-1] + torch.tanh(cell[-1]))


def every(net: Any, x: torch.Tensor) -> Any:
    return torch.softmax(net.scores(net.norm(net.recurrence(x)[0])), 2)


def average(net: Any, x: torch.Tensor) -> Any:
    return net.scores(net.recurrence(net.first(x))[0].mean(1))


def causal(net: Any, x: torch.Tensor) -> Any:
    mixed = net.causal(functional.pad(x.transpose(1, 2), (4, 0))).transpose(1, 2)
    return net.scores(net.recurrence(torch.relu(mixed))[0][:, -1])


NETS: dict[str, tuple[type[nn.Module], int, Callable[..., Any]]] = {
    "two GRUs, last frame": (nn.GRU, 2, last),
    "two LSTMs, last states": (nn.LSTM, 2, states),
    "GRU, every frame": (nn.GRU, 1, every),
    "LSTM, mean over time": (nn.LSTM, 1, average),
    "causal convolution and GRU": (nn.GRU, 1, causal),
}


@functools.cache
def _lowered(name: str) -> Model:
    net = Net(*NETS[name]).eval()
    spec = TensorSpec("x", "float32", ("batch", FRAMES, WIDTH))
    return lower(Model("module", net, (spec,), ("y",)), Split(sequences(4)))


def network(name: str) -> Model:
    """A trained-like network of `NETS` as a graph."""
    return forms.duplicate(_lowered(name))


def sequences(batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """float32 x (batch, 12, 8)."""
    draw = np.random.default_rng(seed)
    return {"x": draw.normal(size=(batch, FRAMES, WIDTH)).astype(np.float32)}


def written(
    *nodes: onnx.NodeProto,
    output: tuple[int | str, ...] = ("batch", HIDDEN),
    frames: int | str = FRAMES,
    more: tuple[onnx.ValueInfoProto, ...] = (),
    **constants: Any,
) -> Model:
    """A graph from x (batch, 12, 8) to y with these nodes; W, R and B are a GRU's weights."""
    draw = np.random.default_rng(1)
    held = {
        "W": draw.normal(size=(1, 3 * HIDDEN, WIDTH)).astype(np.float32),
        "R": draw.normal(size=(1, 3 * HIDDEN, HIDDEN)).astype(np.float32),
        **{name: np.asarray(values) for name, values in constants.items()},
    }
    value, float32 = helper.make_tensor_value_info, TensorProto.FLOAT
    graph = helper.make_graph(
        list(nodes),
        "written",
        [value("x", float32, ["batch", frames, WIDTH]), *more],
        [value("y", float32, output)],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Model("graph", made, *forms.signature(made))


def gru(given: str = "x", *more: str, gives: str = "states", **attributes: Any) -> list[Any]:
    """Nodes of a GRU over x (batch, time, features); `states` are (batch, time, hidden)."""
    inputs = ["turned", "W", "R", "", *more]
    return [
        helper.make_node("Transpose", [given], ["turned"], "turn", perm=[1, 0, 2]),
        helper.make_node("GRU", inputs, ["all"], "gru", hidden_size=HIDDEN, **attributes),
        helper.make_node("Squeeze", ["all", "one"], ["flat"], "flat"),
        helper.make_node("Transpose", ["flat"], [gives], "back", perm=[1, 0, 2]),
    ]
