"""CLIP towers as the segmentation models use them. The only file that imports open_clip.

Towers are open_clip's own modules with their own weights; what is added here is access to their inside (taps), input
of any size, and text of any length up to the context.
"""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.base import ImageFeatures, TextFeatures


def _define_missing_operators() -> torch.library.Library | None:
    """Makes torchvision importable beside a torch that it was not built for.

    Such a pair (common on robots: a vendor's torch, the index's torchvision) fails at import because two compiled
    operators have no schema. Nothing here calls them, so declaring the schemas is enough.

    Returns:
        The library that holds the schemas, to be kept alive, or ``None`` where torchvision imports as it is.
    """
    try:
        importlib.import_module("torchvision")
        return None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # The failed attempt left half-imported submodules behind.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    importlib.import_module("torchvision")
    return library


_TORCHVISION_OPERATORS = _define_missing_operators()

from open_clip import SimpleTokenizer  # noqa: E402
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg  # noqa: E402
from open_clip.modified_resnet import ModifiedResNet  # noqa: E402
from open_clip.transformer import VisionTransformer  # noqa: E402


@dataclass(frozen=True)
class VisionConfig:
    """An image tower: a ViT where ``layers`` is a number of blocks, a ModifiedResNet where it is one number a stage."""

    layers: int | tuple[int, int, int, int]
    width: int
    image_size: int
    """Side in pixels of the square input that the position table was made for."""
    patch_size: int = 16
    """Side of a patch in pixels; ViT only."""
    head_width: int = 64
    """Channels of one attention head; a ResNet's attention pool has ``32 * width`` channels."""
    output_stride: int = 32
    """ResNet only: 32, or 16 to keep the last stage at the resolution of the one before."""

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int):
            object.__setattr__(self, "layers", tuple(self.layers))
        if self.output_stride not in (16, 32):
            raise ValueError(f"output_stride must be 16 or 32, got {self.output_stride}")


@dataclass(frozen=True)
class TextConfig:
    """A causal text tower."""

    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int


