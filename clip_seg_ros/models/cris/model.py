# SPDX-License-Identifier: Apache-2.0
"""CRIS (Wang et al., CVPR 2022): CLIP's pixels attend to CLIP's words, and the sentence becomes the last kernel.

    pixels -> ResNet stages C3, C4 and attention pool C5 -> neck (with the sentence) -> F at stride 16
    words  -> text tower -> word features, sentence state
    F attends itself and the words (decoder) -> projector: two upsamplings, and a 3x3 kernel made of the state -> logits

Beyond the paper, and only if the configuration says so, the projector also gets the tower's first stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.backbone import CLIP, ClipConfig, ModifiedResNet, build_clip
from clip_seg_ros.models.clip.text_tower import encode_text
from clip_seg_ros.models.clip.tokenizer import Tokenizer, build_tokenizer
from clip_seg_ros.models.clip.vision_taps import ResNetTaps
from clip_seg_ros.models.cris.parts import ConvBlock, CRISNeck, Projector, VisionLanguageDecoder
from clip_seg_ros.models.layers import split_heads
from clip_seg_ros.models.spec import InputSpec


@dataclass(frozen=True)
class CRISConfig:
    """Everything besides its CLIP that determines the shapes of CRIS."""

    fpn_out: tuple[int, int, int]
    """The number of channels of the neck's three levels, finest first. The second one is also the width of the decoder
    and of the words."""
    input_spec: InputSpec
    n_layers: int = 3
    n_heads: int = 8
    feed_forward: int = 2048
    dropout: float = 0.1
    detail_channels: int = 0
    """The number of channels of the tower's first stage, at stride 4, that sharpen the pixels before the sentence's
    kernel is applied. The paper has none: its finest features have stride 8 and are pooled to 16."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CRISConfig:
        """Makes a configuration from the values of ``to_dict``. Raises TypeError on unknown or missing names."""
        nested = {"fpn_out": tuple(values["fpn_out"]), "input_spec": InputSpec.from_dict(values["input_spec"])}
        return cls(**{**values, **nested})


@dataclass(frozen=True)
class CRISFeatures(ImageFeatures):
    """The features of an image that do not depend on a sentence."""

    levels: tuple[torch.Tensor, ...]
    """The three levels of the neck, each (B, C_i, h_i, w_i), coarsest first."""
    detail: torch.Tensor | None
    """(B, C, H / 4, W / 4) for the projector; ``None`` in the paper's network."""

    def places(self) -> torch.Tensor:
        """Returns the finest level, whose stride is 16."""
        return self.levels[-1]


