# SPDX-License-Identifier: Apache-2.0
"""Dense variants of an image tower's last attention, by MaskCLIP and its successors.

All use the same weights. With q, k, v of the last block, A the attention and o its output projection:

    maskclip   y = v' + x,            then the feed-forward net, where v' = o(v)               (A is the identity)
    sclip      y = o(A v) + x,        A = softmax(q q^T / s) + softmax(k k^T / s), then the feed-forward net
    clearclip  y = o(A v),            A = softmax(q q^T / s); neither residual nor feed-forward net
    naclip     y = o(A v),            A = softmax(k k^T / s + w), w a Gaussian of the distance on the grid; neither

with s the square root of the head's width. The last norm and projection follow. In the attention pool of a ResNet there
is no residual and no feed-forward net: y = o(A v) for all, and the successors differ from each other in A alone.
The variants of ``earlier_blocks`` need more than the last attention, and so the blocks of a ViT.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.clip.vision_taps import feed_forward
from clip_seg_ros.models.kept import KeptTensors
from clip_seg_ros.models.layers import split_heads

LastBlockVariant = Literal["maskclip", "sclip", "clearclip", "naclip"]
Variant = Literal[LastBlockVariant, "scclip", "resclip"]
LAST_BLOCK_VARIANTS: tuple[LastBlockVariant, ...] = get_args(LastBlockVariant)
"""The variants that need the last attention alone; only they work in the attention pool of a ResNet."""
VARIANTS: tuple[Variant, ...] = get_args(Variant)
NACLIP_DEVIATION = 5.0
"""Standard deviation of NACLIP's Gaussian in patches."""
_NEIGHBOURHOODS = KeptTensors(2)  # each as large as the scores of an attention


def pool_variant(variant: Variant) -> LastBlockVariant:
    """Returns ``variant`` if it works in the attention pool of a ResNet. Raises ValueError if it does not."""
    if variant in LAST_BLOCK_VARIANTS:
        return variant
    raise ValueError(
        f'the variant "{variant}" reads the earlier blocks of a ViT, and this image tower is a ResNet: use '
        f"{', '.join(LAST_BLOCK_VARIANTS)}"
    )


def dense_last_block(
    block: nn.Module, x: torch.Tensor, grid: tuple[int, int], variant: LastBlockVariant, want_keys: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Runs the last block of a ViT so that every token describes its own place.

    Args:
        block: open_clip's residual attention block.
        x: (B, 1 + h * w, C), its input.
        grid: (h, w).
        variant: "maskclip": Zhou et al., ECCV 2022, section 3.3; "sclip": Wang et al., ECCV 2024, equations 3 and 4;
            "clearclip": Lan et al., ECCV 2024, section 3.3; "naclip": Hajimiri et al., WACV 2025, section 3.
        want_keys: Whether to compute the keys.

    Returns:
        (tokens before the last norm (B, h * w, C), keys through the output projection (B, h * w, C) or ``None``).
    """
    attention = block.attn
    # Of q, k and v, in this order, MaskCLIP needs the last alone.
    parts = 3 if variant != "maskclip" else 2 if want_keys else 1
    first = -parts * x.shape[2]
    projected = F.linear(block.ln_1(x), attention.in_proj_weight[first:], attention.in_proj_bias[first:])
    *others, v = projected.chunk(parts, dim=-1)
    keys = attention.out_proj(others[-1][:, 1:]) if want_keys else None
    if variant == "maskclip":
        y = x[:, 1:] + block.ls_1(attention.out_proj(v[:, 1:]))
        return y + feed_forward(block, y), keys
    q, k = others
    y = block.ls_1(attention.out_proj(_attended(q, k, v, attention.num_heads, variant, grid)))[:, 1:]
    if variant == "sclip":
        y = x[:, 1:] + y
        y = y + feed_forward(block, y)
    return y, keys


def dense_pool(
    pool: nn.Module, tokens: torch.Tensor, grid: tuple[int, int], variant: LastBlockVariant, want_keys: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Runs the attention pool of a ResNet so that every place describes itself; there is no mean token.

    Args:
        pool: open_clip's attention pool.
        tokens: (B, h * w, C), the last stage, without positions.
        grid: (h, w).
        variant: The variant, as in ``dense_last_block``.
        want_keys: Whether to return the keys.

    Returns:
        (embeddings (B, h * w, D), keys (B, h * w, C) or ``None``).
    """
    value = pool.v_proj(tokens)
    keys = pool.k_proj(tokens) if want_keys or variant != "maskclip" else None
    if keys is not None and variant != "maskclip":
        value = _attended(pool.q_proj(tokens), keys, value, pool.num_heads, variant, grid)
    return pool.c_proj(value), keys if want_keys else None


def _attended(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    variant: LastBlockVariant,
    grid: tuple[int, int],
) -> torch.Tensor:
    """Returns A v of the successors, (B, N, C) from q, k and v (B, N, C), with a class token or without."""
    if variant == "sclip":
        return attended(q, q, v, heads) + attended(k, k, v, heads)
    if variant == "clearclip":
        return attended(q, q, v, heads)
    return attended(k, k, v, heads, grid)


def attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, grid: tuple[int, int] | None = None
) -> torch.Tensor:
    """Returns softmax(q k^T / s) v of several heads, without the output projection.

    Args:
        q: (B, N, C).
        k: (B, N, C).
        v: (B, N, C).
        heads: The number of heads.
        grid: (h, w) with N = h * w, or 1 + h * w with a class token, if NACLIP's Gaussian is added to the scores.

    Returns:
        (B, N, C).
    """
    bias: torch.Tensor | None = None
    if grid is not None:
        bias = _NEIGHBOURHOODS((grid, k.dtype), lambda: neighbourhood(grid, k.device).to(k.dtype), k.device)
        without_class = 1 - (k.shape[1] - grid[0] * grid[1])
        bias = bias[without_class:, without_class:]
    q, k, v = (split_heads(part, heads) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)


def neighbourhood(grid: tuple[int, int], device: torch.device | None = None) -> torch.Tensor:
    """Returns NACLIP's bias (1 + h * w, 1 + h * w): exp(-d^2 / 50) for patches d apart, 0 for the class token."""
    height, width = grid

    def axis(side: int) -> torch.Tensor:
        places = torch.arange(side, dtype=torch.float32, device=device)
        return torch.exp(-((places[:, None] - places) ** 2) / (2 * NACLIP_DEVIATION**2))

    # A Gaussian of two coordinates is the product of two Gaussians.
    return F.pad(torch.kron(axis(height), axis(width)), (1, 0, 1, 0))
