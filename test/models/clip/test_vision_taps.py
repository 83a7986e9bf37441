# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.clip.backbone import CLIP, VisionConfig, build_vision_tower
from clip_seg_ros.models.clip.positions import resize_position_table
from clip_seg_ros.models.clip.vision_taps import ResNetTaps, ViTTaps, build_taps, run_block
from nearness import assert_near


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def hooked(module: torch.nn.Module, seen: list[torch.Tensor]) -> None:
    module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))


class TestViT:
    @torch.no_grad()
    def test_taps_are_the_block_outputs_of_open_clip(self, vit_clip: CLIP) -> None:
        seen: list[torch.Tensor] = []
        for block in (1, 3):
            hooked(vit_clip.visual.transformer.resblocks[block], seen)
        images = randn(2, 3, 32, 32)
        embedding = vit_clip.encode_image(images)
        expected = tuple(seen)
        features = ViTTaps(vit_clip.visual, [1, 3])(images, want_pooled=True)
        assert features.grid_size == (4, 4)
        for tap, output in zip(features.taps, expected, strict=True):
            assert_near(tap, output)
        assert_near(features.pooled, embedding)

    @torch.no_grad()
    def test_stops_at_the_last_tap(self, vit_clip: CLIP) -> None:
        seen: list[torch.Tensor] = []
        for block in vit_clip.visual.transformer.resblocks:
            hooked(block.ln_1, seen)
        features = ViTTaps(vit_clip.visual, [0, 2])(randn(1, 3, 32, 32))
        assert len(seen) == 3
        assert features.pooled is None

    @torch.no_grad()
    def test_any_size(self, vit_clip: CLIP) -> None:
        features = ViTTaps(vit_clip.visual, [4])(randn(2, 3, 40, 72), want_pooled=True)
        assert features.grid_size == (5, 9)
        assert features.taps[0].shape == (2, 1 + 5 * 9, 24)
        assert features.pooled.shape == (2, 20)

    def test_refuses_what_does_not_fit(self, vit_clip: CLIP) -> None:
        with pytest.raises(ValueError, match="multiples of 8 pixels, got 32x33"):
            ViTTaps(vit_clip.visual, [1])(randn(1, 3, 32, 33))
        with pytest.raises(ValueError, match=r"0\.\.4, got \(3, 5\)"):
            ViTTaps(vit_clip.visual, [3, 5])
        with pytest.raises(ValueError, match="8 pixels wide, not 16"):
            build_taps(vit_clip.visual, [1], 16)


class TestResNet:
    @torch.no_grad()
    def test_taps_are_the_stages_on_one_grid(self, resnet_clip: CLIP) -> None:
        visual = resnet_clip.visual
        maps: list[torch.Tensor] = []
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            hooked(layer, maps)
        images = randn(2, 3, 64, 96)
        visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))
        fine, same, coarse, coarsest = maps

        taps = ResNetTaps(visual, [1, 2, 3, 4], grid_stride=8)
        features = taps(images)
        expected = (
            F.avg_pool2d(fine, 2),
            same,
            F.interpolate(coarse, size=(8, 12), mode="bilinear", align_corners=False),
            F.interpolate(coarsest, size=(8, 12), mode="bilinear", align_corners=False),
        )
        assert features.grid_size == (8, 12)
        for tap, tokens in zip(taps.to_tokens(tuple(maps), (8, 12)), expected, strict=True):
            assert_near(tap, tokens.flatten(2).transpose(1, 2))
        # Coarser ones are left to whoever makes them narrower first.
        for tap, tokens in zip(features.taps, (*expected[:2], coarse, coarsest), strict=True):
            assert_near(tap, tokens.flatten(2).transpose(1, 2))

    @torch.no_grad()
    def test_output_stride(self, resnet_clip: CLIP) -> None:
        taps = ResNetTaps(resnet_clip.visual, [4], grid_stride=16)
        stride = taps.multiple
        assert taps.dense(taps.feature_maps(randn(1, 3, 64, 96), 4)[3]).shape == (1, 20, 64 // stride, 96 // stride)
        assert stride in (16, 32)

    @torch.no_grad()
    def test_pool_is_open_clips(self, resnet_clip: CLIP) -> None:
        taps = ResNetTaps(resnet_clip.visual, [4], grid_stride=16)
        # The position table is made for a grid of 2 x 2, where open_clip's own pool works.
        side = 2 * taps.multiple
        images = randn(2, 3, side, side)
        features = taps(images, want_pooled=True)
        assert_near(features.pooled, resnet_clip.encode_image(images))

    @torch.no_grad()
    def test_pool_at_another_size(self, resnet_clip: CLIP) -> None:
        taps = ResNetTaps(resnet_clip.visual, [4], grid_stride=16)
        layer4_map = taps.feature_maps(randn(2, 3, 96, 128), 4)[3]
        pool = resnet_clip.visual.attnpool
        grid = tuple(layer4_map.shape[-2:])
        table = resize_position_table(pool.positional_embedding, (2, 2), grid)
        pooled = taps.pool(layer4_map)
        pool.positional_embedding = torch.nn.Parameter(table)
        assert_near(pooled, pool(layer4_map))

    @torch.no_grad()
    def test_dense_is_what_pooling_one_position_gives(self, resnet_clip: CLIP) -> None:
        """Attention over equal tokens returns their value, so a constant map pools to its own dense embedding."""
        taps = ResNetTaps(resnet_clip.visual, [4], grid_stride=16)
        resnet_clip.visual.attnpool.positional_embedding.zero_()
        constant = randn(2, 256, 1, 1).expand(-1, -1, 2, 2)
        assert_near(taps.dense(constant)[:, :, 1, 0], taps.pool(constant))

    @torch.no_grad()
    def test_channels_last_changes_nothing(self, resnet_clip: CLIP) -> None:
        taps = ResNetTaps(resnet_clip.visual, [2, 4], grid_stride=8)
        images = randn(1, 3, 64, 64)
        before = taps(images, want_pooled=True)
        resnet_clip.to(memory_format=torch.channels_last)
        after = taps(images, want_pooled=True)
        for tap, expected in zip(after.taps, before.taps, strict=True):
            assert_near(tap, expected, relative=2e-5)
        assert_near(after.pooled, before.pooled, relative=2e-5)

    def test_refuses_what_does_not_fit(self, resnet_clip: CLIP) -> None:
        with pytest.raises(ValueError, match=r"1\.\.4, got \(0, 2\)"):
            ResNetTaps(resnet_clip.visual, [0, 2], grid_stride=8)
        with pytest.raises(ValueError, match="grid stride"):
            ResNetTaps(resnet_clip.visual, [2], grid_stride=12)
        with pytest.raises(ValueError, match="multiples of"):
            ResNetTaps(resnet_clip.visual, [2], grid_stride=8)(randn(1, 3, 72, 64))


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_a_block_without_gradients_is_the_same_block(quick_gelu: bool) -> None:
    vision = VisionConfig(layers=1, width=24, image_size=32, patch_size=8, head_width=12)
    torch.manual_seed(0)
    block = build_vision_tower(vision, embed_dim=20, quick_gelu=quick_gelu).transformer.resblocks[0].eval()
    for parameter in block.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    x = 3 * torch.randn(2, 17, 24)
    kept = x.clone()
    expected = run_block(block, x)
    assert expected.requires_grad
    with torch.no_grad():
        assert_near(run_block(block, x), expected)
    assert torch.equal(x, kept)
