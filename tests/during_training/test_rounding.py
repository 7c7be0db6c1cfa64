"""A forward() that is another's for a while."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from lepton_compress.during_training.rounding import redirect
from lepton_compress.errors import InputError


class Own(nn.Module):
    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, **more: Any
    ) -> torch.Tensor:
        return x + 1


class Other(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 10


X = torch.ones(2)


def test_calls_go_to_the_other_until_released() -> None:
    own, other = Own(), Other()
    before = inspect.signature(own.forward)
    release = redirect(own, other, ["x"])
    for given in (own(X), own(x=X), own(X, None), own(X, return_dict=True)):
        assert given.tolist() == [10, 10]
    assert inspect.signature(own.forward) == before
    own.eval()
    own(X)
    assert not other.training
    release()
    assert own(X).tolist() == [2, 2]
    assert "forward" not in vars(own)


@pytest.mark.parametrize("given", [{"mask": X}, {"labels": X}])
def test_a_tensor_that_the_artifact_does_not_take_is_refused(given: dict[str, Any]) -> None:
    own = Own()
    redirect(own, Other(), ["x"])
    with pytest.raises(InputError, match="which the artifact does not take; compute the loss"):
        own(X, **given)


def test_a_forward_that_was_exchanged_before_comes_back() -> None:
    own = Own()
    own.forward = lambda x: x - 1  # type: ignore[method-assign, assignment, misc]
    release = redirect(own, Other(), ["x"])
    assert own(X).tolist() == [10, 10]
    release()
    assert own(X).tolist() == [0, 0]
