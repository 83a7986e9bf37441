# SPDX-License-Identifier: Apache-2.0
"""Each variant of the last block against its equation written out token by token."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.clip.backbone import CLIP
from clip_seg_ros.models.maskclip.dense_attention import (
    LAST_BLOCK_VARIANTS,
    VARIANTS,
    dense_last_block,
    dense_pool,
    neighbourhood,
    pool_variant,
)
from nearness import assert_near

GRID = (3, 5)


@pytest.fixture
def tokens() -> torch.Tensor:
    """(2, 1 + 3 * 5, 24), class token first."""
    return 2 * torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(1))


def written_out(block: torch.nn.Module, x: torch.Tensor, variant: str) -> torch.Tensor:
    """The variant with its attention as matrices, for one head after the other."""
    attention = block.attn
    matrices, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (block.ln_1(x) @ matrix.T + bias for matrix, bias in zip(matrices, biases, strict=True))
    y = attention.out_proj(attended(q, k, v, attention.num_heads, variant, first=1))
    if variant in ("maskclip", "sclip"):
        y = x + y
        y = y + block.mlp(block.ln_2(y))
    return y[:, 1:]


def attended(q, k, v, heads: int, variant: str, first: int) -> torch.Tensor:
    """The attention (B, N, C) as matrices; ``first`` is the row of the grid's first place."""
    width = q.shape[-1] // heads
    parts = []
    for head in range(heads):
        qh, kh, vh = (part[..., head * width : (head + 1) * width] for part in (q, k, v))
        qq, kk = (part @ part.transpose(1, 2) / math.sqrt(width) for part in (qh, kh))
        if variant == "sclip":
            weights = qq.softmax(-1) + kk.softmax(-1)
        elif variant == "clearclip":
            weights = qq.softmax(-1)
        elif variant == "naclip":
            for i, j in itertools.product(range(GRID[0] * GRID[1]), repeat=2):
                (row_i, column_i), (row_j, column_j) = divmod(i, GRID[1]), divmod(j, GRID[1])
                squared = (row_i - row_j) ** 2 + (column_i - column_j) ** 2
                kk[:, first + i, first + j] += math.exp(-squared / 50)
            weights = kk.softmax(-1)
        else:
            weights = torch.eye(q.shape[1])
        parts.append(weights @ vh)
    return torch.cat(parts, dim=-1)


@pytest.mark.parametrize("variant", LAST_BLOCK_VARIANTS)
@torch.no_grad()
def test_equals_its_equation(vit_clip: CLIP, tokens: torch.Tensor, variant: str) -> None:
    block = vit_clip.visual.transformer.resblocks[-1]
    dense, keys = dense_last_block(block, tokens, GRID, variant, want_keys=True)
    assert_near(dense, written_out(block, tokens, variant))
    key_weight, key_bias = block.attn.in_proj_weight.chunk(3)[1], block.attn.in_proj_bias.chunk(3)[1]
    expected = block.attn.out_proj(F.linear(block.ln_1(tokens), key_weight, key_bias))[:, 1:]
    assert_near(keys, expected)
    alone, nothing = dense_last_block(block, tokens, GRID, variant)
    assert_near(alone, dense)
    assert nothing is None


@torch.no_grad()
def test_variants_differ(vit_clip: CLIP, tokens: torch.Tensor) -> None:
    block = vit_clip.visual.transformer.resblocks[-1]
    made = {variant: dense_last_block(block, tokens, GRID, variant)[0] for variant in LAST_BLOCK_VARIANTS}
    for a, b in itertools.combinations(LAST_BLOCK_VARIANTS, 2):
        assert (made[a] - made[b]).abs().max() > 1e-2, (a, b)


@torch.no_grad()
def test_maskclip_looks_at_no_other_place(vit_clip: CLIP, tokens: torch.Tensor) -> None:
    block = vit_clip.visual.transformer.resblocks[-1]
    changed = tokens.clone()
    changed[:, 4] += 1
    before, after = (dense_last_block(block, x, GRID, "maskclip")[0] for x in (tokens, changed))
    differs = (before - after).abs().amax(dim=(0, 2)) > 1e-4
    assert differs.nonzero().flatten().tolist() == [3]


def test_neighbourhood() -> None:
    bias = neighbourhood((2, 30))
    assert bias.shape == (61, 61)
    assert_near(bias, bias.T)
    assert not bias[0].any()
    assert not bias[:, 0].any()
    assert_near(bias.diagonal()[1:], torch.ones(60))
    # Patches 0 and 30 are one below the other, 0 and 5 in one row, 0 and 35 five columns and a row apart.
    expected = [math.exp(-distance / 50) for distance in (1, 25, 26)]
    assert_near(bias[1, [31, 6, 36]], torch.tensor(expected))


@pytest.mark.parametrize("variant", LAST_BLOCK_VARIANTS)
@torch.no_grad()
def test_the_pool_of_a_resnet_equals_its_equation(resnet_clip: CLIP, variant: str) -> None:
    pool = resnet_clip.visual.attnpool
    places = 2 * torch.randn(2, 15, pool.v_proj.in_features, generator=torch.Generator().manual_seed(2))
    dense, keys = dense_pool(pool, places, GRID, variant, want_keys=True)
    q, k, v = pool.q_proj(places), pool.k_proj(places), pool.v_proj(places)
    expected = pool.c_proj(attended(q, k, v, pool.num_heads, variant, first=0))
    assert_near(dense, expected, relative=2e-5)
    assert_near(keys, k)
    alone, nothing = dense_pool(pool, places, GRID, variant)
    assert_near(alone, dense)
    assert nothing is None


def test_a_pool_has_no_earlier_blocks() -> None:
    assert [pool_variant(variant) for variant in LAST_BLOCK_VARIANTS] == list(LAST_BLOCK_VARIANTS)
    for variant in set(VARIANTS) - set(LAST_BLOCK_VARIANTS):
        with pytest.raises(
            ValueError, match=f'"{variant}" reads the earlier .* ResNet: use maskclip, sclip, clearclip'
        ):
            pool_variant(variant)
