"""The shapes of a torch module's layers as functions of the widths of its groups.

A forward pass is watched, operator by operator. Every dimension of a layer is a linear function of
the widths: a channel of a group is so many channels of each layer it reaches. So one pass of the
whole net and one of a net in which a single group is narrower give its part of every dimension.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    import numpy as np

    Example = Mapping[str, np.ndarray]

aten = torch.ops.aten
CONVOLUTIONS = ("conv", "depthwise")
"""Kinds of layers."""
_FOLDED = {aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm}
_FOLDED |= {aten._native_batch_norm_legit, aten.batch_norm}
"""What the exporter folds into the layer before it."""
_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_attention_math,
}


@dataclass(frozen=True)
class Shape:
    """Of one layer.

    Attributes:
        kind: "conv", "depthwise", "product", "batched" or the name of a recurrent layer.
        dims: the dimensions that pruning may change: of a convolution its input and output
            channels (of a depthwise one its channels); of a product (inputs, outputs); of a batched
            product (batch, rows, inner, columns); of a recurrent layer (inputs, units).
        fixed: the others, by name.
    """

    kind: str
    dims: tuple[int, ...]
    fixed: tuple[tuple[str, Any], ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        held = dict(self.fixed)
        if self.kind in CONVOLUTIONS:
            inner = math.prod(self.dims) // held["groups"] if self.kind == "conv" else self.dims[0]
            return int(inner * math.prod(held["kernel"]) * held["places"])
        if self.kind == "product":
            return math.prod(self.dims) * int(held["rows"])
        if self.kind == "batched":
            return math.prod(self.dims)
        inputs, units = self.dims
        return held["steps"] * held["directions"] * held["gates"] * units * (inputs + units)  # type: ignore[no-any-return]

    @property
    def weights(self) -> int:
        """Numbers that it multiplies by, which are its own."""
        held = dict(self.fixed)
        if self.kind in CONVOLUTIONS:
            inner = math.prod(self.dims) // held["groups"] if self.kind == "conv" else self.dims[0]
            return int(inner * math.prod(held["kernel"]))
        if self.kind == "batched":
            return 0
        if self.kind == "product":
            return math.prod(self.dims)
        inputs, units = self.dims
        return int(held["directions"] * held["gates"] * units * (inputs + units))


@dataclass
class Seen:
    """What a forward pass did: its layers in order, and the elements that all operators made."""

    layers: list[Shape] = field(default_factory=list)
    elements: int = 0


@dataclass(frozen=True)
class Sizes:
    """The shapes of a net by its groups' widths.

    Attributes:
        whole: the widths of the whole net.
        seen: the whole net.
        change: by group, what one channel more adds to each dimension of each layer, and to the
            elements.
    """

    whole: Mapping[str, int]
    seen: Seen
    change: Mapping[str, tuple[tuple[tuple[float, ...], ...], float]]

    def layers(self, widths: Mapping[str, int]) -> list[Shape]:
        """Every layer of the net that is so wide."""
        less = {name: self.whole[name] - width for name, width in widths.items()}
        less = {name: gone for name, gone in less.items() if gone}
        found = []
        for place, layer in enumerate(self.seen.layers):
            dims = list(layer.dims)
            for name, gone in less.items():
                for at, each in enumerate(self.change[name][0][place]):
                    dims[at] -= round(each * gone)
            found.append(Shape(layer.kind, tuple(max(each, 1) for each in dims), layer.fixed))
        return found

    def elements(self, widths: Mapping[str, int]) -> float:
        """Elements that all operators make in one call."""
        gone = sum(
            self.change[name][1] * (self.whole[name] - width) for name, width in widths.items()
        )
        return max(self.seen.elements - gone, 1.0)

    def macs(self, widths: Mapping[str, int]) -> float:
        """Multiply-accumulates of one call."""
        return float(sum(layer.macs for layer in self.layers(widths)))


def sizes(
    module: nn.Module,
    example: Example,
    widths: Mapping[str, Sequence[int]],
    narrowed: Callable[[str, int], nn.Module],
) -> Sizes:
    """Find the shapes of a net for all widths.

    Args:
        example: one call's inputs.
        widths: by group those that are allowed, the last the whole one.
        narrowed: gives a copy in which one group is so wide.
    """
    whole = watch(module, example)
    change = {}
    for name, each in widths.items():
        if len(each) < 2:
            continue
        seen = watch(narrowed(name, each[-2]), example)
        gone = each[-1] - each[-2]
        if [layer.kind for layer in seen.layers] != [layer.kind for layer in whole.layers]:
            continue  # its forward() does something else; the group is left out of the search
        parts = tuple(
            tuple((a - b) / gone for a, b in zip(was.dims, now.dims, strict=True))
            for was, now in zip(whole.layers, seen.layers, strict=True)
        )
        change[name] = (parts, (whole.elements - seen.elements) / gone)
    return Sizes({name: widths[name][-1] for name in change}, whole, change)


def watch(module: nn.Module, example: Example) -> Seen:
    """Run a module once, and tell what it did."""
    recorder = _Recorder()
    given = {name: torch.from_numpy(array.copy()) for name, array in example.items()}
    hooks = []
    for each in module.modules():
        if isinstance(each, nn.RNNBase):
            hooks.append(each.register_forward_pre_hook(recorder.enter))
            hooks.append(each.register_forward_hook(recorder.leave))
    try:
        with torch.no_grad(), _plain_attention(), recorder:
            module(**given)
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.seen


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Without torch's own fused encoder layers, which nobody could look into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = Seen()
        self.depth = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if self.depth == 0:
            self._see(func, args, made)
        return made

    def enter(self, module: nn.Module, given: Any) -> None:
        """A recurrent layer begins, which is one layer however many operators it is."""
        self.depth += 1

    def leave(self, module: nn.RNNBase, given: Any, made: Any) -> None:
        self.depth -= 1
        first: torch.Tensor = given[0]
        batch, steps = 1, first.shape[0]
        if first.dim() == 3:
            batch, steps = first.shape[1], first.shape[0]
            if module.batch_first:
                batch, steps = steps, batch
        directions = 2 if module.bidirectional else 1
        gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        fixed = (("steps", steps), ("batch", batch), ("directions", directions), ("gates", gates))
        for number in range(module.num_layers):
            inputs = module.input_size if number == 0 else directions * module.hidden_size
            kind = module.mode.partition("_")[0]
            self.seen.layers.append(Shape(kind, (inputs, module.hidden_size), fixed))
        self.seen.elements += made[0].numel()

    def _see(self, func: Any, args: tuple[Any, ...], made: Any) -> None:
        operator = func.overloadpacket
        if operator in _FOLDED or func.is_view:
            return
        tensors = made if isinstance(made, (tuple, list)) else (made,)
        self.seen.elements += sum(
            each.numel() for each in tensors[:1] if isinstance(each, torch.Tensor)
        )
        self.seen.layers += _shapes(operator, args, made)


def _shapes(operator: Any, args: tuple[Any, ...], made: Any) -> list[Shape]:
    """The layers that an operator is."""
    if operator is aten.convolution:
        return [_convolution(args, made)]
    if operator in (aten.addmm, aten.mm, aten.linear):
        left, right = args[1:3] if operator is aten.addmm else args[:2]
        outputs = right.shape[0] if operator is aten.linear else right.shape[1]
        rows = left.numel() // left.shape[-1]
        return [Shape("product", (left.shape[-1], outputs), (("rows", rows),))]
    if operator in (aten.bmm, aten.baddbmm):
        left, right = args[:2] if operator is aten.bmm else args[1:3]
        return [Shape("batched", (*left.shape, right.shape[-1]))]
    if operator in _ATTENTION:
        query, key = args[:2]
        heads, wide = math.prod(query.shape[:-2]), query.shape[-1]
        rows, others = query.shape[-2], key.shape[-2]
        return [
            Shape("batched", (heads, rows, wide, others)),
            Shape("batched", (heads, rows, others, wide)),
        ]
    return []


def _convolution(args: tuple[Any, ...], made: torch.Tensor) -> Shape:
    given, weight = args[:2]
    stride, padding, dilation, transposed, extra, groups = args[3:9]
    depthwise = groups > 1 and groups == given.shape[1] == made.shape[1]
    kernel = tuple(weight.shape[2:])
    places = made if not transposed else given
    fixed = (
        ("kernel", kernel),
        ("stride", tuple(stride)),
        ("padding", tuple(padding)),
        ("dilation", tuple(dilation)),
        ("transposed", bool(transposed)),
        ("extra", tuple(extra)),
        ("groups", 0 if depthwise else groups),
        ("batch", given.shape[0]),
        ("size", tuple(given.shape[2:])),
        ("places", given.shape[0] * math.prod(places.shape[2:])),
    )
    channels = (given.shape[1],) if depthwise else (given.shape[1], made.shape[1])
    return Shape("depthwise" if depthwise else "conv", channels, fixed)
