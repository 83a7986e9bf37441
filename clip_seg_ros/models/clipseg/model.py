# SPDX-License-Identifier: Apache-2.0
"""CLIPSeg (Lueddecke and Ecker, CVPR 2022): a light transformer decoder, conditioned on a phrase or example image.

pixels -> CLIP image tower -> taps, deepest first:   tap 3      tap 2      tap 1
                                                   reduce     reduce     reduce
prompt -> CLIP embedding -> FiLM ------------------> * +  block ->  + block -> + block -> transposed conv -> logits
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.base import PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.backbone import CLIP, ClipConfig, build_clip
from clip_seg_ros.models.clip.text_tower import encode_text, in_templates, require_templates
from clip_seg_ros.models.clip.tokenizer import Tokenizer, build_tokenizer
from clip_seg_ros.models.clip.vision_taps import TapFeatures, ViTTaps, build_taps
from clip_seg_ros.models.layers import PatchUpsample, PostNormBlock
from clip_seg_ros.models.spec import BEST_STYLE, ExampleStyle, InputSpec


@dataclass(frozen=True)
class CLIPSegConfig:
    """Everything that determines the decoder's shapes and its taps of the tower."""

    embed_dim: int
    """Width of the conditional, which is CLIP's embedding."""
    extract_layers: tuple[int, ...]
    """0-based blocks of a ViT, or stages 1..4 of a ResNet; ascending. The decoder consumes them deepest first."""
    tap_widths: tuple[int, ...]
    """The number of channels of each tap, in the order of ``extract_layers``."""
    stride: int
    """Distance between tokens in pixels, and the factor of the upsampling: a ViT's patch size, or a ResNet's grid."""
    prefix_tokens: int
    """The number of tokens before the grid: 1 for a ViT, whose class token is kept, and 0 for a ResNet."""
    input_spec: InputSpec
    reduce_dim: int = 64
    n_heads: int = 4
    feed_forward: int = 2048
    cond_layer: int = 0
    """The decoder stage at which FiLM is applied."""
    complex_trans_conv: bool = False
    """Whether the upsampling has three layers ("refined") instead of one transposed convolution."""
    dropout: float = 0.1
    image_prompt_px: int | None = None
    """Side of the square to which an example image is resized; ``None``: the size of all other images."""
    block: Literal["transformer", "linear"] = "transformer"
    """What follows each tap: a transformer block, or two linear layers for each token by itself, the first of which has
    ``feed_forward`` channels. The baseline CLIP-Deconv is one tap with linear layers."""
    example_style: ExampleStyle = BEST_STYLE
    """How an example image is changed before it is a prompt."""
    templates: tuple[str, ...] = ()
    """Sentences with "{}", in which each phrase is encoded; the mean of the embeddings conditions the decoder. Without
    any, the phrase is encoded alone."""

    def __post_init__(self) -> None:
        if len(self.extract_layers) != len(self.tap_widths):
            layers, widths = len(self.extract_layers), len(self.tap_widths)
            raise ValueError(f"{layers} layers are tapped but {widths} widths are given")
        if not 0 <= self.cond_layer < len(self.extract_layers):
            raise ValueError(f"cond_layer must lie in 0..{len(self.extract_layers) - 1}, got {self.cond_layer}")
        require_templates(self.templates)
        if self.complex_trans_conv and self.stride != 16:
            raise ValueError(f"the refined upsampling multiplies by 4 x 4 and needs stride 16, got {self.stride}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CLIPSegConfig:
        """Makes a configuration from the values of ``to_dict``. Raises TypeError on unknown or missing names."""
        nested: dict[str, Any] = {
            "input_spec": InputSpec.from_dict(values["input_spec"]),
            "extract_layers": tuple(values["extract_layers"]),
            "tap_widths": tuple(values["tap_widths"]),
            "templates": tuple(values.get("templates", ())),
        }
        if "example_style" in values:
            nested["example_style"] = ExampleStyle(**values["example_style"])
        return cls(**{**values, **nested})


class CLIPSegDecoder(nn.Module):
    """The trained part of CLIPSeg. The names of its parameters are those of the authors' files."""

    def __init__(self, config: CLIPSegConfig) -> None:
        super().__init__()
        self.config = config
        width = config.reduce_dim
        self.film_mul = nn.Linear(config.embed_dim, width)
        self.film_add = nn.Linear(config.embed_dim, width)
        self.reduces = nn.ModuleList(nn.Linear(taps, width) for taps in reversed(config.tap_widths))
        self.blocks = nn.ModuleList(_block(config) for _ in config.tap_widths)
        if config.complex_trans_conv:
            self.trans_conv = nn.Sequential(
                nn.Conv2d(width, width, kernel_size=3, padding=1),
                nn.ReLU(),
                PatchUpsample(width, width // 2, config.stride // 4),
                nn.ReLU(),
                PatchUpsample(width // 2, 1, config.stride // 4),
            )
        else:
            self.trans_conv = PatchUpsample(width, 1, config.stride)

    def forward(
        self, taps: Sequence[torch.Tensor], grid_size: tuple[int, int], conditional: torch.Tensor
    ) -> torch.Tensor:
        """Decodes one prompt for each image.

        Args:
            taps: The taps, shallowest first; each (B, prefix + h * w, C_i).
            grid_size: (h, w).
            conditional: (B, D) raw CLIP embeddings, one for each image.

        Returns:
            Logits (B, h * stride, w * stride).
        """
        return self.decode_prompts(taps, grid_size, conditional[:, None])[:, 0]

    def decode_prompts(
        self, taps: Sequence[torch.Tensor], grid_size: tuple[int, int], conditionals: torch.Tensor
    ) -> torch.Tensor:
        """Decodes P prompts for each image in one pass; everything before FiLM is computed once for each image.

        Args:
            taps: The taps, shallowest first; each (B, prefix + h * w, C_i), or without prefix on a grid that is coarser
                by a whole number.
            grid_size: (h, w).
            conditionals: (B, P, D) raw CLIP embeddings.

        Returns:
            Logits (B, P, h * stride, w * stride).
        """
        batch, prompts = conditionals.shape[:2]
        x = None  # (B, 1 or P, N, width): P from the stage of FiLM on
        for stage, (tap, reduce, block) in enumerate(zip(reversed(taps), self.reduces, self.blocks, strict=True)):
            reduced = _at_grid(reduce(tap), grid_size)[:, None]
            x = reduced if x is None else reduced + x
            if stage == self.config.cond_layer:
                x = self.film_mul(conditionals)[:, :, None] * x + self.film_add(conditionals)[:, :, None]
            x = block(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        x = x.flatten(0, 1)[:, self.config.prefix_tokens :]  # (B * P, h * w, width)
        logits = self.trans_conv(x.transpose(1, 2).unflatten(2, grid_size))  # (B * P, 1, H, W)
        return logits[:, 0].unflatten(0, (batch, prompts))


def _block(config: CLIPSegConfig) -> nn.Module:
    width, hidden = config.reduce_dim, config.feed_forward
    if config.block == "transformer":
        return PostNormBlock(width, config.n_heads, hidden, config.dropout)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


def _at_grid(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Interpolates tokens (B, N, C) of a coarser grid bilinearly to ``grid`` (h, w); others are returned unchanged."""
    count = tokens.shape[1]
    if count >= grid[0] * grid[1]:
        return tokens
    ratio = math.isqrt(grid[0] * grid[1] // count)
    coarse = tokens.transpose(1, 2).unflatten(2, (grid[0] // ratio, grid[1] // ratio))
    return F.interpolate(coarse, size=grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


class CLIPSeg(PromptableSegmenter[TapFeatures]):
    """CLIP, its taps, the decoder and a tokenizer. Prompts are phrases, example images, or mixtures of both."""

    competition = "sigmoid"
    takes_examples = True
    threshold = 0.3
    """The threshold at which the authors report PhraseCut with their published weights."""

    def __init__(self, name: str, clip: CLIP, config: CLIPSegConfig, tokenizer: Tokenizer) -> None:
        """Combines the parts; the weights of the decoder are random.

        Raises:
            ValueError: The tower, the decoder and the tokenizer do not fit each other.
        """
        super().__init__()
        self.name = name
        self.config = config
        self.input_spec = config.input_spec
        self.clip = clip
        self.example_px, self.example_style = config.image_prompt_px, config.example_style
        self.decoder = CLIPSegDecoder(config)
        self.tokenizer = tokenizer
        self.taps = build_taps(clip.visual, config.extract_layers, config.stride)
        _require_equal("tap widths", self.taps.widths, config.tap_widths)
        _require_equal("prefix tokens", self.taps.prefix_tokens, config.prefix_tokens)
        _require_equal("embedding width", clip.text_projection.shape[1], config.embed_dim)
        _require_equal("vocabulary size", clip.vocab_size, tokenizer.vocab_size)
        _require_equal("context length", clip.context_length, tokenizer.context_length)

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> CLIPSeg:
        """Builds the model that a weight file describes, with random weights.

        Raises:
            KeyError, TypeError, ValueError: The configuration describes no CLIPSeg.
        """
        clip = build_clip(ClipConfig.from_dict(config["clip"]))
        return cls(name, clip, CLIPSegConfig.from_dict(config["clipseg"]), build_tokenizer(config["tokenizer"]))

    def encode_image(self, pixels: torch.Tensor) -> TapFeatures:
        return self.taps(pixels)

    def encode_image_prompt(
        self,
        pixels: torch.Tensor,
        masks: torch.Tensor | None = None,
        masked_layers: Sequence[int] | None = None,
        masked_queries: Literal["class", "all"] = "class",
    ) -> torch.Tensor:
        """Embeds example images, to be used as prompts: ``TextFeatures(pooled=...)``, or through ``mix_prompts``.

        The paper found ``visual_prompts.visual_prompt`` to be best. ``masks`` is the alternative in the paper:
        everything but the object is weakened inside CLIP's attention (section 3.3).

        Args:
            pixels: (N, 3, H, W), normalised.
            masks: (N, H, W), 1 where the object is; ``None`` stands for the whole image.
            masked_layers: The blocks in which the background is weakened; ``None``: all.
            masked_queries: For whom it is: the class token alone, or with "all" every patch but not the class token.

        Returns:
            Raw image embeddings (N, D).

        Raises:
            ValueError: Masks are given, but the tower is not a ViT; or the masks or layers do not fit the tower.
        """
        if masks is None:
            return self.taps(pixels, want_pooled=True).pooled
        if not isinstance(self.taps, ViTTaps):
            raise ValueError("masks inside attention need a ViT: use visual_prompts.visual_prompt with this tower")
        return self.taps.embed_object(pixels, masks, masked_layers, masked_queries)

    def encode_example(self, pixels: torch.Tensor, text: str | None, text_weight: float) -> TextFeatures:
        pooled = self.encode_image_prompt(pixels)
        if text is not None:
            pooled = self.mix_prompts(self.encode_text([text]).pooled, pooled, text_weight)
        return TextFeatures(pooled)

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        templates = self.config.templates
        token_ids = self.tokenizer(in_templates(prompts, templates) if templates else prompts)
        token_ids = token_ids.to(self.clip.positional_embedding.device)
        # The decoder does not use single words; without them, the features of any two prompts can be stacked.
        return self._averaged(encode_text(self.clip, token_ids).pooled)

    def encode_token_ids(self, token_ids: torch.Tensor) -> TextFeatures:
        if self.config.templates:
            token_ids = token_ids.flatten(0, 1)
        return self._averaged(encode_text(self.clip, token_ids, whole=True).pooled)

    def _averaged(self, pooled: torch.Tensor) -> TextFeatures:
        """Returns the features of P prompts for the raw embeddings (P * T, D) of their sentences."""
        count = len(self.config.templates)
        return TextFeatures(pooled.unflatten(0, (-1, count)).mean(dim=1) if count else pooled)

    @staticmethod
    def mix_prompts(text: torch.Tensor, image: torch.Tensor, text_weight: float | torch.Tensor) -> torch.Tensor:
        """Interpolates raw embeddings (N, D) of phrases and example images.

        Args:
            text: (N, D).
            image: (N, D).
            text_weight: The share of the phrases, 0..1, one for all or (N,) for each prompt; 1 is the phrase alone.
        """
        if isinstance(text_weight, torch.Tensor):
            text_weight = text_weight.to(text)[..., None]
        return text_weight * text + (1 - text_weight) * image

    def decode(self, image: TapFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns logits (B, P, H, W) at the size of the encoded pixels."""
        conditionals = text.pooled.expand(image.taps[0].shape[0], -1, -1)
        return self.decoder.decode_prompts(image.taps, image.grid_size, conditionals)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return self.tokenizer.unknown_words(prompt)


def _require_equal(what: str, built: object, configured: object) -> None:
    if built != configured:
        raise ValueError(f"{what} of CLIP and of CLIPSeg differ: {built} and {configured}")
