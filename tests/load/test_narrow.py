"""Attention in the class of a pruned model's: whole, it computes what torch's computes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lepton_compress.load.narrow import NarrowAttention

LENGTHS = (5, 7)
PADDING = torch.arange(7).repeat(3, 1) >= torch.tensor([[7], [4], [6]])
LATER = torch.ones(5, 7, dtype=torch.bool).triu(1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"key_padding_mask": PADDING},
        {"attn_mask": LATER},
        {"attn_mask": torch.randn(5, 7)},
        {"attn_mask": LATER.repeat(12, 1, 1), "key_padding_mask": PADDING},
        {"average_attn_weights": False},
        {"need_weights": False},
    ],
)
def test_a_whole_one_is_torchs(batch_first: bool, given: dict[str, Any]) -> None:
    torch.manual_seed(0)
    one = nn.MultiheadAttention(16, 4, bias=batch_first, batch_first=batch_first).eval()
    other: Any = copy.deepcopy(one)
    other.__class__ = NarrowAttention
    query, key = (torch.randn(3, length, 16) for length in LENGTHS)
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    wanted, weights = one(query, key, key, **given)
    made, shown = other(query, key, key, **given)
    assert torch.allclose(made, wanted, atol=1e-6)
    assert (shown is None) == (weights is None)
    assert shown is None or torch.allclose(shown, weights, atol=1e-6)


def test_one_sample_without_a_batch() -> None:
    torch.manual_seed(0)
    one = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    other: Any = copy.deepcopy(one)
    other.__class__ = NarrowAttention
    x = torch.randn(5, 16)
    for ours, theirs in zip(other(x, x, x), one(x, x, x), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_torchs_fused_layer_stays_away() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    other: Any = copy.deepcopy(layer)
    other.self_attn.__class__ = NarrowAttention
    called = []
    other.self_attn.register_forward_hook(lambda *_: called.append(1))
    x = torch.randn(3, 5, 16)
    with torch.no_grad():
        assert torch.allclose(other(x), layer(x), atol=1e-5)
    assert called
