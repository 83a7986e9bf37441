# SPDX-License-Identifier: Apache-2.0
"""Reads activations of chosen layers and dense embeddings from CLIP's image towers, for images of any size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.base import ImageFeatures
from clip_seg_ros.models.clip.backbone import ModifiedResNet, QuickGELU, ResidualAttentionBlock, VisionTransformer
from clip_seg_ros.models.clip.positions import PositionTable
from clip_seg_ros.models.layers import attend_within


def embed_patches(visual: VisionTransformer, pixels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Returns a ViT's tokens (B, 1 + h * w, C) before ``ln_pre``: the class token is first, and positions are added.

    Args:
        visual: The tower.
        pixels: (B, 3, H, W).
        positions: (1 + h * w, C), the position table at the (h, w) patches of ``pixels``.
    """
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (B, h * w, C)
    cls = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
    return visual.patch_dropout(torch.cat([cls, x], dim=1) + positions.to(x.dtype))


def run_block(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Runs a ViT's block on tokens (B, N, C); it is faster if no gradient is needed.

    The attention then uses the fused kernel, and the feed-forward net is that of ``feed_forward``.
    """
    # The attention of other kinds of blocks does more, such as norms of queries and keys.
    if torch.is_grad_enabled() or type(block) is not ResidualAttentionBlock:
        return block(x)
    x = x + block.ls_1(attend_within(block.attn, block.ln_1(x)))
    return x + feed_forward(block, x)


def feed_forward(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Runs the second branch of a ViT's block, norm and feed-forward net, on tokens (B, N, C).

    If no gradient is needed, QuickGELU is a single pass in place over the tower's largest tensor:
    x * sigmoid(1.702 x) = silu(1.702 x) / 1.702, and both factors are part of the matrix products around it.
    """
    normed = block.ln_2(x)
    if torch.is_grad_enabled() or not isinstance(getattr(block.mlp, "gelu", None), QuickGELU):
        return block.ls_2(block.mlp(normed))
    up, down = block.mlp.c_fc, block.mlp.c_proj
    hidden = torch.addmm(up.bias, normed.flatten(0, 1), up.weight.t(), beta=1.702, alpha=1.702)
    hidden = torch.addmm(down.bias, F.silu(hidden, inplace=True), down.weight.t(), alpha=1 / 1.702)
    return block.ls_2(hidden.view_as(x))


@dataclass(frozen=True)
class TapFeatures(ImageFeatures):
    """Tokens of chosen layers of an image tower."""

    taps: tuple[torch.Tensor, ...]
    """The taps, shallowest first: each (B, prefix + h * w, C_i) in row-major order, or coarser as in ``ResNetTaps``."""
    grid_size: tuple[int, int]
    """(h, w) of the token grid."""
    pooled: torch.Tensor | None = None
    """(B, D) image embedding, not normalised; ``None`` if it was not requested."""

    def places(self) -> torch.Tensor:
        """Returns the deepest tap as a map, (B, C, h, w), without tokens before the grid."""
        (rows, columns), deepest = self.grid_size, self.taps[-1]
        ratio = max(1, round((rows * columns / deepest.shape[1]) ** 0.5))
        rows, columns = rows // ratio, columns // ratio
        return deepest[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))


class VisionTaps(ABC):
    """Reads activations from inside an image tower.

    It refers to the tower and has no weights of its own, so that the tower is registered in one place only.
    """

    widths: tuple[int, ...]
    """The number of channels of each tap."""
    stride: int
    """Distance between neighbouring tokens of the grid in pixels."""
    multiple: int
    """Both sides of the input must be multiples of this number."""
    prefix_tokens: int
    """The number of tokens before the grid: 1 if there is a class token, else 0."""

    @abstractmethod
    def __call__(self, pixels: torch.Tensor, want_pooled: bool = False) -> TapFeatures:
        """Encodes normalised images.

        Args:
            pixels: (B, 3, H, W); H and W multiples of ``multiple``.
            want_pooled: Whether to compute the image embedding, too; otherwise the tower stops at the last tap.

        Raises:
            ValueError: H or W is not a multiple of ``multiple``.
        """

    def _grid(self, pixels: torch.Tensor, stride: int) -> tuple[int, int]:
        height, width = pixels.shape[-2:]
        if height % self.multiple or width % self.multiple or not height or not width:
            raise ValueError(f"image sides must be multiples of {self.multiple} pixels, got {height}x{width}")
        return height // stride, width // stride


