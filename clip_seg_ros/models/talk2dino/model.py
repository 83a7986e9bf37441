# SPDX-License-Identifier: Apache-2.0
"""Talk2DINO (Barsellotti et al., ICCV 2025): CLIP's phrases, mapped into the space of DINOv2's patches.

pixels -> DINOv2 -> an embedding for every patch ------------------------ cosine ---> logits
prompt -> templates -> CLIP's text tower -> their mean -> projection -> unit --^
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.backbone import TextConfig, TextTransformer, build_text_tower, imagenet_templates
from clip_seg_ros.models.clip.text_tower import encode_text
from clip_seg_ros.models.clip.tokenizer import Tokenizer, build_tokenizer
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.models.talk2dino.dino import DinoConfig, DinoTower

_CHOSEN = (73, 0, 44, 69, 35, 67, 64)
TEMPLATES = tuple(imagenet_templates()[index] for index in _CHOSEN)
"""The seven of ImageNet's templates with which the authors evaluate."""
AUTHORS_CLEANING = 0.2
"""The authors' weight of the heads' attention where they clean the background."""
_PHRASES_AT_ONCE = 1024


@dataclass(frozen=True)
class Talk2DINOConfig:
    """Everything that determines the shapes of the weights, and how logits are computed."""

    input_spec: InputSpec
    dino: DinoConfig
    text: TextConfig
    embed_dim: int
    """The width of CLIP's embeddings."""
    hidden_layers: int = 1
    """The number of linear layers after the projection's first one, each behind a tanh."""
    background_cleaning: float | None = None
    """The weight of the attention of DINOv2's heads beside the similarity; the authors use 0.2 where a picture has
    background. ``None`` leaves it out."""
    templates: tuple[str, ...] = TEMPLATES

    def __post_init__(self) -> None:
        if not self.templates or not all("{}" in template for template in self.templates):
            raise ValueError(f'templates must each hold "{{}}" where the phrase goes, got {self.templates}')
        if self.background_cleaning is not None and not self.background_cleaning > 0:
            raise ValueError(f"background_cleaning must be a positive weight, got {self.background_cleaning}")
        if self.hidden_layers < 0:
            raise ValueError(f"hidden_layers must be at least 0, got {self.hidden_layers}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Talk2DINOConfig:
        """Makes a configuration from the values of ``to_dict``.

        Raises:
            KeyError, TypeError: Names are unknown or missing.
            ValueError: A value is wrong.
        """
        nested = {
            "input_spec": InputSpec.from_dict(values["input_spec"]),
            "dino": DinoConfig(**values["dino"]),
            "text": TextConfig(**values["text"]),
            "templates": tuple(values.get("templates", TEMPLATES)),
        }
        return cls(**{**values, **nested})


@dataclass(frozen=True)
class Talk2DINOFeatures(ImageFeatures):
    """The features of every patch."""

    dense: torch.Tensor
    """(B, C, h, w) embeddings of unit length."""
    attention: torch.Tensor | None
    """(B, M, h, w) logits of the attention of M heads; ``None`` without background cleaning."""
    heads: torch.Tensor | None
    """(B, M, C) what each head looks at, of unit length; ``None`` without background cleaning."""


class Talk2DINO(PromptableSegmenter[Talk2DINOFeatures]):
    """A DINOv2 whose patches are compared with projected phrases.

    A probability is the sigmoid of a bare cosine, as in the authors' program, and so lies between 0.27 and 0.73. Their
    threshold where a picture has background is 0.55, a cosine of 0.2; without it they take the best class everywhere.
    With background cleaning, prompts that are decoded together share one range of attention and of similarity, so that
    their probabilities depend a little on each other.
    """

    competition = "sigmoid"
    threshold = 0.55
    light_decode = True

    def __init__(self, name: str, text: TextTransformer, config: Talk2DINOConfig, tokenizer: Tokenizer) -> None:
        """Combines the parts.

        Args:
            name: Name of the model.
            text: A text tower of ``config.text``.
            config: The shapes of all other parts.
            tokenizer: Tokenizer of the text tower.
        """
        super().__init__()
        self.name = name
        self.config = config
        self.input_spec = config.input_spec
        self.dino = DinoTower(config.dino)
        self.text = text
        width = config.dino.width
        hidden = ((nn.Tanh(), nn.Linear(width, width)) for _ in range(config.hidden_layers))
        self.projection = nn.Sequential(nn.Linear(config.embed_dim, width), *itertools.chain.from_iterable(hidden))
        self.tokenizer = tokenizer

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> Talk2DINO:
        """Builds the model that a weight file describes, with random weights.

        Raises:
            KeyError, TypeError, ValueError: The configuration describes no Talk2DINO.
        """
        own = Talk2DINOConfig.from_dict(config["talk2dino"])
        text = build_text_tower(own.text, own.embed_dim, quick_gelu=True)
        return cls(name, text, own, build_tokenizer(config["tokenizer"]))

    def encode_image(self, pixels: torch.Tensor) -> Talk2DINOFeatures:
        """Encodes ``pixels`` (B, 3, H, W); they are padded with zeros at the right and the bottom to whole patches."""
        patch = self.config.dino.patch_size
        pixels = F.pad(pixels, (0, -pixels.shape[3] % patch, 0, -pixels.shape[2] % patch))
        dense, attention = self.dino(pixels, self.config.background_cleaning is not None)
        heads = None
        if attention is not None:
            # Only the direction of the mean over patches counts.
            heads = F.normalize(torch.einsum("bmhw,bchw->bmc", attention, dense), dim=2)
        return Talk2DINOFeatures(F.normalize(dense, dim=1), attention, heads)

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encodes each prompt in every template: the mean of CLIP's embeddings, projected, made a unit vector."""
        phrases = [template.format(prompt) for prompt in prompts for template in self.config.templates]
        return self.encode_templates(self.tokenizer(phrases).unflatten(0, (len(prompts), -1)))

    def encode_token_ids(self, token_ids: torch.Tensor) -> TextFeatures:
        pooled = encode_text(self.text, token_ids.flatten(0, 1), whole=True).pooled
        return self._projected(pooled.unflatten(0, token_ids.shape[:2]).mean(dim=1))

    def decode(self, image: Talk2DINOFeatures, text: TextFeatures) -> torch.Tensor:
        """Compares every patch with every prompt.

        Returns:
            (B, P, h, w) float32: cosines, or with background cleaning the logits of the cleaned probabilities.
        """
        phrases = text.pooled.float()
        cosines = torch.einsum("bchw,pc->bphw", image.dense.float(), phrases)
        weight = self.config.background_cleaning
        if weight is None or image.attention is None or image.heads is None:
            return cosines
        return cleaned(cosines.sigmoid(), image.attention.float(), image.heads.float(), phrases, weight).logit()

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return self.tokenizer.unknown_words(prompt)

    def encode_templates(self, token_ids: torch.Tensor) -> TextFeatures:
        """Encodes P phrases in T templates each, (P, T, L) int64."""
        token_ids = token_ids.to(self.text.positional_embedding.device)
        rows = []
        for part in token_ids.split(max(1, _PHRASES_AT_ONCE // token_ids.shape[1])):
            pooled = encode_text(self.text, part.flatten(0, 1)).pooled
            rows.append(pooled.unflatten(0, part.shape[:2]).mean(dim=1))
        return self._projected(torch.cat(rows))

    def _projected(self, means: torch.Tensor) -> TextFeatures:
        return TextFeatures(F.normalize(self.projection(means), dim=-1))


def cleaned(
    probabilities: torch.Tensor, attention: torch.Tensor, heads: torch.Tensor, phrases: torch.Tensor, weight: float
) -> torch.Tensor:
    """Raises probabilities where DINOv2's heads look, each head as much as what it sees is like the phrase.

    The attention is brought to the range of all probabilities of its image, as in the authors' program.

    Args:
        probabilities: (B, P, h, w).
        attention: (B, M, h, w) logits of the attention of M heads.
        heads: (B, M, C) of unit length: what each head looks at.
        phrases: (P, C) of unit length.
        weight: The weight of the attention, where the probabilities have 1.

    Returns:
        (B, P, h, w), within the range of ``probabilities``.
    """
    likeness = torch.einsum("pc,bmc->bpm", phrases, heads).softmax(dim=2)
    seen = torch.einsum("bpm,bmhw->bphw", likeness, attention)
    seen = seen.flatten(2).softmax(dim=2).unflatten(2, seen.shape[2:])
    low, high = seen.amin(dim=(1, 2, 3), keepdim=True), seen.amax(dim=(1, 2, 3), keepdim=True)
    least, most = (end(probabilities, dim=(1, 2, 3), keepdim=True) for end in (torch.amin, torch.amax))
    # It is divided by the highest and not by the range: so the authors wrote it.
    seen = (seen - low) / high * (most - least) + least
    return (probabilities + weight * seen) / (1 + weight)