@dataclass(frozen=True)
class ClipConfig:
    """Everything that the shape of a CLIP depends on."""

    embed_dim: int
    vision: VisionConfig
    text: TextConfig
    quick_gelu: bool = False
    """True for towers trained by OpenAI."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClipConfig:
        """Reads what ``to_dict`` wrote. Raises TypeError on unknown or missing names."""
        nested = {"vision": VisionConfig(**values["vision"]), "text": TextConfig(**values["text"])}
        return cls(**{**values, **nested})


def build_clip(config: ClipConfig) -> CLIP:
    """Returns an open_clip CLIP with random weights. Nothing is downloaded."""
    vision, text = config.vision, config.text
    clip = CLIP(
        embed_dim=config.embed_dim,
        vision_cfg=CLIPVisionCfg(
            layers=vision.layers,
            width=vision.width,
            head_width=vision.head_width,
            patch_size=vision.patch_size,
            image_size=vision.image_size,
        ),
        text_cfg=CLIPTextCfg(**asdict(text)),
        quick_gelu=config.quick_gelu,
    )
    if isinstance(clip.visual, ModifiedResNet) and vision.output_stride == 16:
        # A ModifiedResNet strides by average pools, which hold no weights: keys and shapes stay the same.
        block = clip.visual.layer4[0]
        block.avgpool = nn.Identity()
        block.downsample[0] = nn.Identity()
    return clip


def resize_position_table(table: torch.Tensor, native_grid: tuple[int, int], grid: tuple[int, int]) -> torch.Tensor:
    """Fits a position table to another grid: bicubic, ``align_corners=False``, the first row kept.

    Args:
        table: (1 + h0 * w0, C); row 0 belongs to the class or mean token.
        native_grid: (h0, w0) of the table.
        grid: (h, w) wanted.

    Returns:
        (1 + h * w, C); ``table`` itself where the grids are equal.
    """
    if grid == native_grid:
        return table
    patches = table[1:].reshape(1, *native_grid, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([table[:1], patches.flatten(2).transpose(1, 2)[0]])


class VisionTaps(ABC):
    """Reads activations from inside an image tower.

    It borrows the tower and owns no weights, so the tower stays registered in one place only.
    """

    widths: tuple[int, ...]
    """Channels of each tap."""
    stride: int
    """Pixels from one token of the grid to the next."""
    multiple: int
    """Both sides of the input must be multiples of this."""
    prefix_tokens: int
    """Tokens ahead of the grid: 1 where there is a class token, else 0."""

    @abstractmethod
    def __call__(self, pixels: torch.Tensor, want_pooled: bool = False) -> ImageFeatures:
        """Encodes normalised images.

        Args:
            pixels: (B, 3, H, W); H and W multiples of ``multiple``.
            want_pooled: Whether to compute the image embedding too; without it, the tower stops at the last tap.

        Raises:
            ValueError: H or W does not fit.
        """

    def _grid(self, pixels: torch.Tensor, stride: int) -> tuple[int, int]:
        height, width = pixels.shape[-2:]
        if height % self.multiple or width % self.multiple or not height or not width:
            raise ValueError(f"image sides must be multiples of {self.multiple} pixels, got {height}x{width}")
        return height // stride, width // stride


class ViTTaps(VisionTaps):
    """Outputs of chosen transformer blocks, class token included: each (B, 1 + h * w, C)."""

    prefix_tokens = 1

    def __init__(self, visual: VisionTransformer, blocks: Sequence[int]) -> None:
        """Taps ``visual`` after ``blocks`` (0-based, ascending)."""
        depth = len(visual.transformer.resblocks)
        _require_ascending("block", blocks, 0, depth - 1)
        self.visual = visual
        self.blocks = tuple(blocks)
        self.stride = self.multiple = visual.patch_size[0]
        self.widths = (visual.class_embedding.shape[0],) * len(blocks)

    def __call__(self, pixels: torch.Tensor, want_pooled: bool = False) -> ImageFeatures:
        visual = self.visual
        grid = self._grid(pixels, self.stride)
        x = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (B, h * w, C)
        cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        positions = resize_position_table(visual.positional_embedding, visual.grid_size, grid).to(x.dtype)
        x = visual.ln_pre(visual.patch_dropout(torch.cat([cls, x], dim=1) + positions))
        taps = []
        for index, block in enumerate(visual.transformer.resblocks):
            if index > self.blocks[-1] and not want_pooled:
                break
            x = block(x)
            if index in self.blocks:
                taps.append(x)
        pooled = visual.ln_post(x[:, 0]) @ visual.proj if want_pooled else None
        return ImageFeatures(taps=tuple(taps), grid_size=grid, pooled=pooled)


class ResNetTaps(VisionTaps):
    """Stages of a ModifiedResNet brought to one grid: each (B, h * w, C_i), no class token.

    Its parts are callable one by one, because training wants taps, dense embeddings and the pooled embedding out of a
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

    def __call__(self, pixels: torch.Tensor, want_pooled: bool = False) -> ImageFeatures:
        maps = self.feature_maps(pixels, 4 if want_pooled else self.stages[-1])
        grid = self._grid(pixels, self.stride)
        pooled = self.pool(maps[3]) if want_pooled else None
        return ImageFeatures(taps=self.to_tokens(maps, grid), grid_size=grid, pooled=pooled)

    def feature_maps(self, pixels: torch.Tensor, last_stage: int) -> tuple[torch.Tensor, ...]:
        """Returns the maps (B, C_i, h_i, w_i) of stages 1 to ``last_stage`` for ``pixels`` (B, 3, H, W)."""
        self._grid(pixels, self.stride)
        x = self.visual.stem(pixels)
        maps = []
        for layer in self.layers[:last_stage]:
            x = layer(x)
            maps.append(x)
        return tuple(maps)

    def to_tokens(self, maps: tuple[torch.Tensor, ...], grid: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        """Brings the tapped ones of ``maps`` to ``grid`` (h, w) and flattens them to (B, h * w, C_i)."""
        tokens = []
        for stage in self.stages:
            x = maps[stage - 1]
            ratio = x.shape[-2] // grid[0]
            if ratio > 1:
                x = F.avg_pool2d(x, ratio)
            elif x.shape[-2:] != grid:
                x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
            tokens.append(x.flatten(2).transpose(1, 2))
        return tuple(tokens)

    def dense(self, layer4_map: torch.Tensor) -> torch.Tensor:
        """Embeds every position by the pool's value path, without attention or positions.

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
        side = self.visual.image_size // 32
        positions = resize_position_table(pool.positional_embedding, (side, side), tuple(layer4_map.shape[-2:]))
        x = layer4_map.flatten(2).transpose(1, 2)  # (B, h * w, C)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + positions.to(x.dtype)
        # Only the mean token's output is kept, so it is the only query: (B, heads, tokens, C / heads).
        query, key, value = (
            projected.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
            for projected in (pool.q_proj(x[:, :1]), pool.k_proj(x), pool.v_proj(x))
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return pool.c_proj(attended.transpose(1, 2).flatten(2))[:, 0]


def _require_ascending(what: str, indices: Sequence[int], lowest: int, highest: int) -> None:
    ascending = all(a < b for a, b in zip(indices, indices[1:], strict=False))
    if not indices or not ascending or indices[0] < lowest or indices[-1] > highest:
        raise ValueError(f"{what} numbers must ascend within {lowest}..{highest}, got {tuple(indices)}")


def build_taps(visual: nn.Module, layers: Sequence[int], stride: int) -> VisionTaps:
    """Taps either kind of tower.

    Args:
        visual: ``clip.visual``.
        layers: 0-based blocks of a ViT, or stages 1..4 of a ResNet; ascending.
        stride: Pixels from token to token. A ViT's patch size fixes it; a ResNet's maps are brought to it.

    Raises:
        ValueError: The tower cannot be tapped so.
    """
    if isinstance(visual, ModifiedResNet):
        return ResNetTaps(visual, layers, stride)
    taps = ViTTaps(visual, layers)
    if taps.stride != stride:
        raise ValueError(f"the tower's patches are {taps.stride} pixels wide, not {stride}")
    return taps


def encode_text(clip: CLIP, token_ids: torch.Tensor) -> TextFeatures:
    """Encodes tokenised prompts.

    Columns behind the last end token of all rows are cut off first. Attention is causal, so nothing ahead of them
    changes, and short prompts cost a fraction of the full context.

    Args:
        clip: Both towers; only the text side is used.
        token_ids: (P, context) int64; the end token is the largest id of a row, padding is 0.

    Returns:
        ``pooled`` (P, D); ``tokens`` (P, L, C), the final layer norm's output, not projected; ``padding_mask`` (P, L).
    """
    end = token_ids.argmax(dim=-1)
    length = int(end.max()) + 1
    token_ids = token_ids[:, :length]
    x = clip.token_embedding(token_ids) + clip.positional_embedding[:length]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    x = clip.ln_final(x)  # (P, L, C)
    pooled = x[torch.arange(len(x), device=x.device), end] @ clip.text_projection
    return TextFeatures(pooled=pooled, tokens=x, padding_mask=token_ids == 0)


@lru_cache(maxsize=1)
def bpe_tokenizer() -> SimpleTokenizer:
    """Returns CLIP's byte-pair tokenizer; its vocabulary file comes with open_clip."""
    return SimpleTokenizer()
