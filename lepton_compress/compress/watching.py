"""What layers of a module give while it computes: surveyed once, then watched by hooks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.artifacts import Model
from lepton_compress.load.forms import flatten

_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
"""Layers whose channels are the last axis."""
_CONVOLVES = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FUSED = re.compile(r"qkv|in_proj|c_attn|qkv_proj|to_qkv")
"""Names of layers that give queries, keys and values side by side."""


@dataclass(frozen=True)
class Seen:
    """A layer as one batch showed it.

    Attributes:
        kind: "map" of channels at each place, "sequence" of channels at each position, or "vector"
            of channels alone.
        positions: shape without batch and channels.
        width: channels.
        depth: of all layers that were called, how far in the order of their calls, from 0 to 1.
        owns: whether it has parameters of its own, and is no answer of the module.
        channels: the axis of channels.
        swapped: whether the batch is the second axis.
        parts: 3 of a layer that gives queries, keys and values, else 1.
    """

    kind: Literal["map", "sequence", "vector"]
    positions: tuple[int, ...]
    width: int
    depth: float
    owns: bool
    channels: int
    swapped: bool
    parts: int


class Watch:
    """Keeps what named layers give in the module's latest call."""

    def __init__(self, module: nn.Module, layers: Mapping[str, Seen]) -> None:
        self._module = module
        self._layers = layers
        self._kept: dict[str, Any] = {}
        self._hooks: list[Any] = []

    def start(self) -> None:
        """Begin; hooks are part of the module until `stop`."""
        modules = dict(self._module.named_modules())
        self._hooks = [_hooked(modules[name], name, self._kept) for name in self._layers]

    def stop(self) -> None:
        """Take the hooks off, and forget what was seen."""
        for each in self._hooks:
            each.remove()
        self._hooks = []
        self._kept.clear()

    def given(self, name: str) -> list[Tensor]:
        """What a layer gave, each (batch, positions, channels): queries, keys and values of one
        that has them, else one tensor."""
        about = self._layers[name]
        made = []
        for each in self._kept[name]:
            held = each.transpose(0, 1) if about.swapped else each
            made.append(held.movedim(about.channels, -1))
        return [*made[0].chunk(3, -1)] if about.parts == 3 and len(made) == 1 else made


def fed(model: Model, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch by the names of a model's inputs; a single input may have any."""
    names = [spec.name for spec in model.inputs]
    return dict(zip(names, batch.values(), strict=True)) if len(names) == 1 else dict(batch)


def survey(model: Model, example: Mapping[str, Tensor]) -> dict[str, Seen]:
    """The layers of a module by name, in the order of their calls, of those that give float tensors
    of a batch."""
    kept: dict[str, Any] = {}
    named = {name: each for name, each in model.value.named_modules() if name}
    hooks = [_hooked(each, name, kept) for name, each in named.items()]
    try:
        with torch.no_grad():
            answers = [each.data_ptr() for each in flatten(model.value(**fed(model, example)))]
    finally:
        for each in hooks:
            each.remove()
    count = len(next(iter(example.values())))
    found = {}
    for index, (name, tensors) in enumerate(kept.items()):
        about = _seen(named[name], name, tensors, count, index / max(1, len(kept) - 1))
        if about is not None:
            answer = any(each.data_ptr() in answers for each in tensors)
            owns = next(named[name].parameters(recurse=False), None) is not None
            found[name] = Seen(**{**vars(about), "owns": owns and not answer})
    return found


def _seen(module: nn.Module, name: str, tensors: list[Tensor], count: int, depth: float) -> Any:
    given = tensors[0]
    swapped = getattr(module, "batch_first", True) is False
    shape = list(given.shape)
    if swapped and given.ndim > 1:
        shape[:2] = shape[1::-1]
    if not given.is_floating_point() or given.ndim < 2 or shape[0] != count:
        return None
    last = isinstance(module, _LAST) or (
        given.ndim == 3 and not any(isinstance(each, _CONVOLVES) for each in module.modules())
    )
    channels = len(shape) - 1 if last or given.ndim == 2 else 1
    width = shape.pop(channels)
    parts = 3 if len(tensors) == 3 else 1
    if isinstance(module, nn.Linear) and _FUSED.fullmatch(name.rpartition(".")[2]):
        parts, width = 3, width // 3
    kind = "vector" if given.ndim == 2 else "sequence" if last and given.ndim == 3 else "map"
    return Seen(kind, tuple(shape[1:]), width, depth, False, channels, swapped, parts)  # type: ignore[arg-type]


def _hooked(module: nn.Module, name: str, kept: dict[str, Any]) -> Any:
    """Put a hook on a layer that keeps what it gives; of attention, what it makes of its inputs."""
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:

        def project(layer: Any, args: Any, kwargs: Any) -> None:
            kept.pop(name, None)
            given = [*args, *(kwargs[key] for key in ("query", "key", "value") if key in kwargs)]
            weights = layer.in_proj_weight.chunk(3)
            biases = layer.in_proj_bias.chunk(3) if layer.in_proj_bias is not None else [None] * 3
            kept[name] = [
                functional.linear(*each) for each in zip(given[:3], weights, biases, strict=True)
            ]

        return module.register_forward_pre_hook(project, with_kwargs=True)

    def keep(_: nn.Module, __: Any, returned: Any) -> None:
        kept.pop(name, None)  # so that a layer stands where it was called last
        tensors = [returned] if isinstance(returned, Tensor) else []
        if isinstance(returned, (tuple, list)) and returned and isinstance(returned[0], Tensor):
            tensors = [returned[0]]
        if tensors:
            kept[name] = tensors

    return module.register_forward_hook(keep)
