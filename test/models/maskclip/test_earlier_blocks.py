# SPDX-License-Identifier: Apache-2.0
"""The steps of SC-CLIP and ResCLIP against slow ones, and both in towers of any depth."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.clip.backbone import CLIP
from clip_seg_ros.models.maskclip import earlier_blocks
from clip_seg_ros.models.maskclip.dense_attention import VARIANTS, neighbourhood
from nearness import assert_near

DEEP = ("scclip", "resclip")


def test_levels_keep_their_share_of_the_depth() -> None:
    assert [earlier_blocks.level_of(number, 12) for number in (4, 5, 9, 10)] == [4, 5, 9, 10]
    assert [earlier_blocks.level_of(number, 24) for number in (4, 5, 9, 10)] == [8, 10, 18, 20]
    for depth in range(1, 40):
        levels = [earlier_blocks.level_of(number, depth) for number in (4, 5, 9, 10)]
        assert levels == sorted(levels)
        assert levels[-1] < depth


@pytest.mark.parametrize("variant", DEEP)
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@torch.no_grad()
def test_towers_of_any_depth(vit_clip: CLIP, variant: str, depth: int) -> None:
    tokens = torch.randn(2, 13, 24, generator=torch.Generator().manual_seed(1))
    blocks = vit_clip.visual.transformer.resblocks[:depth]
    dense, keys = earlier_blocks.dense_tokens(blocks, tokens, (3, 4), variant, want_keys=True)
    assert dense.shape == keys.shape == (2, 12, 24)
    assert dense.isfinite().all()
    assert (dense[0] - dense[1]).abs().max() > 1e-2
    assert (dense[:, :1] - dense[:, 1:]).abs().max() > 1e-2, "places differ"
    alone, nothing = earlier_blocks.dense_tokens(blocks, tokens[1:], (3, 4), variant)
    assert_near(alone, dense[1:])
    assert nothing is None


@torch.no_grad()
def test_the_other_variants_read_the_last_block_alone(vit_clip: CLIP) -> None:
    blocks = vit_clip.visual.transformer.resblocks
    tokens = torch.randn(1, 13, 24, generator=torch.Generator().manual_seed(2))
    before = tokens
    for block in blocks[:-1]:
        before = block(before)
    for variant in set(VARIANTS) - set(DEEP):
        dense, _ = earlier_blocks.dense_tokens(blocks, tokens, (3, 4), variant)
        assert_near(dense, earlier_blocks.dense_last_block(blocks[-1], before, (3, 4), variant)[0])


def test_outliers_equal_their_definition() -> None:
    tokens = torch.randn(2, 60, 8, generator=torch.Generator().manual_seed(3))
    tokens[0, 7] *= 5
    tokens[1, 40] += 9
    found = earlier_blocks.outliers(100 + tokens)  # what all share does not count
    for image, marks in zip(tokens.double(), found, strict=True):
        squared = torch.cdist(image, image) ** 2
        order = squared.argsort(dim=1)[:, 1:31]
        density = 1 / squared.gather(1, order[:, -1:])[:, 0]
        factor = density[order].mean(dim=1) / density
        assert marks.tolist() == (factor > factor.quantile(0.95)).tolist()
        assert marks.sum() == 3
    assert found[0, 7]
    assert found[1, 40]


def test_equal_tokens_stay() -> None:
    """Rounding alone may tell one of them from the others, which changes nothing."""
    tokens = torch.ones(2, 70, 8)
    assert_near(earlier_blocks.replaced(tokens, earlier_blocks.outliers(tokens), (7, 10)), tokens)


def test_few_tokens_have_no_outliers() -> None:
    tokens = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(6))
    for count in (1, 2, 31):
        assert not earlier_blocks.outliers(tokens[:, :count]).any()
    assert earlier_blocks.outliers(tokens).sum(dim=1).tolist() == [2, 2]


def test_replaced_tokens_are_means_of_their_neighbours() -> None:
    grid = (3, 5)
    tokens = torch.randn(1, 15, 4, generator=torch.Generator().manual_seed(4))
    found = torch.zeros(1, 15, dtype=torch.bool)
    found[0, [0, 7, 8]] = True
    maps, result = tokens.view(*grid, 4), earlier_blocks.replaced(tokens, found, grid).view(*grid, 4)
    assert_near(result[0, 0], (maps[0, 1] + maps[1, 0] + maps[1, 1]) / 3)
    around = [maps[row, column] for row in range(3) for column in (1, 2, 3) if (row, column) not in ((1, 2), (1, 3))]
    assert_near(result[1, 2], sum(around) / 7)
    same = ~found.view(grid)
    assert torch.equal(result[same], maps[same])
    assert torch.equal(earlier_blocks.replaced(tokens, torch.ones_like(found), grid), tokens), "no neighbour is left"


def test_tokens_are_averaged_over_similar_ones() -> None:
    cosines = torch.tensor([[[1.0, 0.5, 0.39], [0.5, 1.0, -0.7], [0.39, -0.7, 1.0]]])
    tokens = torch.tensor([[[3.0], [6.0], [9.0]]])
    expected = torch.tensor([[[(3 + 0.5 * 6) / 1.5], [(0.5 * 3 + 6) / 1.5], [9.0]]])
    assert_near(earlier_blocks.averaged(tokens, cosines), expected)


def test_attention_goes_to_more_than_mean_cosines_alone() -> None:
    tokens = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(5))
    cosines = F.cosine_similarity(tokens[:, :, None], tokens[:, None], dim=-1)
    assert_near(earlier_blocks.cosines(tokens), cosines)
    attention = earlier_blocks.sharpened(cosines)
    for image, row in ((0, 2), (1, 8)):
        seen = cosines[image, row] >= cosines[image].mean()
        assert not seen.all()
        expected = torch.zeros(9)
        expected[seen] = (3 * cosines[image, row][seen]).softmax(dim=0)
        assert_near(attention[image, row], expected)


@torch.no_grad()
def test_residual_attention_is_a_mean_of_matrices(vit_clip: CLIP) -> None:
    """Five blocks: the attention of the third and the fourth is added."""
    blocks = list(vit_clip.visual.transformer.resblocks)
    levels = [2 * torch.randn(1, 13, 24, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]

    def scores(block: nn.Module, x: torch.Tensor, first: int, second: int) -> torch.Tensor:
        parts = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        q, k = (parts[index].view(13, 2, 12).transpose(0, 1) for index in (first, second))
        return q @ k.transpose(1, 2) / 12**0.5

    residual = sum(scores(blocks[index], levels[index], 0, 1).softmax(dim=-1) for index in (2, 3)) / 2
    near = (scores(blocks[4], levels[4], 1, 1) + neighbourhood((3, 4))).softmax(dim=-1)
    attention = blocks[4].attn
    v = F.linear(blocks[4].ln_1(levels[4]), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)[2]
    mixed = 2 * (0.7 * near + 0.3 * residual) @ v.view(13, 2, 12).transpose(0, 1)
    expected = attention.out_proj(mixed.transpose(0, 1).reshape(1, 13, 24))[:, 1:]
    assert_near(earlier_blocks.with_residual_attention(blocks, levels, (3, 4))[0], expected)
