"""From a module to candidates for pruning: torch-pruning's dependency graph, with stand-ins for the
layers that it cannot trace, translated into groups of places in tensors."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning
from torch import nn

from lepton_compress.compress import cutting, stand_ins
from lepton_compress.compress.groups import Group, Member, Part
from lepton_compress.errors import InputError
from lepton_compress.load.forms import flatten

if TYPE_CHECKING:
    import numpy as np

    Example = Mapping[str, np.ndarray]

_ROOTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding)
_OWN = Path(torch.__file__).parent, Path(torch_pruning.__file__).parent, Path(__file__).parent


class UnfitError(Exception):
    """A group cannot be written as places in tensors; says why."""


@dataclass(frozen=True)
class Candidate:
    """A group that has not been tried, or why there is none (`fault`).

    `layers` are all that belong to it, those that only read its channels included.
    """

    group: Group
    layers: frozenset[str]
    fault: str = ""


def tensors(example: Example) -> dict[str, torch.Tensor]:
    """A batch as a model's forward() takes it."""
    return {name: torch.from_numpy(array.copy()) for name, array in example.items()}


def candidates(module: nn.Module, example: Example) -> list[Candidate]:
    """Every group of coupled channels and hidden units that the graph shows.

    Raises:
        InputError: the model cannot be traced; names the operator or the line.
    """
    scratch = copy.deepcopy(module).requires_grad_(True)
    originals = stand_ins.exchange(scratch)
    graph = _traced(scratch, example)
    view = _View(module, scratch, originals, graph)
    found = [
        view.candidate(group)
        for group in graph.get_all_groups(root_module_types=list(_ROOTS), ignored_layers=[])
    ]
    return _tied(found, module, originals)


def _tied(
    found: list[Candidate], module: nn.Module, originals: Mapping[str, nn.Module]
) -> list[Candidate]:
    """The same, with those joined that a recurrent layer makes equally wide."""
    sets: list[tuple[set[str], list[Candidate]]] = []
    for each in found:
        held = _recurrent_makers(each, originals)
        together = [other for other in sets if other[0] & held]
        apart = [other for other in sets if not other[0] & held]
        names = held.union(*(other[0] for other in together))
        # In the order of the first of each, so that the result does not depend on the joining.
        sets = [*apart, (names, [*(c for other in together for c in other[1]), each])]
    return [_joined(names, members) for names, members in sets]


def _recurrent_makers(candidate: Candidate, originals: Mapping[str, nn.Module]) -> set[str]:
    return {
        member.layer
        for member in candidate.group.members()
        if not member.takes and isinstance(originals.get(member.layer), nn.RNNBase)
    }


def _joined(names: set[str], members: list[Candidate]) -> Candidate:
    """One group of parts."""
    first = members[0]
    if not names:
        return first
    layer = sorted(names)[0]
    widths = {each.group.width for each in members}
    fault = next((each.fault for each in members if each.fault), "")
    if len(widths) > 1:
        fault = fault or "its directions are coupled with a layer of another width"
    group = Group(
        layer,
        first.group.width,
        kind="units",
        parts=tuple(part for each in members for part in each.group.parts),
    )
    return Candidate(group, frozenset[str]().union(*(each.layers for each in members)), fault)


