# SPDX-License-Identifier: Apache-2.0
"""Layers that several models use. The names and shapes of their parameters are those of torch's own layers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class SelfAttention(nn.MultiheadAttention):
    """Multi-head self-attention with the weights of ``nn.MultiheadAttention`` that always uses the fused kernel."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__(width, n_heads, dropout=dropout, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attends within each row of ``x`` (B, N, C); returns the same shape."""
        return attend_within(self, x)


def attend_within(
    attention: nn.MultiheadAttention, x: torch.Tensor, factors: torch.Tensor | None = None
) -> torch.Tensor:
    """Computes the self-attention of ``attention``, with the fused kernel if there are no ``factors``.

    Args:
        attention: A layer with ``batch_first`` whose keys and values are as wide as its queries.
        x: (B, N, C).
        factors: (B, 1, N, N), by which the scores are multiplied before the softmax.

    Returns:
        (B, N, C).
    """
    qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    qkv = qkv.unflatten(-1, (3, attention.num_heads, attention.head_dim))
    query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, C / heads)
    dropout = attention.dropout if attention.training else 0.0
    if factors is None:
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    else:
        scores = factors * (query @ key.transpose(-2, -1)) / math.sqrt(attention.head_dim)
        attended = F.dropout(scores.softmax(dim=-1), dropout) @ value
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


class CrossAttention(nn.MultiheadAttention):
    """Multi-head attention with the weights of ``nn.MultiheadAttention`` that always uses the fused kernel."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__(width, n_heads, dropout=dropout, batch_first=True)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attends from ``query`` (B, N, C) to ``key`` and ``value`` (B, M, C); returns (B, N, C).

        Args:
            seen: (B, 1, 1, M) bool, False where a key is padding and gets no attention.
        """
        width = self.embed_dim
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key:
            query, key = F.linear(query, weight[: 2 * width], bias[: 2 * width]).chunk(2, dim=-1)
        else:
            query = F.linear(query, weight[:width], bias[:width])
            key = F.linear(key, weight[width : 2 * width], bias[width : 2 * width])
        value = F.linear(value, weight[2 * width :], bias[2 * width :])
        query, key, value = (split_heads(x, self.num_heads) for x in (query, key, value))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


def split_heads(x: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Returns (B, heads, N, C / heads) of (B, N, C)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def sine_code(length: int, width: int) -> torch.Tensor:
    """Returns the position code (length, width) of "Attention is all you need", section 3.5; even channels are sine."""
    positions = torch.arange(length, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    return torch.stack([torch.sin(positions * rates), torch.cos(positions * rates)], dim=2).flatten(1)


class PostNormBlock(nn.Module):
    """A transformer encoder layer with ReLU and a norm after each residual sum.

    Its keys are those of ``nn.TransformerEncoderLayer``.
    """

    def __init__(self, width: int, n_heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, n_heads, dropout)
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transforms tokens (B, N, C)."""
        x = self.norm1(x + self.dropout(self.self_attn(x)))
        hidden = self.dropout(F.relu(self.linear1(x), inplace=True))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class PatchUpsample(nn.ConvTranspose2d):
    """A transposed convolution whose kernel size equals its stride, computed as a matrix product.

    Every input position writes a patch of its own and no two patches overlap, so that one linear map and a reordering
    give the same result. torch's general algorithm is many times slower on a CPU.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=stride, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upsamples (B, C, h, w) to (B, out, h * stride, w * stride)."""
        stride = self.stride[0]
        batch, _, height, width = x.shape
        patches = x.permute(0, 2, 3, 1) @ self.weight.flatten(1)  # (B, h, w, out * stride * stride)
        patches = patches.view(batch, height, width, self.out_channels, stride, stride).permute(0, 3, 1, 4, 2, 5)
        upsampled = patches.reshape(batch, self.out_channels, height * stride, width * stride)
        return upsampled + self.bias[:, None, None]
