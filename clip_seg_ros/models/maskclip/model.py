# SPDX-License-Identifier: Apache-2.0
"""MaskCLIP (Zhou et al., ECCV 2022): dense labels from an unchanged CLIP, and its successors on the same weights.

pixels -> image tower with a dense last layer -> a feature for every place --- cosine ---> logits
prompt -> templates -> text tower -> mean of unit vectors, made a unit vector --^
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.backbone import (
    ClipConfig,
    ModifiedResNet,
    TextTransformer,
    VisionTower,
    build_text_tower,
    build_vision_tower,
    imagenet_templates,
)
from clip_seg_ros.models.clip.positions import PositionTable
from clip_seg_ros.models.clip.text_tower import encode_text, in_templates, require_templates
from clip_seg_ros.models.clip.tokenizer import Tokenizer, build_tokenizer
from clip_seg_ros.models.clip.vision_taps import embed_patches
from clip_seg_ros.models.layers import split_heads
from clip_seg_ros.models.maskclip.dense_attention import VARIANTS, Variant, dense_pool, pool_variant
from clip_seg_ros.models.maskclip.earlier_blocks import dense_tokens
from clip_seg_ros.models.maskclip.refinement import denoise_prompts, pamr, smooth_by_keys, sums_to_probabilities
from clip_seg_ros.models.spec import InputSpec

SCENE_TEMPLATES = tuple(
    f"{start} {{}} in the scene." for start in ("there is a", "there is the", "this is a", "this is the", "this is one")
)
TEMPLATES = (*imagenet_templates(), *SCENE_TEMPLATES)
"""The 85 templates of MaskCLIP."""
BACKGROUND = ("background", "wall", "floor", "ceiling", "ground", "sky", "table", "road", "grass", "tree", "building")
"""Phrases for the surroundings of the objects that users ask for."""
_PHRASES_AT_ONCE = 1024
"""The number of phrases in one batch of the text tower; 171 classes in 85 templates at once would take gigabytes."""


@dataclass(frozen=True)
class MaskCLIPConfig:
    """How dense labels are computed from a CLIP; nothing here is trained."""

    input_spec: InputSpec
    variant: Variant = "maskclip"
    """The variant of the last attention; see ``dense_attention`` and, for those of ViTs alone, ``earlier_blocks``."""
    key_smoothing: float | None = None
    """Threshold of ``refinement.smooth_by_keys``; the paper's is 1. ``None`` leaves it out."""
    prompt_denoising: float | None = None
    """Threshold of ``refinement.denoise_prompts``; the paper's is 0.5. ``None`` leaves it out."""
    pamr_iterations: int = 0
    """The number of iterations of ``refinement.pamr``, at half the size of the pixels; 0 leaves it out, and its authors
    use 10."""
    official_tower: bool = False
    """Whether the ViT computes as MaskCLIP's authors configured it: LayerNorm's epsilon 1e-6 and the exact GELU,
    although CLIP was trained with 1e-5 and QuickGELU."""
    attention_pool_heads: int | None = None
    """ResNet and "maskclip" only: the number of heads for attention without positions, an option of the authors;
    ``None`` for the value path."""
    templates: tuple[str, ...] = TEMPLATES
    background: tuple[str, ...] = BACKGROUND
    logit_scale: float = 100.0
    """CLIP's temperature: the factor on cosines before the softmax."""
    class_names: tuple[str, ...] | None = None
    """The classes whose text embeddings are part of the weights, if there is no text tower."""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f'unknown variant "{self.variant}": use {", ".join(VARIANTS)}')
        if not self.templates:
            raise ValueError('templates must be at least one sentence; "{}" is the phrase alone')
        require_templates(self.templates)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MaskCLIPConfig:
        """Makes a configuration from the values of ``to_dict``.

        Raises:
            TypeError: Names are unknown.
            ValueError: A value is wrong.
        """
        names = values.get("class_names")
        nested = {
            "input_spec": InputSpec.from_dict(values["input_spec"]),
            "templates": tuple(values.get("templates", TEMPLATES)),
            "background": tuple(values.get("background", BACKGROUND)),
            "class_names": None if names is None else tuple(names),
        }
        return cls(**{**values, **nested})