class CRIS(PromptableSegmenter[CRISFeatures]):
    """Referring segmentation: one mask for each sentence."""

    competition = "sigmoid"
    threshold = 0.35
    understands_relations = True

    def __init__(self, name: str, clip: CLIP, config: CRISConfig, tokenizer: Tokenizer) -> None:
        """Combines the parts; all weights but those of CLIP are random.

        Args:
            name: Name of the model.
            clip: A CLIP with a ModifiedResNet as its image tower.
            config: Configuration of all other parts.
            tokenizer: The tokenizer. Its context length is the number of words for the decoder: 17 or 22 in the paper.

        Raises:
            ValueError: The parts do not fit together.
        """
        super().__init__()
        if not isinstance(clip.visual, ModifiedResNet):
            raise ValueError(f"CRIS needs a ResNet as its image tower, got a {type(clip.visual).__name__}")
        word_width = clip.token_embedding.weight.shape[1]
        if word_width != config.fpn_out[1]:
            raise ValueError(f"the decoder's width must be that of the words, {word_width}, got {config.fpn_out[1]}")
        if word_width % config.n_heads or word_width % 4:
            raise ValueError(f"the decoder's width {word_width} must divide by 4 and by its {config.n_heads} heads")
        if tokenizer.vocab_size != clip.vocab_size or tokenizer.context_length > clip.context_length:
            raise ValueError(
                f"a tokenizer of {tokenizer.vocab_size} pieces and {tokenizer.context_length} words does not fit a "
                f"text tower of {clip.vocab_size} and {clip.context_length}"
            )
        self.name = name
        self.input_spec = config.input_spec
        self.config = config
        self.clip = clip
        self.tokenizer = tokenizer
        self.taps = ResNetTaps(clip.visual, [1, 2, 3, 4], grid_stride=32)
        embed_dim, width = clip.text_projection.shape[1], config.fpn_out[1]
        first, *stages = self.taps.widths
        # It complements the attention pool, whose pre-training on whole images says nothing about places (eq. 1).
        self.connect = nn.Sequential(nn.Conv2d(stages[2], embed_dim, 1, bias=False), nn.BatchNorm2d(embed_dim))
        self.neck = CRISNeck((stages[0], stages[1], embed_dim), config.fpn_out, embed_dim)
        self.decoder = VisionLanguageDecoder(
            width, config.n_layers, config.n_heads, config.feed_forward, config.dropout, tokenizer.context_length
        )
        self.detail = ConvBlock(first, config.detail_channels, 1) if config.detail_channels else None
        self.proj = Projector(embed_dim, width, config.detail_channels)

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> CRIS:
        """Builds the model that a weight file describes, with random weights.

        Raises:
            KeyError, TypeError, ValueError: The configuration describes no CRIS.
        """
        clip = build_clip(ClipConfig.from_dict(config["clip"]))
        return cls(name, clip, CRISConfig.from_dict(config["cris"]), build_tokenizer(config["tokenizer"]))

    def encode_image(self, pixels: torch.Tensor) -> CRISFeatures:
        """Computes everything that does not depend on a sentence: the tower and the neck's first convolutions.

        Args:
            pixels: (B, 3, H, W); H and W multiples of 32.

        Returns:
            The input of the rest of the neck and of the projector.
        """
        c2, c3, c4, layer4 = self.taps.feature_maps(pixels, 4)
        c5 = F.relu(self._attention_pool(layer4) + self.connect(layer4))
        levels = self.neck.project(c3, c4, c5)
        return CRISFeatures(levels, None if self.detail is None else self.detail(c2))

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        return self.encode_token_ids(self.tokenizer(prompts).to(self.clip.positional_embedding.device))

    def encode_token_ids(self, token_ids: torch.Tensor) -> TextFeatures:
        return encode_text(self.clip, token_ids, whole=True)

    def decode(self, image: CRISFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns logits (B, P, H / 4, W / 4)."""
        batch, prompts = image.levels[0].shape[0], text.pooled.shape[0]
        # Every image is paired with every sentence (B * P).
        every = TextFeatures(*(part.expand(batch, *part.shape).flatten(0, 1) for part in _parts(text)))
        return self._decode_pairs(image, every, prompts).unflatten(0, (batch, prompts))

    def forward(self, pixels: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """Returns the logits of P sentences for each image, as training needs them; each image has its own sentences.

        Args:
            pixels: (B, 3, H, W).
            token_ids: (B * P, words) int64, from ``tokenizer``; the first P rows belong to the first image.

        Returns:
            Logits (B * P, H / 4, W / 4).
        """
        each = token_ids.shape[0] // pixels.shape[0]
        return self._decode_pairs(self.encode_image(pixels), self.encode_token_ids(token_ids), each)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return self.tokenizer.unknown_words(prompt)

    def _decode_pairs(self, image: CRISFeatures, text: TextFeatures, each: int) -> torch.Tensor:
        """Returns logits (B * P, H / 4, W / 4) of B images with P = ``each`` sentences, image by image."""
        x = self.neck(image.levels, text.pooled, each)  # (N, C, H / 16, W / 16)
        x = self.decoder(x, text.tokens, text.padding_mask)
        return self.proj(x, text.pooled, image.detail, each)

    def _attention_pool(self, layer4: torch.Tensor) -> torch.Tensor:
        """Applies CLIP's attention pool at every position, without a mean token: (B, C, h, w) -> (B, D, h, w)."""
        pool = self.clip.visual.attnpool
        grid = tuple(layer4.shape[-2:])
        x = layer4.flatten(2).transpose(1, 2) + self.taps.positions(grid, layer4.dtype)[1:]  # (B, h * w, C)
        query, key, value = (
            split_heads(projection(x), pool.num_heads) for projection in (pool.q_proj, pool.k_proj, pool.v_proj)
        )
        x = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return pool.c_proj(x).transpose(1, 2).unflatten(2, grid)


def _parts(text: TextFeatures) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return text.pooled, text.tokens, text.padding_mask
