"""Layers that torch-pruning cannot trace (recurrent ones, attention), each exchanged in a copy of
the model for dense layers with the same couplings, and what channels of those mean to the original.

A stand-in computes nothing of use: its inputs and outputs only depend on one another as those of
the layer do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lepton_compress.compress.groups import Member

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Recurrent(nn.Module):
    """In place of a recurrent layer: a dense one for each inside, `mix_{layer}_{direction}`."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.depth, self.ways = layer.num_layers, 2 if layer.bidirectional else 1
        self.batch_first, self.cells = layer.batch_first, layer.mode == "LSTM"
        self.hidden_size, self.input_size = layer.hidden_size, layer.input_size
        self.num_layers, self.bidirectional = layer.num_layers, layer.bidirectional
        made = layer.proj_size or layer.hidden_size
        for level in range(self.depth):
            width = self.ways * made if level else layer.input_size
            for way in range(self.ways):
                setattr(self, f"mix_{level}_{way}", nn.Linear(width, made))

    def flatten_parameters(self) -> None:
        """As the recurrent layer's, for those who call it."""

    def forward(self, x: Tensor, states: Any = None) -> tuple[Tensor, Any]:
        time = 1 if self.batch_first and x.dim() == 3 else 0
        ends = []
        for level in range(self.depth):
            made = [getattr(self, f"mix_{level}_{way}")(x) for way in range(self.ways)]
            # As the states are the units' values, so is what they begin with.
            ends += [each.mean(time) for each in made]
            x = torch.cat(made, -1) if self.ways == 2 else made[0]
        last = torch.stack(ends)
        return x, (last, last) if self.cells else last


class Attention(nn.Module):
    """In place of `nn.MultiheadAttention`: dense layers `query`, `key`, `value` and `back`."""

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        width = layer.embed_dim
        self.embed_dim, self.num_heads, self.head_dim = width, layer.num_heads, layer.head_dim
        self.batch_first, self.in_proj_bias = layer.batch_first, None
        self._qkv_same_embed_dim = False  # a transformer's layer then calls it as a module
        self.query, self.back = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(layer.kdim, width), nn.Linear(layer.vdim, width)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, None]:
        others = self.key(key) + self.value(value)
        time = 1 if self.batch_first else 0
        if others.shape != query.shape:  # of another length
            others = others.mean(time, keepdim=True)
        return self.back(self.query(query) + others), None


def exchange(module: nn.Module) -> dict[str, nn.Module]:
    """Put stand-ins into a copy of a model, in place; gives name to the layer that stood there."""
    found: dict[str, nn.Module] = {}
    for name, layer in list(module.named_modules()):
        owner = module.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        if isinstance(layer, nn.RNNBase) and name:
            setattr(owner, leaf, Recurrent(layer))
            found[name] = layer
        elif isinstance(layer, nn.MultiheadAttention) and name:
            setattr(owner, leaf, Attention(layer))
            found[name] = layer
    return found


def refused(layer: nn.Module) -> str:
    """Why such a layer stays whole; "" if it need not."""
    if isinstance(layer, nn.RNNBase):
        return "projects its states (proj_size)" if layer.proj_size else ""
    if isinstance(layer, nn.MultiheadAttention):
        if layer.in_proj_weight is None:
            return "has keys or values of a width of their own (kdim, vdim)"
        if layer.bias_k is not None or layer.add_zero_attn:
            return "attends to more than its inputs (add_bias_kv, add_zero_attn)"
    return ""


Places = tuple[tuple[int, ...], ...]


def translate(name: str, layer: Any, leaf: str, places: Places, *, takes: bool) -> list[Member]:
    """The members of the original that channels of a stand-in's dense layer mean.

    Args:
        name, layer: the original.
        leaf: the dense layer's name within the stand-in.
        places: by channel, places among its outputs (`takes`: its inputs).
    """
    if isinstance(layer, nn.RNNBase):
        return _recurrent(name, layer, leaf, places, takes=takes)
    if leaf == "back":
        weight = Member(f"{name}.out_proj", "weight", int(takes), places, takes)
        biased = layer.out_proj.bias is not None and not takes
        bias = [Member(f"{name}.out_proj", "bias", 0, places)] if biased else []
        return [weight, *bias]
    if takes:
        # One tensor holds all three, which therefore lose the same columns.
        return [Member(name, "in_proj_weight", 1, places, takes)]
    start = ("query", "key", "value").index(leaf) * layer.embed_dim
    rows = tuple(tuple(start + at for at in each) for each in places)
    tensors = ["in_proj_weight"] + ["in_proj_bias"] * (layer.in_proj_bias is not None)
    return [Member(name, tensor, 0, rows) for tensor in tensors]


def _recurrent(
    name: str, layer: nn.RNNBase, leaf: str, places: Places, *, takes: bool
) -> list[Member]:
    """Every gate has a row for each unit, and every gate reads the units back."""
    level, way = leaf.split("_")[1:]
    end = f"l{level}" + ("_reverse" if way == "1" else "")
    if takes:
        return [Member(name, f"weight_ih_{end}", 1, places, takes)]
    gates = next(count for kind, count in GATES.items() if layer.mode.startswith(kind))
    rows = tuple(
        tuple(gate * layer.hidden_size + at for gate in range(gates) for at in each)
        for each in places
    )
    tensors = ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * layer.bias
    made = [Member(name, f"{tensor}_{end}", 0, rows) for tensor in tensors]
    return [*made, Member(name, f"weight_hh_{end}", 1, places, takes=True)]
