"""Whether a group means what it says: tried on copies of the model before it is trusted.

Without a channel the model must compute exactly what it computes when nothing reads that channel.
The two are compared in double precision, so that a place counted wrongly is seen however small its
weight; a tracer that took a concatenation, a padded shortcut or a split into heads for something
else is found out here, not by a wrong answer later.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.compress.cutting import cut
from lepton_compress.compress.groups import Count, Group, removed
from lepton_compress.compress.tracing import tensors
from lepton_compress.load.forms import flatten

if TYPE_CHECKING:
    import numpy as np

    Example = Mapping[str, np.ndarray]

ANSWER = "its channels are the model's answer"
_MIXED = "the model computes something else without it: its channels are mixed on their way"
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}
_MOST_COUNTS = 6


class Trial:
    """A model to try groups on.

    Args:
        module: is not changed.
        example: a batch, inputs by name.
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        self.given = tensors(example)
        self.module = copy.deepcopy(module)
        self.precision = torch.float32
        precise = copy.deepcopy(module).double()
        doubled = {name: _doubled(each) for name, each in self.given.items()}
        try:
            self.wanted = _outputs(precise, doubled)
            self.module, self.given, self.precision = precise, doubled, torch.float64
        except Exception:  # its forward() makes tensors of single precision
            self.wanted = _outputs(self.module, self.given)

    def faults(self, groups: Sequence[Group]) -> dict[str, str]:
        """Layer to why its group cannot be pruned, for those that cannot.

        Most can, so halves are tried together: a few trials instead of some for each group.
        """

        def search(some: Sequence[Group]) -> dict[str, str]:
            why = self.fault(some) if some else ""
            if not why:
                return {}
            if len(some) == 1:
                return {some[0].layer: why}
            middle = len(some) // 2
            found = search(some[:middle]) | search(some[middle:])
            # Each half runs alone, but not both together: one of them must stay whole.
            return found or {group.layer: why for group in some[middle:]}

        return search(groups)

    def fault(self, groups: Sequence[Group]) -> str:
        """Why channels of these groups cannot be removed together; "" if they can."""
        for kept in (_without_some(groups), _with_one(groups)):
            why = self._fault(groups, kept)
            if why:
                return why
        return ""

    def counted(self, group: Group) -> Group | None:
        """The group with the attributes that must follow its width, by the fewest that make it
        sound; None if no choice of them does."""
        known = _numbers(self.module, group)[:_MOST_COUNTS]
        for many in range(1, len(known) + 1):
            for some in itertools.combinations(known, many):
                trial = Group(**{**vars(group), "counts": some})
                if not self.fault([trial]):
                    return trial
        return None

    def _fault(self, groups: Sequence[Group], kept: Mapping[str, Sequence[int]]) -> str:
        smaller = copy.deepcopy(self.module)
        try:
            cut(smaller, groups, kept)
            given = _outputs(smaller, self.given)
        except Exception as error:  # whatever the user's forward() raises on other widths
            lines = str(error).splitlines() or [type(error).__name__]
            return f"the model does not run without one of its channels ({lines[0]})"
        if [each.shape for each in given] != [each.shape for each in self.wanted]:
            return ANSWER
        unread = copy.deepcopy(self.module)
        _unread(unread, groups, kept)
        for ours, theirs in zip(given, _outputs(unread, self.given), strict=True):
            if not _same(ours, theirs, _TOLERANCE[self.precision]):
                return _MIXED
        return ""


def _unread(module: nn.Module, groups: Sequence[Group], kept: Mapping[str, Sequence[int]]) -> None:
    """Let no weight read the channels that are not kept, in place."""
    modules = dict(module.named_modules())
    takes = {(m.layer, m.tensor, m.axis) for g in groups for m in g.members() if m.takes}
    with torch.no_grad():
        for (name, tensor, axis), places in removed(groups, kept).items():
            layer = modules[name]
            if (name, tensor, axis) in takes:
                getattr(layer, tensor).index_fill_(axis, torch.tensor(sorted(places)), 0.0)
            elif isinstance(layer, nn.LayerNorm) and tensor == "weight":
                stay = [at for at in range(len(layer.weight)) if at not in places]
                layer.register_forward_hook(_normalised(layer, stay))


def _normalised(layer: nn.LayerNorm, stay: list[int]) -> Callable[..., Tensor]:
    """Layer normalisation over the channels that stay alone, which is what is left of it."""
    at = torch.tensor(stay)

    def hook(_: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> Tensor:
        x = given[0]
        weight = layer.weight[at]
        bias = None if layer.bias is None else layer.bias[at]
        made = functional.layer_norm(x[..., at], (len(stay),), weight, bias, layer.eps)
        return torch.zeros_like(x).index_copy(-1, at, made)

    return hook


def _without_some(groups: Sequence[Group]) -> dict[str, list[int]]:
    """Every group without the first and about a third of its channels, unevenly spread."""
    kept = {}
    for index, group in enumerate(groups):
        # Each loses others, so that those that must lose the same are told apart.
        gone = {(at + index) % group.width for at in range(group.width) if at % 5 in (0, 3)}
        left = [at for at in range(group.width) if at not in gone]
        kept[group.layer] = left[: len(left) - index % 2] or [0]
    return kept


def _with_one(groups: Sequence[Group]) -> dict[str, list[int]]:
    return {group.layer: [group.width - 1] for group in groups}


def _numbers(module: nn.Module, group: Group) -> list[Count]:
    """Whole numbers of the user's own modules around a group that may be its width."""
    around: set[str] = set()
    for member in group.members():
        pieces = member.layer.split(".")
        around |= {".".join(pieces[:end]) for end in range(len(pieces) + 1)}
    modules = dict(module.named_modules())
    return [
        Count(name, attribute, value // group.width)
        for name in sorted(around, key=lambda each: (-len(each), each))
        if not type(modules[name]).__module__.startswith("torch.nn")
        for attribute, value in sorted(vars(modules[name]).items())
        if type(value) is int and value > 0 and value % group.width == 0
        if not attribute.startswith("_")
    ]


def _outputs(module: nn.Module, given: Mapping[str, Tensor]) -> list[Tensor]:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        return [each.detach() for each in flatten(module(**given))]


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _same(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    if not ours.is_floating_point():
        return torch.equal(ours, theirs)
    scale = float(theirs.abs().max()) if theirs.numel() else 0.0
    return bool(torch.allclose(ours, theirs, rtol=0, atol=tolerance * max(scale, 1e-30)))