class ViTTaps(VisionTaps):
    """Reads the outputs of chosen transformer blocks, including the class token: each (B, 1 + h * w, C)."""

    prefix_tokens = 1

    def __init__(self, visual: VisionTransformer, blocks: Sequence[int]) -> None:
        """Taps ``visual`` after ``blocks`` (0-based, ascending)."""
        depth = len(visual.transformer.resblocks)
        _require_ascending("block", blocks, 0, depth - 1)
        self.visual = visual
        self.blocks = tuple(blocks)
        self.stride = self.multiple = visual.patch_size[0]
        self.widths = (visual.class_embedding.shape[0],) * len(blocks)
        self._positions = PositionTable(visual, visual.grid_size)

    def __call__(self, pixels: torch.Tensor, want_pooled: bool = False) -> TapFeatures:
        visual = self.visual
        grid = self._grid(pixels, self.stride)
        x = visual.ln_pre(embed_patches(visual, pixels, self._positions(grid, pixels.dtype)))
        taps = []
        for index, block in enumerate(visual.transformer.resblocks):
            if index > self.blocks[-1] and not want_pooled:
                break
            x = run_block(block, x)
            if index in self.blocks:
                taps.append(x)
        pooled = visual.ln_post(x[:, 0]) @ visual.proj if want_pooled else None
        return TapFeatures(taps=tuple(taps), grid_size=grid, pooled=pooled)

    def embed_object(
        self,
        pixels: torch.Tensor,
        masks: torch.Tensor,
        layers: Sequence[int] | None = None,
        queries: Literal["class", "all"] = "class",
    ) -> torch.Tensor:
        """Embeds one object of each image by weakening the other patches inside attention (CLIPSeg, section 3.3).

        As in the authors' program, the scores of the other patches are multiplied by 0 before the softmax. They lose
        what makes one patch more important than another, but not all of their influence.

        Args:
            pixels: (B, 3, H, W), normalised; H and W multiples of ``multiple``.
            masks: (B, H, W), bool or 0..1; a patch belongs to the object if the mask's pixel nearest to its first one
                is not 0, and for an object that has no such patch, if any of its pixels is not 0.
            layers: The blocks (0-based) in which the other patches are weakened; ``None``: all.
            queries: Whose scores of them are 0 there: those of the class token alone, or with "all" those of every
                patch, while the class token's stay.

        Returns:
            (B, D) image embeddings, not normalised.

        Raises:
            ValueError: A mask is empty or of another size than the image, there is no such block, or H or W does not
                fit.
        """
        visual = self.visual
        grid = self._grid(pixels, self.stride)
        blocks = visual.transformer.resblocks
        layers = range(len(blocks)) if layers is None else layers
        if not set(layers) <= set(range(len(blocks))):
            raise ValueError(f"block numbers must lie in 0..{len(blocks) - 1}, got {tuple(layers)}")
        if masks.shape != (pixels.shape[0], *pixels.shape[-2:]):
            raise ValueError(f"the masks {tuple(masks.shape)} do not fit the images {tuple(pixels.shape)}")
        seen = _object_patches(masks, grid).to(pixels.dtype)
        x = visual.ln_pre(embed_patches(visual, pixels, self._positions(grid, pixels.dtype)))
        factors = x.new_ones(x.shape[0], x.shape[1], x.shape[1])  # on the attention's scores
        rows = slice(0, 1) if queries == "class" else slice(1, None)
        factors[:, rows, 1:] = seen[:, None]
        for index, block in enumerate(blocks):
            if index in layers:
                x = x + block.ls_1(attend_within(block.attn, block.ln_1(x), factors[:, None]))
                x = x + feed_forward(block, x)
            else:
                x = run_block(block, x)
        return visual.ln_post(x[:, 0]) @ visual.proj


