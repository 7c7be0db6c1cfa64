"""Criteria of importance that look at what a model does with data: the change of its loss, and what
flows through its channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lepton_compress.artifacts import Model, Progress, Split
from lepton_compress.compress import cutting
from lepton_compress.compress.groups import Group, Member, Part
from lepton_compress.compress.importance import Criterion, over
from lepton_compress.compress.tracing import tensors
from lepton_compress.compress.training import task_loss
from lepton_compress.errors import InputError
from lepton_compress.load.forms import flatten
from lepton_compress.load.narrow import NarrowAttention

if TYPE_CHECKING:
    import numpy as np

    Example = Mapping[str, np.ndarray]

BATCH = 32
SAMPLES = 1024
"""Of the train split, drawn by the seed, for derivatives; the calibration split is taken whole."""

NO_LABELS = (
    "the train split has no targets: importance by the classes that the original model chooses"
)


def taylor(
    module: nn.Module,
    groups: Sequence[Group],
    split: Split,
    teacher: Callable[[], Model],
    progress: Progress,
) -> tuple[Criterion, tuple[str, ...]]:
    """The squared change of the loss, to first order, when nothing reads a channel any more, meaned
    over batches of 32 (Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019),
    and notes.

    To first order that change is the sum of weight times derivative over all weights that read the
    channel: summed before it is squared, over all layers of the group.

    Args:
        module: is not changed.
        split: the train split; without targets the classes that `teacher` chooses are theirs.
        teacher: gives the original model.

    Raises:
        InputError: there are neither targets nor classes, or no derivative.
    """
    notes: tuple[str, ...] = ()
    chosen: Any = None
    if split.targets is None:
        chosen, notes = _chooser(teacher()), (NO_LABELS,)
    reading = _reading(groups)
    trained = [_tensor(module, each).requires_grad_(True) for each in reading]
    sums: dict[int, list[Tensor]] = {}
    rows = torch.randperm(len(split))[:SAMPLES]
    count = 0
    for some in torch.split(rows, BATCH):
        picked = some.sort().values.numpy()
        batch = tensors({name: array[picked] for name, array in split.inputs.items()})
        given = split.targets
        targets = chosen(batch) if given is None else torch.as_tensor(given[picked])
        with torch.enable_grad():
            loss = task_loss(flatten(module(**batch)), targets)
            found = torch.autograd.grad(loss, trained, allow_unused=True)
        # Derivatives of one batch: each part sums its own before it squares.
        for index, (weight, slope) in enumerate(zip(trained, found, strict=True)):
            held = torch.zeros_like(weight) if slope is None else slope * weight.detach()
            sums.setdefault(index, []).append(_by_place(held, reading[index].axis))
        count += 1
        progress.advance()
    changes = {
        (m.layer, m.tensor, m.axis): torch.stack(sums[index]) for index, m in enumerate(reading)
    }

    def criterion(part: Part) -> Tensor:
        total = torch.zeros(count, len(part.order), dtype=torch.float64)
        for member in part.members:
            if member.takes:
                values = changes[member.layer, member.tensor, member.axis]
                for channel, places in enumerate(member.places):
                    total[:, channel] += values[:, list(places)].sum(1)
        return (total**2).mean(0)

    return criterion, notes


def activation(module: nn.Module, groups: Sequence[Group], batches: Iterable[Example]) -> Criterion:
    """What a channel brings to the layers that read it: the mean square of its activation times the
    sum of the squared weights that read it, over all of them (the norm of an activation times a
    weight, of Sun et al., "A Simple and Effective Pruning Approach for Large Language Models",
    2024, for whole channels).

    Args:
        module: is not changed.
        batches: of the calibration split, inputs by name.
    """
    squares: dict[tuple[str, str], Tensor] = {}
    seen: dict[tuple[str, str], int] = {}
    wanted = {(each.layer, each.tensor) for each in _reading(groups)}

    def note(key: tuple[str, str], values: Tensor) -> None:
        """values (..., places)"""
        flat = values.detach().double().reshape(-1, values.shape[-1])
        squares[key] = squares.get(key, 0) + (flat**2).sum(0)
        seen[key] = seen.get(key, 0) + len(flat)

    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.MultiheadAttention):
            layer.__class__ = NarrowAttention  # which calls its output layer where a hook sees it
        if any(each == name for each, _ in wanted):
            handles.append(layer.register_forward_hook(_hook(name, note)))
    for batch in batches:
        with torch.no_grad():
            module(**tensors(batch))
    for handle in handles:
        handle.remove()

    def brought(member: Member) -> Tensor:
        weights = _tensor(module, member).detach().double()
        others = [axis for axis in range(weights.dim()) if axis != member.axis]
        key = (member.layer, member.tensor)
        values: Tensor = (weights**2).sum(others) * (squares[key] / seen[key])
        shape = [1] * weights.dim()
        shape[member.axis] = -1
        return values.reshape(shape)

    def criterion(part: Part) -> Tensor | None:
        known = [m for m in part.members if m.takes and (m.layer, m.tensor) in squares]
        return over(known, brought) if known else None

    return criterion


def _hook(name: str, note: Callable[[tuple[str, str], Tensor], None]) -> Callable[..., None]:
    def hook(layer: nn.Module, given: tuple[Any, ...], _: Any) -> None:
        if not given:
            return  # called by keyword
        x = given[0]
        if isinstance(layer, nn.RNNBase):
            for tensor, values in _inside(layer, x):
                note((name, tensor), values)
        elif isinstance(layer, nn.MultiheadAttention):
            note((name, "in_proj_weight"), x)
        elif isinstance(layer, nn.Linear):
            note((name, "weight"), x)
        elif isinstance(layer, (*cutting.CONVOLUTIONS, *cutting.TRANSPOSED)):
            batched = x if x.dim() == layer.weight.dim() else x.unsqueeze(0)
            note((name, "weight"), batched.movedim(1, -1))

    return hook


def _inside(layer: nn.RNNBase, x: Tensor) -> Iterable[tuple[str, Tensor]]:
    """What the matrices of a recurrent layer read: the input of each layer and its own states."""
    ways = ["", "_reverse"] if layer.bidirectional else [""]
    make: Any = type(layer)
    kind_of = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNN) else {}
    for level in range(layer.num_layers):
        alone = make(
            x.shape[-1],
            layer.hidden_size,
            bias=layer.bias,
            batch_first=layer.batch_first,
            bidirectional=layer.bidirectional,
            **kind_of,
        )
        for end in ways:
            for kind in ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * layer.bias:
                held = getattr(layer, f"{kind}_l{level}{end}")
                setattr(alone, f"{kind}_l0{end}", nn.Parameter(held.detach().to(x.dtype)))
        made = alone.eval()(x)[0].detach()
        for end, states in zip(ways, made.chunk(len(ways), -1), strict=True):
            yield f"weight_ih_l{level}{end}", x
            yield f"weight_hh_l{level}{end}", states
        x = made


def _chooser(teacher: Model) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """From a batch to the classes that a model chooses."""

    def choose(batch: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            first = flatten(teacher.value(**batch))[0]
        if first.dim() < 2 or first.shape[1] == 1:
            raise InputError(
                "importance: taylor needs the train split's targets where outputs are no classes",
                where="prune",
                mend="give the train split targets, or take importance: activation",
            )
        return first.argmax(1)

    if teacher.form != "module":
        raise InputError("the original model is not a torch module", where="prune")
    return choose


def _reading(groups: Sequence[Group]) -> list[Member]:
    """The tensors that read channels, each once along each axis."""
    found = {(m.layer, m.tensor, m.axis): m for g in groups for m in g.members() if m.takes}
    return list(found.values())


def _by_place(values: Tensor, axis: int) -> Tensor:
    along = values.detach().double().movedim(axis, 0)
    return along.reshape(len(along), -1).sum(1)


def _tensor(module: nn.Module, member: Member) -> Tensor:
    held: Any = getattr(module.get_submodule(member.layer), member.tensor)
    return torch.as_tensor(held)
