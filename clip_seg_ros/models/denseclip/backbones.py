# SPDX-License-Identifier: Apache-2.0
"""The image towers of DenseCLIP: CLIP's own towers, as the authors use them, or any backbone of timm.

Each gives four maps at strides 4, 8, 16 and 32, and embeddings of the whole image and of every place in the space of
the text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.base import ImageFeatures
from clip_seg_ros.models.clip.backbone import ModifiedResNet, VisionTransformer
from clip_seg_ros.models.clip.positions import PositionTable
from clip_seg_ros.models.clip.vision_taps import run_block
from clip_seg_ros.models.layers import PatchUpsample, split_heads

STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class DenseFeatures(ImageFeatures):
    """The features of an image for DenseCLIP's decoders."""

    maps: tuple[torch.Tensor, ...]
    """Four maps (B, C_i, h_i, w_i) at the strides 4, 8, 16 and 32."""
    pooled: torch.Tensor
    """(B, D) embedding of the whole image, not normalised."""
    dense: torch.Tensor
    """(B, D, h, w) embedding of every place, not normalised."""

    def places(self) -> torch.Tensor:
        """Returns the map at the stride 16: the embeddings are as coarse as small objects."""
        return self.maps[2]


class DenseBackbone(nn.Module, ABC):
    """The interface of DenseCLIP's image towers."""

    widths: tuple[int, int, int, int]
    """The numbers of channels of the four maps."""
    score_stage: int
    """The index of the map to which the score map is added: the one at the resolution of the dense embeddings."""

    @abstractmethod
    def forward(self, pixels: torch.Tensor) -> DenseFeatures:
        """Encodes normalised images (B, 3, H, W)."""


class DenseResNet(DenseBackbone):
    """CLIP's ModifiedResNet, whose attention pool is applied at every place."""

    score_stage = 3

    def __init__(self, visual: ModifiedResNet) -> None:
        super().__init__()
        self.visual = visual
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        self.widths = tuple(stage[-1].bn3.num_features for stage in stages)
        side = visual.image_size // 32
        self._positions = PositionTable(visual.attnpool, (side, side), "bilinear")

    def forward(self, pixels: torch.Tensor) -> DenseFeatures:
        visual, pool = self.visual, self.visual.attnpool
        maps = [visual.stem(pixels)]
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            maps.append(layer(maps[-1]))
        grid = tuple(maps[-1].shape[2:])
        x = maps[-1].flatten(2).transpose(1, 2)
        positions = self._positions(grid, x.dtype)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + positions  # (B, 1 + h * w, C)
        query, key, value = (split_heads(f(x), pool.num_heads) for f in (pool.q_proj, pool.k_proj, pool.v_proj))
        x = pool.c_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        dense = x[:, 1:].transpose(1, 2).unflatten(2, grid)
        return DenseFeatures(tuple(maps[1:]), pooled=x[:, 0], dense=dense)


class ViTPyramid(nn.Module):
    """Resizes four maps of stride 16 to the strides 4, 8, 16 and 32, as ViT detectors do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fpn1 = nn.Sequential(
            nn.GroupNorm(1, width),
            PatchUpsample(width, width, 2),
            nn.BatchNorm2d(width),
            nn.GELU(),
            PatchUpsample(width, width, 2),
        )
        self.fpn2 = nn.Sequential(nn.GroupNorm(1, width), PatchUpsample(width, width, 2))
        self.fpn3 = nn.GroupNorm(1, width)
        self.fpn4 = nn.Sequential(nn.GroupNorm(1, width), nn.MaxPool2d(2))

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Transforms four maps (B, C, h, w) to (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w), (B, C, h / 2, w / 2)."""
        levels = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        return tuple(level(x) for level, x in zip(levels, maps, strict=True))