class _View:
    """A traced copy, read in the names of the original."""

    def __init__(
        self,
        module: nn.Module,
        scratch: nn.Module,
        originals: Mapping[str, nn.Module],
        graph: Any,
    ) -> None:
        self.graph, self.originals = graph, originals
        self.modules = dict(module.named_modules())
        self.names: dict[Any, str] = {each: name for name, each in scratch.named_modules()}
        self.parameters = {id(each): name for name, each in scratch.named_parameters()}
        self.shared = _shared(module)

    def candidate(self, group: Any) -> Candidate:
        """What torch-pruning's group means."""
        root = group[0].dep.target.module
        width = self.graph.get_out_channels(root)
        layers = {self._owner(item.dep.target.module) for item in group.items} - {None}
        layer = self._maker(root)
        members: list[Member] = []
        fault = ""
        for item in group.items:
            try:
                members += self._members(item, width)
            except UnfitError as error:
                fault = fault or str(error)
        unique = list(dict.fromkeys(members))
        made = Group(layer, width, parts=(Part(tuple(unique), tuple(range(width))),))
        return Candidate(made, frozenset(str(each) for each in layers), fault)

    def _owner(self, target: Any) -> str | None:
        """The original's layer that a layer of the copy stands for."""
        if isinstance(target, nn.Parameter):
            return self.parameters.get(id(target), "").rpartition(".")[0]
        name = self.names.get(target)
        if name is None:
            return None
        outer = name.rpartition(".")[0]
        return outer if outer in self.originals else name

    def _maker(self, root: nn.Module) -> str:
        """The layer of the original that makes a root's channels."""
        name = self.names[root]
        outer, _, leaf = name.rpartition(".")
        if outer not in self.originals:
            return name
        return f"{outer}.out_proj" if leaf == "back" else outer

    def _members(self, item: Any, width: int) -> list[Member]:
        target = item.dep.target.module
        if isinstance(target, nn.Parameter):
            return self._free(target, item, width)
        name = self.names.get(target)
        if name is None:
            return []  # an operator, which has no weights
        takes = bool(self.graph.is_in_channel_pruning_fn(item.dep.pruning_fn))
        takes = takes and not self.graph.is_out_channel_pruning_fn(item.dep.pruning_fn)
        places = _places(item, width)
        outer, _, leaf = name.rpartition(".")
        if outer in self.originals:
            layer = self.originals[outer]
            why = stand_ins.refused(layer)
            if why and not (takes and isinstance(layer, nn.RNNBase)):
                raise UnfitError(f"{outer} {why}")
            return stand_ins.translate(outer, layer, leaf, places, takes=takes)
        return self._of(name, self.modules[name], places, takes=takes)

    def _of(self, name: str, layer: Any, places: stand_ins.Places, *, takes: bool) -> list[Member]:
        """Members of one of torch's layers."""
        if isinstance(layer, (*cutting.CONVOLUTIONS, *cutting.TRANSPOSED)) and layer.groups > 1:
            depthwise = layer.groups == layer.in_channels == layer.out_channels
            if not depthwise or isinstance(layer, cutting.TRANSPOSED):
                raise UnfitError(f"{name} is a convolution in groups")
            takes = False
        axes = _axes(name, layer, takes=takes)
        held = [each for each in axes if getattr(layer, each, None) is not None]
        for each in held:
            self._check(name, layer, each, axes[each], places)
        return [Member(name, each, axes[each], places, takes) for each in held]

    def _check(
        self, name: str, layer: Any, tensor: str, axis: int, places: stand_ins.Places
    ) -> None:
        if tensor not in layer._parameters and tensor not in layer._buffers:
            raise UnfitError(f"{name} computes its {tensor} (a parametrization)")
        names = self.shared.get(id(getattr(layer, tensor)), [])
        others = [each.rpartition(".")[0] for each in names if each != f"{name}.{tensor}"]
        if others:
            raise UnfitError(f"the {tensor} of {name} is shared with {others[0]}")
        last = max((at for each in places for at in each), default=-1)
        if last >= getattr(layer, tensor).shape[axis]:
            # Where a forward() pads or cuts channels itself, the tracer loses count of them.
            raise UnfitError("a shortcut without weights changes the number of channels")

    def _free(self, target: nn.Parameter, item: Any, width: int) -> list[Member]:
        """A parameter that is no layer's: positions, say."""
        name = self.parameters.get(id(target))
        if name is None:
            raise UnfitError("a parameter of it is made while it runs")
        owner, _, leaf = name.rpartition(".")
        places = _places(item, width)
        held = getattr(self.modules[owner], leaf)
        axis = self.graph.module2node[target].pruning_dim
        if held.shape[axis] < 1 + max((at for each in places for at in each), default=-1):
            raise UnfitError(f"the parameter {name} has fewer channels")
        return [Member(owner, leaf, axis, places)]


def _axes(name: str, layer: Any, *, takes: bool) -> dict[str, int]:
    """Tensors of a layer to the axis along which they have a place for each channel."""
    if isinstance(layer, cutting.TRANSPOSED):
        return {"weight": 0} if takes else {"weight": 1, "bias": 0}
    if isinstance(layer, (*cutting.CONVOLUTIONS, nn.Linear)):
        return {"weight": 1} if takes else {"weight": 0, "bias": 0}
    if isinstance(layer, nn.Embedding):
        return {"weight": 1}
    if isinstance(layer, (*cutting.NORMS, *cutting.INSTANCE_NORMS)):
        return {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}
    if isinstance(layer, nn.LayerNorm):
        if layer.weight is None or layer.weight.dim() != 1:
            raise UnfitError(f"{name} normalises without a scale for each channel")
        return {"weight": 0, "bias": 0}
    if isinstance(layer, nn.PReLU):
        return {"weight": 0} if layer.num_parameters > 1 else {}
    if next(layer.parameters(), None) is None:
        return {}
    raise UnfitError(f"{name} is a {type(layer).__name__}, whose channels stay")


def _places(item: Any, width: int) -> stand_ins.Places:
    """By channel of the group's root, the places of one of its items."""
    made: list[list[int]] = [[] for _ in range(width)]
    for place, root in zip(item.idxs, item.root_idxs, strict=True):
        if not 0 <= root < width:
            raise UnfitError("torch-pruning loses count of its channels")
        made[root].append(int(place))
    return tuple(tuple(each) for each in made)


def _shared(module: nn.Module) -> dict[int, list[str]]:
    """The identity of every parameter to all of its names."""
    names: dict[int, list[str]] = {}
    for name, each in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(each), []).append(name)
    return names


def _traced(module: nn.Module, example: Example) -> Any:
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise InputError(
                f"the model cannot be traced for pruning: {name or 'it'} is TorchScript",
                where="prune",
                mend="let the factory build it in Python",
            )
    given = tensors(example)
    with _quiet(), torch.enable_grad():
        try:
            returned = module(**given)
        except Exception as error:  # the user's code
            raise _untraceable(error) from error
        severed = [each for each in flatten(returned) if each.grad_fn is None]
        if severed:
            raise InputError(
                "the model cannot be traced for pruning: no derivative leads from its output to "
                "its weights (it has no_grad, detach, argmax or a conversion to numpy in its way)",
                where="prune",
                mend="let its forward() return what stands before that",
            )
        try:
            return torch_pruning.DependencyGraph().build_dependency(module, given, verbose=False)
        except Exception as error:  # what torch-pruning does not know
            raise _untraceable(error) from error


def _untraceable(error: Exception) -> InputError:
    """Names the line of the user's code that it came from."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if not any(Path(each.filename).is_relative_to(f) for f in _OWN)]
    at = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno} `{ours[-1].line}`" if ours else ""
    said = str(error).splitlines()[0] if str(error) else "no reason given"
    return InputError(
        f"the model cannot be traced for pruning{at}: {type(error).__name__}: {said}",
        where="prune",
        mend="write that in operators of torch that do not depend on the values of tensors",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
