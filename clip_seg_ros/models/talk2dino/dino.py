# SPDX-License-Identifier: Apache-2.0
"""DINOv2 with registers (Darcet et al., ICLR 2024): timm's ViT at any grid of patches, and what its heads look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clip_seg_ros.models.kept import KeptTensors
from clip_seg_ros.models.layers import split_heads

_SIZES = 8
"""The number of image sizes for which a position table is kept."""
_LOGIT_SCALE = 0.125
"""The factor on products of queries and keys: that of heads of 64 channels, which every published DINOv2 has."""


@dataclass(frozen=True)
class DinoConfig:
    """Everything that determines the shapes of the tower's weights."""

    layers: int
    width: int
    heads: int
    image_size: int = 518
    """Side in pixels of the square input for which the position table was made."""
    patch_size: int = 14
    registers: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"the width of the image tower, {self.width}, does not divide into {self.heads} heads")

    @property
    def native_side(self) -> int:
        """The number of patches along a side of the square for which the position table was made."""
        return self.image_size // self.patch_size


def smooth_cubic(count: int, given: int) -> NDArray[np.float32]:
    """Returns the matrix (``count``, ``given``) that resizes a line of numbers as DINOv2's authors do.

    It is torch's bicubic interpolation with ``antialias=True``, for which OpenVINO has no operation.
    """
    step = given / count
    stretch = max(step, 1.0)
    centres = (np.arange(count)[:, None] + 0.5) * step
    distance = np.abs(np.arange(given) + 0.5 - centres) / stretch
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


class DinoTower(nn.Module):
    """Images to embeddings of their patches."""

    def __init__(self, config: DinoConfig) -> None:
        """Builds timm's ViT with random weights; their names in the ``state_dict`` are timm's behind "vit."."""
        # timm takes seconds to import, and few models need it.
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        self.config = config
        self.vit = VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            num_classes=0,
            global_pool="",
            embed_dim=config.width,
            depth=config.layers,
            num_heads=config.heads,
            init_values=1e-5,
            no_embed_class=True,
            reg_tokens=config.registers,
        )
        self._kept = KeptTensors(_SIZES)

    def forward(self, pixels: torch.Tensor, with_attention: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Encodes images.

        Args:
            pixels: (B, 3, H, W), normalised; both sides are multiples of the patch.
            with_attention: Whether the second result is wanted.

        Returns:
            The embeddings of the patches after the last norm (B, C, h, w), and what each of the M heads of the last
            layer makes of each patch for the class token: logits (B, M, h, w), not yet a softmax.
        """
        vit = self.vit
        x = vit.patch_embed.proj(pixels)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2) + self._positions(grid, x.dtype)
        first = torch.cat([vit.cls_token, vit.reg_token], dim=1).expand(x.shape[0], -1, -1)
        x = torch.cat([first, x], dim=1)
        attention = None
        for index, block in enumerate(vit.blocks):
            if with_attention and index == len(vit.blocks) - 1:
                attention = self._class_attention(block, x).unflatten(2, grid)
            x = block(x)
        x = vit.norm(x)[:, 1 + self.config.registers :]
        return x.transpose(1, 2).unflatten(2, grid), attention

    def _class_attention(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits (B, M, N) of the class token's attention to the N patches, in a block with input ``x``."""
        query, key, _ = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
        query, key = (split_heads(part, self.config.heads) for part in (query[:, :1], key))
        logits = (query * _LOGIT_SCALE) @ key[:, :, 1 + self.config.registers :].transpose(2, 3)
        return logits[:, :, 0]

    def _positions(self, grid: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """Returns the position table (1, h * w, C) at ``grid`` (h, w)."""
        table, side = self.vit.pos_embed, self.config.native_side

        def resized() -> torch.Tensor:
            rows, columns = (torch.from_numpy(smooth_cubic(count, side)).to(table.device) for count in grid)
            squares = table.float().unflatten(1, (side, side))
            return torch.einsum("hy,wx,byxc->bhwc", rows, columns, squares).flatten(1, 2).to(dtype)

        if grid == (side, side):
            return table.to(dtype)
        return self._kept((grid, dtype), resized, table.device, table)
