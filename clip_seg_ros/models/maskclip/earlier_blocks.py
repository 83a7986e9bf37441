# SPDX-License-Identifier: Apache-2.0
"""Successors of MaskCLIP that read a ViT's earlier blocks besides the last one, SC-CLIP and ResCLIP.

    image -> block 1 ... block 12       the tokens after each block are the levels; level 0 is ahead of the first block

    scclip    level 11: outlying tokens are replaced by their neighbours; similar tokens, by level 9, are averaged
              both this and the sum of the levels 4 to 10 pass the last attention: keys with keys, and level 9
              with itself; their sum is averaged over similar tokens, by level 4
    resclip   the last attention is NACLIP's, mixed with the attention of queries with keys of the blocks 6 to 9

The authors of both state these numbers for towers of 12 blocks. In towers of other depths, the same shares of the depth
are meant. Neither has a residual or a feed-forward net in the last block. The last norm and projection follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.clip.vision_taps import run_block
from clip_seg_ros.models.maskclip.dense_attention import LAST_BLOCK_VARIANTS, Variant, attended, dense_last_block

NEIGHBOURS = 30
"""SC-CLIP: the number of nearest tokens among which a token may be an outlier."""
OUTLIER_PERCENT = 5
"""SC-CLIP: the share of tokens that are taken for outliers."""
LEAST_SIMILARITY = 0.4
"""SC-CLIP: the cosine from which tokens are similar enough to be averaged."""
SHARPNESS = 3.0
"""SC-CLIP: the factor on cosines ahead of the softmax."""
CLASS_TOKEN_SHARE = 0.3
"""SC-CLIP: the factor with which the class token is added to every place."""
RESIDUAL_SHARE = 0.3
"""ResCLIP: the share of the earlier blocks' attention; the authors use 0.3 on most data sets."""
RESIDUAL_SCALE = 2.0
"""ResCLIP: the factor on the mixed attention."""
_AUTHORS_DEPTH = 12


