"""The head of a classifier, its last layer, exchanged for one of another label set."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from lepton_compress.artifacts import Dataset, Model
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call, duplicate

_HEADS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def with_head(model: Model, name: str, classes: int | str, data: Dataset) -> tuple[Model, str, int]:
    """A copy of a module whose head is new and untrained; the head's name and outputs.

    Args:
        name: of a dense layer or convolution; "auto" is the last one that a forward pass calls.
        classes: how many outputs it has; "auto" takes as many as the labels need.

    Raises:
        InputError: there is no such layer, its weights are also another layer's, the labels do not
            tell how many outputs are needed, or the model's outputs do not follow the head's.
    """
    made = duplicate(model)
    found = _last(made, data) if name == "auto" else name
    layer = dict(made.value.named_modules()).get(found)
    if type(layer) not in _HEADS:
        kind = "no such layer" if layer is None else f"{found} is a {type(layer).__name__}"
        raise InputError(
            f"{kind}: a head is a Linear, Conv1d or Conv2d",
            where=f"head {found}",
            mend="`inspect` shows the names of layers",
        )
    if _shared(made.value, layer):
        raise InputError("its weights are also another layer's", where=f"head {found}")
    before = _outputs(layer)
    count = _needed(data, single=before == 1) if classes == "auto" else int(classes)
    owner, _, leaf = found.rpartition(".")
    setattr(made.value.get_submodule(owner), leaf, _like(layer, count))
    _check(made, data, found, count)
    return made, found, count


def _last(model: Model, data: Dataset) -> str:
    called: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in model.value.named_modules()
        if type(module) in _HEADS
    ]
    try:
        call(model, _feeds(model, data))
    finally:
        for each in hooks:
            each.remove()
    if not called:
        raise InputError(
            "the model has no dense layer or convolution to be its head", where="head auto"
        )
    return called[-1]


def _feeds(model: Model, data: Dataset) -> dict[str, Any]:
    names = [spec.name for spec in model.inputs]
    return next(data.calibration.named(names).batches(2))


def _shared(module: nn.Module, layer: Any) -> bool:
    held = [id(each) for _, each in module.named_parameters(remove_duplicate=False)]
    return any(held.count(id(each)) > 1 for each in layer.parameters())


def _outputs(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _like(layer: Any, outputs: int) -> nn.Module:
    """A layer of the same kind, with the first weights of its kind."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias=bias).eval()
    made: nn.Module = type(layer)(
        layer.in_channels,
        outputs,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        bias,
        layer.padding_mode,
    )
    return made.eval()


def _needed(data: Dataset, *, single: bool) -> int:
    """Outputs for the labels; a single score, which is a probability, stays single for 0 and 1."""
    held = [each.targets for each in (data.train, data.evaluation) if each.targets is not None]
    if not held:
        raise InputError("the data have no labels", where="classes", mend="say how many there are")
    if any(each.dtype.kind not in "biu" for each in held):
        return 1 if held[0].ndim == 1 else int(np.prod(held[0].shape[1:]))
    most = max(int(each.max()) for each in held)
    if most < 1:
        raise InputError("the data have one class alone", where="classes")
    return 1 if single and most == 1 else most + 1


def _check(model: Model, data: Dataset, name: str, count: int) -> None:
    try:
        shape = next(iter(call(model, _feeds(model, data)).values())).shape
    except InputError as error:
        raise InputError(
            f"with {count} outputs the model does not run: {error.problem}",
            where=f"head {name}",
            mend="name the layer that gives the scores as `head`",
        ) from error
    if count not in shape[1:] and not (count == 1 and len(shape) == 1):
        raise InputError(
            f"with {count} outputs the model gives {list(shape[1:])} a sample",
            where=f"head {name}",
            mend="name the layer that gives the scores as `head`",
        )
