"""Removing channels: places leave tensors, and the modules' own numbers follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lepton_compress.compress.groups import Group, removed
from lepton_compress.load.narrow import NarrowAttention

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def cut(module: nn.Module, groups: Sequence[Group], kept: Mapping[str, Sequence[int]]) -> None:
    """Remove every channel that is not kept, in place."""
    modules = dict(module.named_modules())
    touched: dict[str, dict[str, torch.Size]] = {}
    for (name, tensor, axis), places in removed(groups, kept).items():
        layer = modules[name]
        held = getattr(layer, tensor)
        touched.setdefault(name, {}).setdefault(tensor, held.shape)
        stay = torch.tensor([at for at in range(held.shape[axis]) if at not in places])
        with torch.no_grad():
            left = held.detach().index_select(axis, stay).contiguous()
        made = nn.Parameter(left, held.requires_grad) if isinstance(held, nn.Parameter) else left
        setattr(layer, tensor, made)
    for name in touched:
        _renumber(modules[name])
        if name.endswith("out_proj") and name.rpartition(".")[0] in modules:
            _renumber(modules[name.rpartition(".")[0]])
    for group in groups:
        for count in group.counts:
            if len(kept[group.layer]) < group.width:
                setattr(modules[count.layer], count.attribute, count.each * len(kept[group.layer]))


def _renumber(layer: nn.Module) -> None:
    """Bring the attributes of one of torch's layers in line with its tensors."""
    for kinds, follow in _FOLLOW:
        if isinstance(layer, kinds):
            follow(layer)


def _convolution(layer: Any) -> None:
    layer.out_channels = layer.weight.shape[0]
    if layer.groups > 1:  # depthwise: no other grouped convolution is cut
        layer.groups = layer.out_channels
    layer.in_channels = layer.weight.shape[1] * layer.groups


def _transposed(layer: Any) -> None:
    layer.in_channels, layer.out_channels = layer.weight.shape[:2]


def _linear(layer: Any) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _embedding(layer: Any) -> None:
    layer.embedding_dim = layer.weight.shape[1]


def _norm(layer: Any) -> None:
    for tensor in (layer.weight, layer.running_mean):
        if tensor is not None:
            layer.num_features = len(tensor)


def _layer_norm(layer: Any) -> None:
    if layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)


def _prelu(layer: Any) -> None:
    layer.num_parameters = len(layer.weight)


def _recurrent(layer: Any) -> None:
    layer.input_size = layer.weight_ih_l0.shape[1]
    if not layer.proj_size:  # with projections only the input is cut
        layer.hidden_size = layer.weight_hh_l0.shape[1]


def _attention(layer: Any) -> None:
    layer.__class__ = NarrowAttention
    inner, layer.embed_dim = layer.in_proj_weight.shape
    layer.kdim = layer.vdim = layer.embed_dim
    layer.num_heads = inner // 3 // layer.head_dim


_FOLLOW: tuple[tuple[tuple[type[nn.Module], ...], Callable[[Any], None]], ...] = (
    (CONVOLUTIONS, _convolution),
    (TRANSPOSED, _transposed),
    ((nn.Linear,), _linear),
    ((nn.Embedding,), _embedding),
    ((*NORMS, *INSTANCE_NORMS), _norm),
    ((nn.LayerNorm,), _layer_norm),
    ((nn.PReLU,), _prelu),
    ((nn.RNNBase,), _recurrent),
    ((nn.MultiheadAttention,), _attention),
)
