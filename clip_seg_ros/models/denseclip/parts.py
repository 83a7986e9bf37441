# SPDX-License-Identifier: Apache-2.0
"""DenseCLIP's context decoder, feature pyramid and head, with the authors' keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.convolutions import convolve_upsampled
from clip_seg_ros.models.kept import KeptTensors
from clip_seg_ros.models.layers import split_heads


class ContextAttention(nn.Module):
    """Multi-head attention whose three projections have no bias."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Attends from ``x`` (B, N, C) to ``memory`` (B, M, C)."""
        query = split_heads(self.q_proj(x), self.n_heads)
        key, value = (split_heads(f(memory), self.n_heads) for f in (self.k_proj, self.v_proj))
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.dropout(self.proj(attended.transpose(1, 2).flatten(2)))


class ContextDecoderLayer(nn.Module):
    """Texts attend to texts and then to the image; norms come first, and the image is not normed again."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = ContextAttention(width, n_heads, dropout)
        self.cross_attn = ContextAttention(width, n_heads, dropout)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Transforms texts (B, K, C) by the image (B, M, C)."""
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed)
        x = x + self.cross_attn(self.norm2(x), memory)
        return x + self.dropout(self.mlp(self.norm3(x)))


class ContextDecoder(nn.Module):
    """Adapts texts to the image (section 3.3, equations 3 to 5)."""

    def __init__(
        self, text_width: int, visual_width: int, width: int, n_heads: int, n_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.memory_proj = nn.Sequential(
            nn.LayerNorm(visual_width), nn.Linear(visual_width, width), nn.LayerNorm(width)
        )
        self.text_proj = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width))
        self.decoder = nn.ModuleList(ContextDecoderLayer(width, n_heads, dropout) for _ in range(n_layers))
        self.out_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, text_width))

    def forward(self, text: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """Returns (B, K, text_width) for texts (B, K, text_width) and visual tokens (B, M, visual_width)."""
        memory, x = self.memory_proj(visual), self.text_proj(text)
        for layer in self.decoder:
            x = layer(x, memory)
        return self.out_proj(x)


class _Convolution(nn.Module):
    """A convolution with the name ``conv``, as in the framework of the authors."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class FeaturePyramid(nn.Module):
    """FPN (Lin et al., CVPR 2017): coarse maps are added to finer ones from the top down; no norm, no activation."""

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(_Convolution(channels, out_channels, 1) for channels in in_channels)
        self.fpn_convs = nn.ModuleList(_Convolution(out_channels, out_channels, 3) for _ in in_channels)

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Transforms maps (B, C_i, h_i, w_i), finest first, to as many of ``out_channels`` channels."""
        laterals = [lateral(x) for lateral, x in zip(self.lateral_convs, maps, strict=True)]
        for level in range(len(laterals) - 1, 0, -1):
            size = laterals[level - 1].shape[2:]
            laterals[level - 1] = laterals[level - 1] + F.interpolate(laterals[level], size=size, mode="nearest")
        return tuple(conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=True))


class _NormedConvolution(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, upsamples: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self._kept = KeptTensors(1) if upsamples else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x) if self._kept is None else convolve_upsampled(self.conv, x, self._kept)
        return F.relu(self.bn(x), inplace=True)


class SemanticFPNHead(nn.Module):
    """Semantic FPN (Kirillov et al., CVPR 2019): every level is resized to stride 4, and their sum is classified."""

    def __init__(self, in_channels: int, channels: int, n_classes: int, dropout: float, n_levels: int = 4) -> None:
        super().__init__()
        self.scale_heads = nn.ModuleList()
        for level in range(n_levels):
            layers: list[nn.Module] = []
            for step in range(max(1, level)):
                if step > 0:
                    layers.append(nn.Identity())  # the authors upsample here, and the next convolution does it itself
                layers.append(_NormedConvolution(channels if step else in_channels, channels, upsamples=step > 0))
            if level > 0:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.scale_heads.append(nn.Sequential(*layers))
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, n_classes, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns logits (B, K, h, w) at the resolution of the finest of ``maps``."""
        total = self.scale_heads[0](maps[0])
        for head, x in zip(self.scale_heads[1:], maps[1:], strict=True):
            scaled = head(x)
            if scaled.shape[2:] != total.shape[2:]:  # sides that 32 does not divide
                scaled = F.interpolate(scaled, size=total.shape[2:], mode="bilinear", align_corners=False)
            total = total + scaled
        return self.conv_seg(self.dropout(total))
