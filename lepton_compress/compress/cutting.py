"""Removing channels: places leave tensors, and the modules' own numbers follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    if isinstance(layer, CONVOLUTIONS):
        layer.out_channels = layer.weight.shape[0]
        if layer.groups > 1:  # depthwise: no other grouped convolution is cut
            layer.groups = layer.out_channels
        layer.in_channels = layer.weight.shape[1] * layer.groups
    elif isinstance(layer, TRANSPOSED):
        layer.in_channels, layer.out_channels = layer.weight.shape[:2]
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = layer.weight.shape[1]
    elif isinstance(layer, (*NORMS, *INSTANCE_NORMS)):
        for tensor in (layer.weight, layer.running_mean):
            if tensor is not None:
                layer.num_features = len(tensor)
    elif isinstance(layer, nn.LayerNorm):
        if layer.weight is not None:
            layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, nn.RNNBase):
        layer.input_size = _tensor(layer.weight_ih_l0).shape[1]
        layer.hidden_size = _tensor(layer.weight_hh_l0).shape[1]
    elif isinstance(layer, nn.MultiheadAttention):
        layer.__class__ = NarrowAttention
        inner, layer.embed_dim = layer.in_proj_weight.shape
        layer.kdim = layer.vdim = layer.embed_dim
        layer.num_heads = inner // 3 // layer.head_dim


def _tensor(held: Any) -> torch.Tensor:
    return torch.as_tensor(held)
