"""Attention: hidden widths of its MLPs, and heads made narrower where the module's numbers can follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from automl_prune.channels import ChannelGraph, prune
from automl_prune.costs import count_costs
from tests.channels.nets import check

TOKENS = (torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(2)),)


class Attention(nn.Module):
    """Multi-head attention as written in timm: heads and their width are attributes."""

    def __init__(self, dim: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.fused = heads, dim // heads, fused
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        plain = (q @ k.transpose(-2, -1) * 0.3).softmax(-1) @ v
        y = F.scaled_dot_product_attention(q, k, v) if self.fused else plain
        return torch.as_tensor(self.proj(y.transpose(1, 2).reshape(b, n, -1)))


class CrossAttention(nn.Module):
    """Queries, keys and values by layers of their own."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.q, self.k, self.v, self.proj = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (3, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        plain = (0.5 * q[:, :, :1] @ k.transpose(-2, -1)).softmax(-1) @ v
        y = F.scaled_dot_product_attention(q[:, :, :1], k, v, scale=0.5) if self.fused else plain
        return torch.as_tensor(self.proj(y.transpose(1, 2).flatten(2)))


class SharedKeys(nn.Module):
    """Four heads of queries share two of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = nn.Linear(12, 16), nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(16, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).unflatten(-1, (4, -1)).transpose(1, 2)
        k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return torch.as_tensor(self.proj(y.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    def __init__(self, attention: nn.Module, dim: int = 12) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), attention
        self.norm2, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 20), nn.Linear(20, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return torch.as_tensor(x + self.down(F.gelu(self.up(self.norm2(x)))))


def transformer(*blocks: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 12), *blocks, nn.Flatten(), nn.Linear(60, 3))


def test_heads_become_narrower_and_their_attribute_follows() -> None:
    net = transformer(Block(Attention(12, 3, fused=False)))
    graph = check(net, TOKENS)
    assert graph.widths == {"0": 12, "1.attention.qkv": 4, "1.up": 20}
    assert not graph["1.attention.qkv"].mixes
    small = prune(net, graph.plan({"1.attention.qkv": [0, 3]}))
    attention: Any = small[1].attention  # type: ignore[index]  # a Sequential
    assert (attention.num_heads, attention.head_dim, attention.qkv.out_features) == (3, 2, 18)


def test_fused_attention_scales_by_what_is_left() -> None:
    graph = check(transformer(Block(Attention(12, 3, fused=True))), TOKENS)
    assert graph.widths["1.attention.qkv"] == 4
    assert graph["1.attention.qkv"].mixes == ("attention's scale",)


def test_values_have_a_width_of_their_own() -> None:
    graph = check(transformer(Block(CrossAttention(fused=False))), TOKENS)
    assert graph.widths == {"0": 12, "1.attention.q": 4, "1.attention.v": 4, "1.up": 20}


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_values_of_fused_attention_are_narrowed_with_the_queries(kept: int) -> None:
    """Apart they would cost more memory than planned: torch would leave its fused operator."""
    net = transformer(Block(CrossAttention(fused=True)))
    graph = check(net, TOKENS)
    assert graph.widths == {"0": 12, "1.attention.q": 4, "1.up": 20}
    assert not graph["1.attention.q"].mixes  # its scale is given
    plan = graph.plan({"1.attention.q": list(range(kept))})
    tokens = tuple(t.to(next(net.parameters()).dtype) for t in TOKENS)
    assert count_costs(prune(net, plan), tokens)["memory"] == plan.costs()["memory"].value


def test_a_wrong_guess_of_an_attribute_is_dropped() -> None:
    """As many heads as channels per head: the number of heads looks like a width, and must not follow."""
    block = Block(Attention(16, 4, fused=False), 16)
    net = nn.Sequential(nn.Linear(12, 16), block, nn.Flatten(), nn.Linear(80, 3))
    graph = check(net, TOKENS)
    assert graph.widths["1.up"] == 20


def test_torch_multihead_attention_keeps_its_width_and_loses_mlp_channels() -> None:
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True, dropout=0.0)
    graph = check(transformer(layer), TOKENS)
    assert graph.widths["1.linear1"] == 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_heads_that_share_keys_stay_with_the_reason(dtype: torch.dtype) -> None:
    net = transformer(Block(SharedKeys())).to(dtype)
    graph = ChannelGraph.trace(net, tuple(t.to(dtype) for t in TOKENS))
    assert graph.widths == {"0": 12, "1.up": 20}
    reasons = {skip.name: skip.reason for skip in graph.skipped}
    assert all("shares keys" in reasons[f"1.attention.{name}"] for name in "qkv")
    assert check(net, TOKENS).widths == graph.widths
