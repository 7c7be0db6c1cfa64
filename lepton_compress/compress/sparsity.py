"""Which weights of a module to set to zero.

A layer's weight is looked at as a matrix of (outputs, inputs of one output), the inputs with the
channels last, so that N:M groups run over channels.

magnitude  the smallest of each layer
wanda      the smallest |weight| times norm of its input, of each output (Sun et al., 2023)
sparsegpt  by the inverse Hessian of the layer's squared error, block by block, what is left making
           up for what goes (Frantar and Alistarh, 2023)
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress import fitting, masks
from lepton_compress.compress.distillation import distillation
from lepton_compress.compress.training import deterministic, train
from lepton_compress.errors import InputError
from lepton_compress.load.forms import duplicate, tensor_bytes
from lepton_compress.registry import nearest

if TYPE_CHECKING:
    from lepton_compress.compress.sparsify import Gradual, Sparsify

    Groups = tuple[int, int] | None

STEP = "sparsify"
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_DAMPING = 0.01
"""Of a Hessian, as a share of its mean diagonal."""
_BLOCK = 128
_BATCH = 32
NO_SPEED = (
    "zeros are written as any number, and ONNX Runtime and LiteRT compute them: files compress "
    "better, and nothing runs faster"
)


def sparsify(model: Model, params: Sparsify, context: StepContext) -> StepOutcome:
    """Set weights of a module to zero.

    Raises:
        InputError: `keep` names no layer, or the training of a schedule does not fit the data.
        LeptonError: the loss of that training is no longer finite.
    """
    layers, notes = _layers(model.value, params)
    if not layers:
        return StepOutcome(model, changed=False, notes=notes or ("no dense layer or convolution",))
    made = duplicate(model)
    own = dict(made.value.named_modules())
    statistics: dict[str, Any] = {"method": params.method, "pattern": params.pattern}
    with deterministic(context.seed, context.threads):
        if params.schedule is not None:
            told, said = _gradually(made, layers, params.share, params.schedule, context)
            statistics, notes = statistics | told, (*notes, *said)
        else:
            with context.observer.work("choosing weights", len(layers)) as progress:
                for name in layers:
                    _zero(made, name, params, context)
                    progress.advance(note=name)
    for name in layers:
        setattr(own[name], masks.PATTERN, params.pattern)
    counts = {
        name: [int((own[name].weight == 0).sum()), own[name].weight.numel()] for name in layers
    }
    total = sum(each.numel() for each in made.value.parameters())
    zeros = sum(each for each, _ in counts.values())
    statistics |= {
        "zeros": [zeros, total],
        "layers": counts,
        "deflated_weights": [_deflated(each.value) for each in (model, made)],
    }
    return StepOutcome(made, changed=True, statistics=statistics, notes=(*notes, NO_SPEED))


def _layers(module: nn.Module, params: Sparsify) -> tuple[list[str], tuple[str, ...]]:
    """Names of the layers to make sparse, and what is left dense for its shape."""
    found = {name: each for name, each in module.named_modules() if isinstance(each, _LAYERS)}
    for name in params.keep:
        if name not in found:
            raise InputError(f"keep: no layer {name!r}", where=STEP, mend=nearest(name, [*found]))
    chosen, notes = [], []
    for name, each in found.items():
        if name in params.keep:
            continue
        if params.groups is not None and each.weight.shape[1] % params.groups[1]:
            channels = each.weight.shape[1]
            notes.append(f"{name} stays dense: {channels} input channels are no multiple of M")
        else:
            chosen.append(name)
    return chosen, tuple(notes)


def _zero(model: Model, name: str, params: Sparsify, context: StepContext) -> None:
    """Set weights of one layer to zero; layers before it are sparse already."""
    layer = model.value.get_submodule(name)
    matrix = _matrix(layer.weight.detach())
    if params.method == "magnitude":
        keep = _kept(matrix.abs(), params.share, params.groups, rows=False)
        made = matrix * keep
    else:
        groups = getattr(layer, "groups", 1)
        grams = _grams(model, name, groups, params.samples, context)
        parts = matrix.chunk(groups)
        solve: Callable[..., Tensor] = _wanda if params.method == "wanda" else _sparsegpt
        made = torch.cat(
            [solve(part, gram, params) for part, gram in zip(parts, grams, strict=True)]
        )
    with torch.no_grad():
        layer.weight.copy_(_weight(made, layer.weight))


def _matrix(weight: Tensor) -> Tensor:
    return weight.movedim(1, -1).flatten(1)


def _weight(matrix: Tensor, like: Tensor) -> Tensor:
    return matrix.reshape(like.movedim(1, -1).shape).movedim(-1, 1)


def _kept(scores: Tensor, share: float, groups: Groups, *, rows: bool) -> Tensor:
    """1 where a weight stays and 0 where it goes; scores are (outputs, inputs)."""
    keep = torch.ones_like(scores)
    if groups is not None:
        parts = scores.reshape(len(scores), -1, groups[1])
        gone = parts.argsort(stable=True, dim=-1)[..., : groups[1] - groups[0]]
        return torch.ones_like(parts).scatter(-1, gone, 0).reshape(scores.shape)
    if rows:
        gone = scores.argsort(stable=True, dim=-1)[:, : round(share * scores.shape[1])]
        return keep.scatter(-1, gone, 0)
    gone = scores.flatten().argsort(stable=True)[: round(share * scores.numel())]
    return keep.flatten().scatter(0, gone, 0).reshape(scores.shape)


def _wanda(matrix: Tensor, gram: Tensor, params: Sparsify) -> Tensor:
    scores = matrix.abs() * gram.diagonal().sqrt().to(matrix.dtype)
    return matrix * _kept(scores, params.share, params.groups, rows=True)


def _sparsegpt(matrix: Tensor, gram: Tensor, params: Sparsify) -> Tensor:
    weight, columns = matrix.double(), matrix.shape[1]
    dead = gram.diagonal() == 0
    gram = gram + torch.diag(dead.double())
    gram = gram + _DAMPING * gram.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    weight = weight * ~dead
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)
    block = _BLOCK
    if params.groups is not None:
        block = max(1, _BLOCK // params.groups[1]) * params.groups[1]
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        part, factors = weight[:, start:stop].clone(), inverse[start:stop, start:stop]
        scores = (part / factors.diagonal()).square()
        keep = _kept(scores, params.share, params.groups, rows=False)
        errors = torch.zeros_like(part)
        for index in range(stop - start):
            left = part[:, index] * keep[:, index]
            errors[:, index] = (part[:, index] - left) / factors[index, index]
            part[:, index:] -= errors[:, index : index + 1] * factors[index : index + 1, index:]
            part[:, index] = left
        weight[:, start:stop] = part
        weight[:, stop:] -= errors @ inverse[start:stop, stop:]
    return weight.to(matrix.dtype)


def _grams(
    model: Model, name: str, groups: int, samples: int, context: StepContext
) -> list[Tensor]:
    """Of a layer's inputs, for each of its groups: sums of products (inputs, inputs), float64."""
    layer = model.value.get_submodule(name)
    size = layer.weight[0].numel()
    found = [torch.zeros(size, size, dtype=torch.float64) for _ in range(groups)]

    def see(module: Any, given: Any) -> None:
        columns = _columns(module, given[0].detach(), groups)
        for gram, each in zip(found, columns, strict=True):
            rows = each.double()
            gram += rows.T @ rows

    hook = layer.register_forward_pre_hook(see)
    split = context.data.calibration.named([spec.name for spec in model.inputs])
    try:
        with torch.no_grad():
            for feeds in split.batches(_BATCH, samples):
                model.value(**{key: torch.from_numpy(each.copy()) for key, each in feeds.items()})
    finally:
        hook.remove()
    return found


