"""A module's forward() replaced by the fake-quantised network of the same tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lepton_compress.errors import InputError

_FORWARD = "forward"


def redirect(module: nn.Module, network: nn.Module, names: Sequence[str]) -> Callable[[], None]:
    """Let calls of `module` compute `network`; what is returned puts its own forward() back.

    Args:
        names: the inputs that the network takes by name.
    """
    before = vars(module).get(_FORWARD)
    own = module.forward
    signature = inspect.signature(own)

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        given = {name: value for name, value in _flat(bound).items() if value is not None}
        for name, value in given.items():
            if name not in names and isinstance(value, torch.Tensor):
                raise InputError(
                    f"forward() is given {name!r}, which the artifact does not take",
                    where=type(module).__name__,
                    mend="compute the loss outside of the model; the Hugging Face Trainer takes "
                    "`compute_loss_func` for it",
                )
        network.train(module.training)
        return network(**{name: given[name] for name in names if name in given})

    module.forward = forward

    def release() -> None:
        if before is None:
            vars(module).pop(_FORWARD, None)
        else:
            module.forward = before

    return release


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """By name, those that a `**kwargs` gathers among them."""
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        else:
            found[name] = value
    return found
