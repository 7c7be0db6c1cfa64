"""Weights that were set to zero stay there while a network is trained.

Which layers are sparse travels with them as a plain attribute, which is saved as any other; which
of their weights, the zeros themselves say. A weight that has no gradient from the first update on
is left alone by an optimiser's moments and by weight decay, so that it stays exactly zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

PATTERN = "sparsity_pattern"
"""Attribute of a layer that was made sparse: "unstructured", or "2:4"."""


def sparse(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a module's sparse layers, by their names in it."""
    return {
        f"{name}.weight" if name else "weight": each.weight
        for name, each in module.named_modules()
        if hasattr(each, PATTERN)
    }


@contextlib.contextmanager
def held(module: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Inside, zeros of sparse layers get no gradient.

    Args:
        module: says which layers are sparse.
        tensors: what is trained in the place of the module's own, by the same names.
    """
    hooks = []
    for name, weight in sparse(module).items():
        trained = weight if tensors is None else tensors.get(name)
        if trained is not None and trained.requires_grad:
            mask = (trained.detach() != 0).to(trained.dtype)
            hook: Any = trained.register_hook  # untyped
            hooks.append(hook(lambda grad, mask=mask: grad * mask))
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