def _columns(layer: Any, given: Tensor, groups: int) -> list[Tensor]:
    """A layer's inputs as each of its outputs sees them, (places, inputs), for each group."""
    if isinstance(layer, nn.Linear):
        return [given.flatten(0, -2)]
    settings = [layer.kernel_size, layer.dilation, layer.stride]
    if isinstance(layer, nn.Conv1d):
        given, settings = given.unsqueeze(2), [(1, *each) for each in settings]
    # As the layer pads: by zeros, or by what the picture's other side holds.
    around = list(layer._reversed_padding_repeated_twice)
    around += [0] * (4 - len(around))
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(given, around, mode=mode) if any(around) else given
    kernel, dilation, stride = settings
    taken = functional.unfold(padded, kernel, dilation=dilation, stride=stride)
    batch, _, places = taken.shape
    channels = given.shape[1]
    taken = taken.reshape(batch, groups, channels // groups, -1, places)
    return [each.permute(0, 3, 2, 1).flatten(2).flatten(0, 1) for each in taken.unbind(1)]


def _gradually(
    model: Model, layers: list[str], share: float, schedule: Gradual, context: StepContext
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Train while ever more weights go; what is gone stays gone."""
    weights = {name: model.value.get_submodule(name).weight for name in layers}
    kept = {name: torch.ones_like(each) for name, each in weights.items()}
    reached = -1

    def told(done: float) -> None:
        nonlocal reached
        number = min(schedule.updates, int(schedule.updates * done / max(schedule.until, 1e-9)))
        with torch.no_grad():
            if number > reached:
                reached = number
                now = share * (1 - (1 - number / schedule.updates) ** 3)
                for name, each in weights.items():
                    scores = _matrix(each).abs()
                    kept[name] = _weight(_kept(scores, now, None, rows=False), each)
            for name, each in weights.items():
                # The moments of an optimiser would carry what has just gone away from zero.
                each.mul_(kept[name])

    names = [spec.name for spec in model.inputs]
    loss, notes = distillation(context.original(), 2.0, 0.3, context.data, where=STEP)
    statistics = train(
        model.value,
        context.data.train.named(names),
        loss,
        # The best epoch could be one before all was gone.
        replace(fitting.schedule(schedule), validation=0.0),
        observer=context.observer,
        label="training",
        told=told,
    )
    told(1.0)
    return {"training": statistics}, notes


def _deflated(module: nn.Module) -> int:
    """Bytes of the parameters after deflate (zlib, level 6)."""
    packer = zlib.compressobj(6)
    size = sum(len(packer.compress(tensor_bytes(each))) for each in module.parameters())
    return size + len(packer.flush())