@dataclass(frozen=True)
class MaskCLIPFeatures(ImageFeatures):
    """The features of every place."""

    dense: torch.Tensor
    """(B, D, h, w) embeddings of unit length, in the space of the text."""
    keys: torch.Tensor | None
    """(B, h * w, C) keys of the last attention; ``None`` without key smoothing."""
    picture: torch.Tensor | None
    """(B, 3, H / 2, W / 2) normalised pixels, whose edges PAMR follows; ``None`` without PAMR."""

    def places(self) -> torch.Tensor:
        return self.dense


class MaskCLIP(PromptableSegmenter[MaskCLIPFeatures]):
    """Semantic segmentation without training.

    Prompts compete with each other and with the phrases of ``config.background``: a pixel belongs to a prompt only
    where that prompt beats the other prompts and all of the background. A background
    phrase that is asked for is a prompt.
    """

    competition = "softmax"
    light_decode = True

    def __init__(
        self,
        name: str,
        visual: VisionTower,
        text: TextTransformer | None,
        config: MaskCLIPConfig,
        tokenizer: Tokenizer | None,
    ) -> None:
        """Combines the parts.

        Args:
            name: Name of the model.
            visual: Any ViT or ModifiedResNet of a CLIP.
            text: The text tower of that CLIP, or ``None`` with ``config.class_names``.
            config: How labels are computed.
            tokenizer: Tokenizer of the text tower.

        Raises:
            ValueError: The parts do not fit together.
        """
        super().__init__()
        resnet = isinstance(visual, ModifiedResNet)
        if resnet:
            pool_variant(config.variant)
        if config.variant != "maskclip" and config.attention_pool_heads is not None:
            raise ValueError(f'attention_pool_heads is for the variant "maskclip", and this one is "{config.variant}"')
        if not resnet and config.attention_pool_heads is not None:
            raise ValueError("attention_pool_heads is for the pool of a ResNet, and this image tower is a ViT")
        if (text is None) == (config.class_names is None) or (text is None) != (tokenizer is None):
            raise ValueError("either a text tower with its tokenizer is needed, or a list of classes")
        self.name = name
        self.config = config
        self.input_spec = config.input_spec
        self.visual = visual
        self.text = text
        self.tokenizer = tokenizer
        self.class_names = config.class_names
        self.background_prompts = config.background if config.class_names is None else ()
        if config.class_names is not None:
            rows = torch.zeros(len(config.class_names), visual.output_dim)
            self.register_buffer("text_embeddings", rows)
        self._positions = None if resnet else PositionTable(visual, visual.grid_size)
        if resnet:
            # Dense embeddings do not use the positions with which the pool was trained.
            visual.attnpool.positional_embedding = None
        elif config.official_tower:
            for norm in visual.modules():
                if isinstance(norm, nn.LayerNorm):
                    norm.eps = 1e-6

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> MaskCLIP:
        """Builds the model that a weight file describes, with random weights.

        Raises:
            KeyError, TypeError, ValueError: The configuration describes no MaskCLIP.
        """
        own = MaskCLIPConfig.from_dict(config["maskclip"])
        clip = ClipConfig.from_dict(config["clip"])
        visual = build_vision_tower(clip.vision, clip.embed_dim, clip.quick_gelu and not own.official_tower)
        if own.class_names is not None:
            return cls(name, visual, None, own, None)
        text = build_text_tower(clip.text, clip.embed_dim, clip.quick_gelu)
        return cls(name, visual, text, own, build_tokenizer(config["tokenizer"]))

    def encode_image(self, pixels: torch.Tensor) -> MaskCLIPFeatures:
        """Computes the features of every place.

        Args:
            pixels: (B, 3, H, W) of any size; for a ViT they are padded with zeros at the right and the bottom to whole
                patches.

        Returns:
            The features, with the pixels at half their size for PAMR.
        """
        dense, keys = (self._encode_resnet if isinstance(self.visual, ModifiedResNet) else self._encode_vit)(pixels)
        picture: torch.Tensor | None = None
        if self.config.pamr_iterations:
            picture = F.interpolate(pixels, scale_factor=0.5, mode="bilinear", align_corners=False)
        return MaskCLIPFeatures(dense / dense.norm(dim=1, keepdim=True), keys, picture)

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encodes each prompt in every template: the mean of the unit vectors, made a unit vector."""
        if self.tokenizer is None:
            return TextFeatures(self.text_embeddings[[self.class_names.index(prompt) for prompt in prompts]])
        return self.encode_templates(
            self.tokenizer(in_templates(prompts, self.config.templates)).unflatten(0, (len(prompts), -1))
        )

    def encode_templates(self, token_ids: torch.Tensor) -> TextFeatures:
        """Encodes P phrases in T templates each, (P, T, L) int64, to ``pooled`` (P, D) of unit length."""
        token_ids = token_ids.to(self.text.positional_embedding.device)
        rows = []
        for part in token_ids.split(max(1, _PHRASES_AT_ONCE // token_ids.shape[1])):
            pooled = encode_text(self.text, part.flatten(0, 1)).pooled
            rows.append(F.normalize(pooled, dim=-1).unflatten(0, part.shape[:2]).mean(dim=1))
        return TextFeatures(F.normalize(torch.cat(rows), dim=-1))

    def encode_token_ids(self, token_ids: torch.Tensor) -> TextFeatures:
        pooled = encode_text(self.text, token_ids.flatten(0, 1), whole=True).pooled
        means = F.normalize(pooled, dim=-1).unflatten(0, token_ids.shape[:2]).mean(dim=1)
        return TextFeatures(F.normalize(means, dim=-1))

    def decode(self, image: MaskCLIPFeatures, text: TextFeatures) -> torch.Tensor:
        """Compares every place with every prompt.

        Returns:
            (B, P, h, w): cosines; with key smoothing the result of ``smooth_by_keys``; with PAMR log probabilities,
            divided by the scale, at half the size of the pixels. They are float32 whatever the weights are, because a
            factor of a hundred on cosines needs more digits than 16-bit floats have.
        """
        config = self.config
        logits = torch.einsum("bdhw,pd->bphw", image.dense.float(), text.pooled.float())
        if config.prompt_denoising is not None:
            logits = denoise_prompts(logits, config.prompt_denoising, config.logit_scale)
        if config.key_smoothing is not None:
            logits = smooth_by_keys(logits, image.keys.float(), config.key_smoothing, config.logit_scale)
        if config.pamr_iterations:
            logits = F.interpolate(logits, size=image.picture.shape[2:], mode="bilinear", align_corners=False)
            refined = pamr(image.picture.float(), self._to_probabilities(logits), config.pamr_iterations)
            logits = refined.clamp(min=1e-8).log() / config.logit_scale
        return logits

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the softmax of CLIP's scaled cosines; sums of key smoothing are clipped at 0 and normalised."""
        if self.config.pamr_iterations:
            return (self.config.logit_scale * logits).softmax(dim=1)
        return self._to_probabilities(logits)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return self.tokenizer.unknown_words(prompt) if self.tokenizer else ()

    def _to_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        if self.config.key_smoothing is None:
            return (self.config.logit_scale * logits).softmax(dim=1)
        return sums_to_probabilities(logits)

    @property
    def _wants_keys(self) -> bool:
        return self.config.key_smoothing is not None

    def _encode_vit(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        visual = self.visual
        patch = visual.patch_size[0]
        height, width = pixels.shape[2:]
        pixels = F.pad(pixels, (0, -width % patch, 0, -height % patch))
        grid = (pixels.shape[2] // patch, pixels.shape[3] // patch)
        x = visual.ln_pre(embed_patches(visual, pixels, self._positions(grid, pixels.dtype)))
        dense, keys = dense_tokens(visual.transformer.resblocks, x, grid, self.config.variant, self._wants_keys)
        dense = visual.ln_post(dense) @ visual.proj  # (B, h * w, D)
        return dense.transpose(1, 2).unflatten(2, grid), keys

    def _encode_resnet(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        visual, pool = self.visual, self.visual.attnpool
        x = visual.stem(pixels)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
        grid = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)  # (B, h * w, C)
        dense, keys = dense_pool(pool, tokens, grid, pool_variant(self.config.variant), self._wants_keys)
        heads = self.config.attention_pool_heads
        if heads is not None:
            tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
            query, key, value = (split_heads(f(tokens), heads) for f in (pool.q_proj, pool.k_proj, pool.v_proj))
            dense = pool.c_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)[:, 1:])
        return dense.transpose(1, 2).unflatten(2, grid), keys