class DenseViT(DenseBackbone):
    """CLIP's ViT, with the outputs of four blocks resized to four strides."""

    score_stage = 2

    def __init__(self, visual: VisionTransformer, blocks: tuple[int, int, int, int], drop_path: float) -> None:
        """Taps ``visual`` after ``blocks`` (0-based); training drops branches at rates up to ``drop_path``."""
        super().__init__()
        if visual.patch_size[0] != 16:
            raise ValueError(f"the pyramid is made for patches of 16 pixels, got {visual.patch_size[0]}")
        self.visual = visual
        self.blocks = blocks
        width, depth = visual.class_embedding.shape[0], len(visual.transformer.resblocks)
        if not 0 <= blocks[0] < blocks[1] < blocks[2] < blocks[3] < depth:
            raise ValueError(f"block numbers must ascend within 0..{depth - 1}, got {blocks}")
        self.widths = (width,) * 4
        self.drop_rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
        self.pyramid = ViTPyramid(width)
        self._positions = PositionTable(visual, visual.grid_size, "bilinear")

    def forward(self, pixels: torch.Tensor) -> DenseFeatures:
        visual = self.visual
        x = visual.conv1(pixels)
        grid = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)
        # The authors' program adds the class embedding twice: as the token, and to its place.
        cls = (2 * visual.class_embedding).to(x.dtype).expand(x.shape[0], 1, -1)
        x = visual.ln_pre(torch.cat([cls, x], dim=1) + self._positions(grid, x.dtype))
        maps = []
        for index, block in enumerate(visual.transformer.resblocks):
            if self.training:
                x = x + self._drop(block.ls_1(block.attention(block.ln_1(x))), index)
                x = x + self._drop(block.ls_2(block.mlp(block.ln_2(x))), index)
            else:
                x = run_block(block, x)
            if index in self.blocks:
                maps.append(x[:, 1:].transpose(1, 2).unflatten(2, grid))
        x = visual.ln_post(x) @ visual.proj  # (B, 1 + h * w, D)
        dense = x[:, 1:].transpose(1, 2).unflatten(2, grid)
        return DenseFeatures(self.pyramid(maps), pooled=x[:, 0], dense=dense)

    def _drop(self, branch: torch.Tensor, index: int) -> torch.Tensor:
        """Applies stochastic depth in training: leaves out a block's branch for some of the images."""
        rate = self.drop_rates[index]
        if rate == 0.0:
            return branch
        keep = torch.empty(branch.shape[0], 1, 1, device=branch.device, dtype=branch.dtype).bernoulli_(1 - rate)
        return branch * keep / (1 - rate)


class TimmBackbone(DenseBackbone):
    """Any backbone of timm, such as a ResNet or a Swin that was trained on ImageNet (section 3.4).

    It gives four maps at strides 4 to 32, or, as plain ViTs do, four at stride 16 that a pyramid resizes. It was
    trained without text: a linear map projects its last stage to the width of the text, and training does the rest.
    """

    def __init__(self, name: str, embed_dim: int, options: Mapping[str, Any]) -> None:
        """Builds timm's ``name`` with random weights; ``options`` go to ``timm.create_model``.

        Raises:
            ValueError: timm cannot build it with these options, or it has no maps at these strides.
        """
        # timm takes seconds to import, and few models need it.
        import timm
        from timm.layers import Format

        super().__init__()
        try:
            self.body = timm.create_model(name, pretrained=False, features_only=True, **options)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f'timm cannot give the maps of "{name}" with the options {options}: {error}') from error
        strides = tuple(self.body.feature_info.reduction()[-4:])
        self.widths = tuple(self.body.feature_info.channels()[-4:])
        if strides == STRIDES:
            self.pyramid, self.score_stage = None, 3
        elif strides == (16,) * 4 and len(set(self.widths)) == 1:
            self.pyramid, self.score_stage = ViTPyramid(self.widths[0]), 2
        else:
            raise ValueError(
                f'"{name}" has maps at strides {strides}; needed are {STRIDES}, or four of equal width at stride 16. '
                "The option out_indices of timm chooses them"
            )
        self._channels_last = getattr(self.body, "output_fmt", Format.NCHW) == Format.NHWC
        self.proj = nn.Linear(self.widths[-1], embed_dim)

    def forward(self, pixels: torch.Tensor) -> DenseFeatures:
        maps = tuple(self.body(pixels)[-4:])
        if self._channels_last:
            maps = tuple(x.permute(0, 3, 1, 2) for x in maps)
        grid = tuple(maps[-1].shape[2:])
        x = self.proj(maps[-1].flatten(2).transpose(1, 2))  # (B, h * w, D)
        dense = x.transpose(1, 2).unflatten(2, grid)
        maps = maps if self.pyramid is None else self.pyramid(maps)
        return DenseFeatures(maps, pooled=x.mean(dim=1), dense=dense)