def _object_patches(masks: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Returns the patches (B, h * w) bool of objects in ``masks`` (B, H, W). Raises ValueError if one is empty."""
    there = (masks != 0).float()[:, None]
    nearest = F.interpolate(there, size=grid, mode="nearest").flatten(1) > 0
    touched = F.adaptive_max_pool2d(there, grid).flatten(1) > 0
    if not touched.any(dim=1).all():
        raise ValueError("the mask of an example image is empty: there is no object to embed")
    return torch.where(nearest.any(dim=1, keepdim=True), nearest, touched)


class ResNetTaps(VisionTaps):
    """Reads stages of a ModifiedResNet as tokens without a class token: each (B, h * w, C_i), or on a coarser grid.

    A linear map of tokens is cheaper before they are interpolated to a finer grid than after.

    Its steps can be called one by one, because training needs taps, dense embeddings and the pooled embedding from a
    single pass: ``maps = taps.feature_maps(pixels, 4)``, then ``to_tokens``, ``dense`` and ``pool``.
    """

    prefix_tokens = 0

    def __init__(self, visual: ModifiedResNet, stages: Sequence[int], grid_stride: int) -> None:
        """Taps ``visual`` after ``stages`` (1..4, ascending) on a grid of ``grid_stride`` (4, 8, 16 or 32) pixels."""
        _require_ascending("stage", stages, 1, 4)
        last_stride = 16 if isinstance(visual.layer4[0].avgpool, nn.Identity) else 32
        if grid_stride not in (4, 8, 16, 32):
            raise ValueError(f"the grid stride must be 4, 8, 16 or 32 pixels, got {grid_stride}")
        self.visual = visual
        self.stages = tuple(stages)
        self.stride = grid_stride
        self.multiple = max(last_stride, grid_stride)
        self.layers = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        self.widths = tuple(self.layers[stage - 1][-1].bn3.num_features for stage in stages)
        side = visual.image_size // 32
        self.positions = PositionTable(visual.attnpool, (side, side))

    def __call__(self, pixels: torch.Tensor, want_pooled: bool = False) -> TapFeatures:
        maps = self.feature_maps(pixels, 4 if want_pooled else self.stages[-1])
        grid = self._grid(pixels, self.stride)
        pooled = self.pool(maps[3]) if want_pooled else None
        return TapFeatures(taps=self.to_tokens(maps, grid, upsample=False), grid_size=grid, pooled=pooled)

    def feature_maps(self, pixels: torch.Tensor, last_stage: int) -> tuple[torch.Tensor, ...]:
        """Returns the maps (B, C_i, h_i, w_i) of stages 1 to ``last_stage`` for ``pixels`` (B, 3, H, W)."""
        self._grid(pixels, self.stride)
        x = self.visual.stem(pixels)
        maps = []
        for layer in self.layers[:last_stage]:
            x = layer(x)
            maps.append(x)
        return tuple(maps)

    def to_tokens(
        self, maps: tuple[torch.Tensor, ...], grid: tuple[int, int], upsample: bool = True
    ) -> tuple[torch.Tensor, ...]:
        """Interpolates the tapped maps to ``grid`` (h, w) and flattens them to (B, h * w, C_i).

        Without ``upsample``, maps that are coarser than ``grid`` keep their own grid.
        """
        tokens = []
        for stage in self.stages:
            x = maps[stage - 1]
            ratio = x.shape[-2] // grid[0]
            if ratio > 1:
                x = F.avg_pool2d(x, ratio)
            elif upsample and x.shape[-2:] != grid:
                x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
            tokens.append(x.flatten(2).transpose(1, 2))
        return tuple(tokens)

    def dense(self, layer4_map: torch.Tensor) -> torch.Tensor:
        """Embeds every place by the value path of the attention pool, without attention and positions.

        Args:
            layer4_map: (B, C, h, w).

        Returns:
            (B, D, h, w), in the space of the image and text embeddings, not normalised.
        """
        pool = self.visual.attnpool
        return pool.c_proj(pool.v_proj(layer4_map.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    def pool(self, layer4_map: torch.Tensor) -> torch.Tensor:
        """Pools ``layer4_map`` (B, C, h, w) by attention into the image embedding (B, D), not normalised."""
        pool = self.visual.attnpool
        positions = self.positions(tuple(layer4_map.shape[-2:]), layer4_map.dtype)
        x = layer4_map.flatten(2).transpose(1, 2)  # (B, h * w, C)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + positions.to(x.dtype)
        # Only the output of the mean token is used, so that it is the only query: (B, heads, tokens, C / heads).
        query, key, value = (
            projected.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
            for projected in (pool.q_proj(x[:, :1]), pool.k_proj(x), pool.v_proj(x))
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return pool.c_proj(attended.transpose(1, 2).flatten(2))[:, 0]


def _require_ascending(what: str, indices: Sequence[int], lowest: int, highest: int) -> None:
    ascending = all(a < b for a, b in pairwise(indices))
    if not indices or not ascending or indices[0] < lowest or indices[-1] > highest:
        raise ValueError(f"{what} numbers must ascend within {lowest}..{highest}, got {tuple(indices)}")


def build_taps(visual: nn.Module, layers: Sequence[int], stride: int) -> VisionTaps:
    """Makes the taps of a ViT or a ResNet.

    Args:
        visual: ``clip.visual``.
        layers: 0-based blocks of a ViT, or stages 1..4 of a ResNet; ascending.
        stride: Distance between tokens in pixels: the patch size of a ViT, or any stride to which a ResNet's maps are
            interpolated.

    Raises:
        ValueError: The tower has no such layers or stride.
    """
    if isinstance(visual, ModifiedResNet):
        return ResNetTaps(visual, layers, stride)
    taps = ViTTaps(visual, layers)
    if taps.stride != stride:
        raise ValueError(f"the tower's patches are {taps.stride} pixels wide, not {stride}")
    return taps
