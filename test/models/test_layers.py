# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.layers import PatchUpsample, PostNormBlock
from nearness import assert_near


@pytest.mark.parametrize(("out_channels", "stride"), [(1, 8), (3, 4)])
def test_patch_upsample_is_a_transposed_convolution(out_channels: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = PatchUpsample(6, out_channels, stride)
    x = torch.randn(2, 6, 3, 5)
    expected = F.conv_transpose2d(x, layer.weight, layer.bias, stride=stride)
    assert_near(layer(x), expected)


def test_post_norm_block_is_torchs_encoder_layer() -> None:
    torch.manual_seed(0)
    block = PostNormBlock(12, n_heads=3, feed_forward=20, dropout=0.0)
    reference = nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, batch_first=True)
    reference.load_state_dict(block.state_dict())
    x = torch.randn(2, 7, 12)
    assert_near(block(x), reference(x))


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    block = PostNormBlock(12, n_heads=3, feed_forward=20, dropout=0.5)
    x = torch.randn(1, 7, 12)
    assert (block(x) - block(x)).abs().max() > 0.1
    block.eval()
    assert_near(block(x), block(x))
