"""Attention with a linear layer for each projection, in place of torch's, which adapters cannot reach."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OpenAttention(nn.Module):
    """`nn.MultiheadAttention` with its fused projections opened into four `nn.Linear`.

    torch's attention multiplies with its parameters itself: a LoRA layer put on `out_proj` would never be called, and
    queries, keys and values have no layer at all. peft's own way around it (0.21) adds the adapters to the weights and
    subtracts them again at each forward pass: the frozen weights drift by rounding, and the output projection's
    adapter is added twice (peft's pull request 3774). With layers of their own the adapters are ordinary ones.

    Args:
        fused: with queries, keys and values of one dimension, no extra biases, and no dropout at work.

    >>> attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    >>> x = torch.ones(1, 3, 8)
    >>> bool(torch.allclose(OpenAttention(attention)(x, x, x)[0], attention(x, x, x)[0], atol=1e-6))
    True
    """

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.batch_first = fused.num_heads, fused.batch_first
        assert fused.in_proj_weight is not None, "see `can_open`"
        width, has_bias = fused.embed_dim, fused.in_proj_bias is not None
        for name, part in zip(("q_proj", "k_proj", "v_proj"), fused.in_proj_weight.chunk(3), strict=True):
            layer = nn.Linear(width, width, bias=has_bias, device=part.device, dtype=part.dtype)
            layer.weight.data.copy_(part)
            setattr(self, name, layer)
        if has_bias:
            for name, part in zip(("q_proj", "k_proj", "v_proj"), fused.in_proj_bias.chunk(3), strict=True):
                getattr(self, name).bias.data.copy_(part)
        bias = fused.out_proj.bias
        weight = fused.out_proj.weight
        self.out_proj = nn.Linear(width, width, bias=bias is not None, device=weight.device, dtype=weight.dtype)
        self.out_proj.weight.data.copy_(weight)
        if bias is not None:
            self.out_proj.bias.data.copy_(bias)
        self.requires_grad_(False)
        self.train(fused.training)

    @staticmethod
    def can_open(module: nn.Module) -> bool:
        """Whether a module is an attention that this one can stand in for."""
        return (
            type(module) is nn.MultiheadAttention
            and module.in_proj_weight is not None
            and module.bias_k is None
            and not module.add_zero_attn
        )

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """Attend as with `need_weights=False`: `(B, L, D)`, or `(L, B, D)` unless `batch_first`."""
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._split(self.q_proj(query)), self._split(self.k_proj(key)), self._split(self.v_proj(value))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask).transpose(1, 2).flatten(2)
        out = self.out_proj(out)
        return (out if self.batch_first else out.transpose(0, 1)), None

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @torch.no_grad()
    def close_into(self, fused: nn.MultiheadAttention) -> None:
        """Write the weights back into the attention that this one was made of."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        fused.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        fused.out_proj.weight.copy_(self.out_proj.weight)
