"""Attention whose heads need not fill the width of the model, which `nn.MultiheadAttention` does
not know. A pruned model has it in that class's place, with parameters of the same names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class NarrowAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` after heads, or channels of the model, were removed.

    `in_proj_weight` is (3 * heads * head_dim, embed_dim) and `out_proj.weight` (embed_dim,
    heads * head_dim). It is never constructed: an existing module is given this class.
    """

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """Keeps `nn.TransformerEncoderLayer` off its fused kernel, which knows no such shapes."""
        return False

    @_qkv_same_embed_dim.setter
    def _qkv_same_embed_dim(self, value: bool) -> None:
        pass

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention`; `is_causal` is a hint there, and `attn_mask` what counts."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = (each.unsqueeze(0) for each in (query, key, value))
        elif not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        biases: Any = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(given, weight, bias)
            .reshape(*given.shape[:2], self.num_heads, self.head_dim)
            .transpose(1, 2)
            for given, weight, bias in zip(
                (query, key, value), self.in_proj_weight.chunk(3), biases, strict=True
            )
        )
        mask = self._mask(attn_mask, key_padding_mask, q)
        weights = (q @ k.transpose(-1, -2) * self.head_dim**-0.5 + mask).softmax(-1)
        mixed = functional.dropout(weights, self.dropout, self.training) @ v
        made = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            made = made.squeeze(0)
        elif not self.batch_first:
            made = made.transpose(0, 1)
        if not need_weights:
            return made, None
        shown = weights.mean(1) if average_attn_weights else weights
        return made, shown if batched else shown.squeeze(0)

    def _mask(self, attended: Tensor | None, padding: Tensor | None, query: Tensor) -> Any:
        """What is added to the scores (batch, heads, queries, keys)."""

        def added(mask: Tensor) -> Tensor:
            if mask.dtype != torch.bool:
                return mask.to(query.dtype)
            return torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, -torch.inf)

        total: Any = 0.0
        if attended is not None:
            total = added(attended)
            if total.dim() == 3:
                total = total.reshape(query.shape[0], -1, *total.shape[1:])
        if padding is not None:
            padding = padding if padding.dim() == 2 else padding.unsqueeze(0)
            total = total + added(padding)[:, None, None]
        return total


CLASSES: dict[str, type[nn.Module]] = {"NarrowAttention": NarrowAttention}
"""Classes that a saved structure may name, by their names."""
TAKES_PLACE_OF = {"NarrowAttention": "MultiheadAttention"}
"""And the class of the module that each may be given to."""
