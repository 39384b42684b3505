from __future__ import annotations

import pytest
import torch
from torch import nn

from guardtrain.training.finetuning.attention import OpenAttention


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_what_torchs_attention_does(batch_first: bool, bias: bool) -> None:
    torch.manual_seed(0)
    fused = nn.MultiheadAttention(12, 3, bias=bias, batch_first=batch_first).eval()
    if bias:  # torch starts them at zero
        nn.init.normal_(fused.in_proj_bias)
        nn.init.normal_(fused.out_proj.bias)
    query, key, value = torch.randn(3, 4, 5, 12)
    mask = torch.randn(5, 5) if batch_first else torch.randn(4, 4)
    wanted = fused(query, key, value, need_weights=False, attn_mask=mask)[0]
    found = OpenAttention(fused)(query, key, value, need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_weights_go_back_to_where_they_came_from() -> None:
    torch.manual_seed(0)
    fused = nn.MultiheadAttention(8, 2)
    before = {name: value.clone() for name, value in fused.state_dict().items()}
    opened = OpenAttention(fused)
    opened.close_into(fused)
    assert all(torch.equal(before[name], value) for name, value in fused.state_dict().items())
    opened.k_proj.weight.data += 1
    opened.out_proj.weight.data += 2
    opened.close_into(fused)
    rise = {name: fused.state_dict()[name] - before[name] for name in before}
    torch.testing.assert_close(rise["in_proj_weight"][8:16], torch.ones(8, 8))
    torch.testing.assert_close(rise["out_proj.weight"], torch.full((8, 8), 2.0))
    assert not rise["in_proj_weight"][:8].any() and not rise["in_proj_weight"][16:].any()


def test_attentions_it_cannot_stand_in_for_are_left_alone() -> None:
    assert OpenAttention.can_open(nn.MultiheadAttention(8, 2))
    assert not OpenAttention.can_open(nn.MultiheadAttention(8, 2, kdim=6, vdim=6))
    assert not OpenAttention.can_open(nn.MultiheadAttention(8, 2, add_bias_kv=True))
    assert not OpenAttention.can_open(nn.Linear(8, 8))