def dense_tokens(
    blocks: Sequence[nn.Module], x: torch.Tensor, grid: tuple[int, int], variant: Variant, want_keys: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Runs all blocks of a ViT so that every token describes its own place.

    Args:
        blocks: open_clip's residual attention blocks.
        x: (B, 1 + h * w, C), the input of the first one.
        grid: (h, w).
        variant: Any variant.
        want_keys: Whether to compute the keys of the last block; those of SC-CLIP are of its first pass.

    Returns:
        (tokens before the last norm (B, h * w, C), keys through the output projection (B, h * w, C) or ``None``).
    """
    *earlier, last = blocks
    if variant in LAST_BLOCK_VARIANTS:
        for block in earlier:
            x = run_block(block, x)
        return dense_last_block(last, x, grid, variant, want_keys)
    levels = [x]
    for block in earlier:
        levels.append(run_block(block, levels[-1]))
    if variant == "scclip":
        dense, keys = self_calibrated(last, levels, grid)
    else:
        dense, keys = with_residual_attention(blocks, levels, grid)
    return dense, keys if want_keys else None


def self_calibrated(
    block: nn.Module, levels: Sequence[torch.Tensor], grid: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs the last block as in SC-CLIP (Bai et al., 2024): anomaly tokens, self-adjusting and multi-level fusion.

    On grids that are not square, the authors' program replaces other tokens than the outliers that it found.

    Args:
        block: The last block.
        levels: The tokens (B, 1 + h * w, C) ahead of the first block and after each but the last.
        grid: (h, w).

    Returns:
        (tokens before the last norm (B, h * w, C), keys of the first pass through the output projection, likewise).
    """
    low, middle, high = (level_of(number, len(levels)) for number in (4, 9, 10))
    last, summed = levels[-1], sum(levels[low : high + 1])
    found = outliers(last[:, 1:])
    similar = cosines(replaced(levels[middle][:, 1:], found, grid))
    adjusted = averaged(replaced(last[:, 1:], found, grid), similar)
    both = torch.cat([adjusted, summed[:, 1:]])  # (2 * B, h * w, C), which share one pass
    attention, width = block.attn, both.shape[2]
    k, v = F.linear(block.ln_1(both), attention.in_proj_weight[width:], attention.in_proj_bias[width:]).chunk(2, dim=-1)
    by_keys = attended(k, k, v, attention.num_heads)
    k, v, by_keys = (part.unflatten(0, (2, -1)) for part in (k, v, by_keys))
    # What follows is linear, and both passes share their similarities, so that it is done once for their sum.
    mean = (by_keys.sum(dim=0) + sharpened(similar) @ v.sum(dim=0)) / 2
    y = block.ls_1(attention.out_proj(mean) + attention.out_proj.bias)  # the bias of either pass
    y = averaged(y, cosines(levels[low][:, 1:])) + CLASS_TOKEN_SHARE * (last + summed)[:, :1]
    return y, attention.out_proj(k[0])


def with_residual_attention(
    blocks: Sequence[nn.Module], levels: Sequence[torch.Tensor], grid: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs the last block with ResCLIP's residual cross-correlation self-attention (Yang et al., CVPR 2025).

    The other half of ResCLIP, semantic feedback refinement, changes the attention by what was found for the prompts.
    It is left out, because here an image is encoded once and asked for any prompts afterwards.

    Args:
        blocks: All blocks.
        levels: The tokens (B, 1 + h * w, C) ahead of the first block and after each but the last.
        grid: (h, w).

    Returns:
        (tokens before the last norm (B, h * w, C), keys through the output projection, likewise).
    """
    attention, width = blocks[-1].attn, levels[-1].shape[2]
    last = F.linear(blocks[-1].ln_1(levels[-1]), attention.in_proj_weight[width:], attention.in_proj_bias[width:])
    k, v = last.chunk(2, dim=-1)
    end = max(1, level_of(9, len(levels)))
    earlier = range(min(level_of(5, len(levels)), end - 1), end)
    residual = torch.zeros_like(v)
    for index in earlier:
        # The mean of their attention times v is the mean of their products with v, which need no matrix of scores.
        layer, x = blocks[index].attn, blocks[index].ln_1(levels[index])
        queries, keys = F.linear(x, layer.in_proj_weight[: 2 * width], layer.in_proj_bias[: 2 * width]).chunk(2, dim=-1)
        residual = residual + attended(queries, keys, v, layer.num_heads) / len(earlier)
    near = attended(k, k, v, attention.num_heads, grid)
    mixed = RESIDUAL_SCALE * ((1 - RESIDUAL_SHARE) * near + RESIDUAL_SHARE * residual)
    return blocks[-1].ls_1(attention.out_proj(mixed))[:, 1:], attention.out_proj(k[:, 1:])


def level_of(number: int, depth: int) -> int:
    """Returns the level of a tower of ``depth`` blocks that is as deep as level ``number`` of one of 12.

    It is rounded to the nearest one, and at most ``depth - 1``, ahead of the last block.
    """
    return min((2 * number * depth + _AUTHORS_DEPTH) // (2 * _AUTHORS_DEPTH), depth - 1)


def outliers(tokens: torch.Tensor) -> torch.Tensor:
    """Finds the tokens that lie apart from all others, by the local outlier factor.

    As in the authors' program, the density at a token is 1 / d^2 with d its distance to the ``NEIGHBOURS``-th nearest
    token, and the factor is the mean density at these neighbours, divided by its own.

    Args:
        tokens: (B, N, C).

    Returns:
        (B, N) bool, of which at most ``OUTLIER_PERCENT`` of each image, rounded up, are True; none if all others are
        neighbours of every token.
    """
    count = tokens.shape[1]
    if count <= NEIGHBOURS + 1:
        # The two tokens that are farthest from each other would have the same factor, and rounding would choose one.
        return torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    # Sixteen bits hold neither the squares nor their differences. Tokens share a large part, which would be rounded.
    x = tokens.float()
    x = x - x.mean(dim=1, keepdim=True)
    lengths = x.square().sum(dim=-1)
    squared = lengths[:, :, None] + lengths[:, None] - 2 * (x @ x.transpose(1, 2))  # (B, N, N)
    nearest = squared.topk(NEIGHBOURS + 1, largest=False)
    sparseness = nearest.values[..., -1].clamp(min=1e-12)
    others = nearest.indices[..., 1:]  # without the token itself
    density = sparseness.reciprocal()[:, None].expand(-1, count, -1).gather(2, others)
    factor = sparseness * density.mean(dim=-1)
    most = count - 1 - (100 - OUTLIER_PERCENT) * (count - 1) // 100
    return factor > factor.topk(most + 1).values[:, -1:]


def replaced(tokens: torch.Tensor, found: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Replaces tokens by the mean of their eight neighbours on the grid, of those that are not replaced themselves.

    Args:
        tokens: (B, h * w, C).
        found: (B, h * w) bool, which to replace; those without a neighbour to take stay.
        grid: (h, w).

    Returns:
        (B, h * w, C).
    """
    maps = tokens.transpose(1, 2).unflatten(2, grid)
    found = found.unflatten(1, grid)[:, None]
    total = F.avg_pool2d(maps.masked_fill(found, 0.0), 3, stride=1, padding=1)
    share = F.avg_pool2d((~found).to(maps.dtype), 3, stride=1, padding=1)
    means = total / share.clamp(min=0.1)  # a single neighbour has a share of 1/9
    return torch.where(found & (share > 0), means, maps).flatten(2).transpose(1, 2)


def cosines(tokens: torch.Tensor) -> torch.Tensor:
    """Returns the cosines (B, N, N) of tokens (B, N, C) with each other."""
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.transpose(1, 2)


def averaged(tokens: torch.Tensor, similar: torch.Tensor) -> torch.Tensor:
    """Returns the means (B, N, C) of the tokens similar to each, weighted by their cosines (B, N, N)."""
    return F.normalize(similar.masked_fill(similar < LEAST_SIMILARITY, 0.0), p=1.0, dim=-1) @ tokens


def sharpened(similar: torch.Tensor) -> torch.Tensor:
    """Returns an attention (B, N, N) from cosines, to the tokens of more than the image's mean cosine alone."""
    scores = SHARPNESS * (similar - similar.mean(dim=(1, 2), keepdim=True))
    return scores.masked_fill(scores < 0, -torch.inf).softmax(dim=-1)
