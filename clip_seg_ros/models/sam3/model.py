# SPDX-License-Identifier: Apache-2.0
"""SAM 3 (Carion et al., "SAM 3: Segment Anything with Concepts", 2025): all objects of a phrase, each with its mask.

pixels -> ViT -> maps at three strides --v
prompt -> text tower -> words --> fusion -> 200 queries -> for each a score, a box and a mask
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.tokenizer import Tokenizer, build_tokenizer
from clip_seg_ros.models.detections import Detections
from clip_seg_ros.models.operators import complete_torchvision
from clip_seg_ros.models.sam3.network import build_network, text_embeds, vision_embeds
from clip_seg_ros.models.spec import InputSpec

PhraseMap = Literal["objects", "semantic"]
LEAST_SCORE = 0.05
"""Objects with a lower score are never returned: nearly all queries find nothing."""
_AT_ONCE = 4
"""The number of pairs of an image and a prompt that are computed together: each takes hundreds of megabytes."""
_LEAST_DOUBT = 1e-4
"""The distance from 0 and 1 that probabilities keep as logits."""


@dataclass(frozen=True)
class SAM3Config:
    """Everything that determines the shapes of the weights, and what a phrase's map is."""

    network: dict[str, Any]
    """The values of transformers' ``Sam3Config``."""
    input_spec: InputSpec
    phrase_map: PhraseMap = "objects"
    """What ``decode`` returns: the objects of ``detect`` together, or the answer of the network's semantic head."""

    def __post_init__(self) -> None:
        if self.phrase_map not in get_args(PhraseMap):
            raise ValueError(f'phrase_map must be {" or ".join(get_args(PhraseMap))}, got "{self.phrase_map}"')

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SAM3Config:
        """Makes a configuration from the values of ``to_dict``.

        Raises:
            KeyError, TypeError: Names are unknown or missing.
            ValueError: A value is wrong.
        """
        return cls(**{**values, "input_spec": InputSpec.from_dict(values["input_spec"])})


@dataclass(frozen=True)
class SAM3Features(ImageFeatures):
    """The features of an image for the decoder."""

    maps: tuple[torch.Tensor, ...]
    """(B, C, h_i, w_i) at strides of 3.5, 7 and 14, the finest first."""


@dataclass(frozen=True)
class _Found:
    """What the queries found in some pairs of an image and a prompt."""

    scores: torch.Tensor
    """(N, Q) 0..1."""
    boxes: torch.Tensor
    """(N, Q, 4) left, top, right, bottom, as shares of the image."""
    masks: torch.Tensor
    """(N, Q, h, w) logits."""
    semantic: torch.Tensor
    """(N, h, w) logits."""


class SAM3(PromptableSegmenter[SAM3Features]):
    """Finds all objects of any phrase one by one. The network is transformers' own."""

    competition = "sigmoid"
    finds_objects = True
    box_phrase = "visual"

    def __init__(self, name: str, config: SAM3Config, tokenizer: Tokenizer) -> None:
        """Builds the network with random weights.

        Raises:
            ValueError: The network's configuration is wrong.
            WeightsError: transformers is missing or too old.
        """
        super().__init__()
        self.name = name
        self.config = config
        self.input_spec = config.input_spec
        self.network = build_network(config.network)
        self.tokenizer = tokenizer

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> SAM3:
        """Builds the model that a weight file describes, with random weights.

        Raises:
            KeyError, TypeError, ValueError: The configuration describes no SAM 3.
            WeightsError: transformers is missing or too old.
        """
        return cls(name, SAM3Config.from_dict(config["sam3"]), build_tokenizer(config["tokenizer"]))

    def encode_image(self, pixels: torch.Tensor) -> SAM3Features:
        """Encodes ``pixels`` (B, 3, h, w) of the size for which the network was built."""
        return SAM3Features(tuple(self.network.vision_encoder(pixels).fpn_hidden_states[:-1]))

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        return self.encode_token_ids(self.tokenizer(prompts).to(self.network.device))

    def encode_token_ids(self, token_ids: torch.Tensor) -> TextFeatures:
        end = token_ids.argmax(dim=1)
        padding = torch.arange(token_ids.shape[1], device=token_ids.device) > end[:, None]
        features = self.network.get_text_features(input_ids=token_ids, attention_mask=(~padding).long())
        tokens = features.pooler_output  # (P, L, C), whatever its name says
        return TextFeatures(tokens[torch.arange(tokens.shape[0], device=end.device), end], tokens, padding)

    def decode(self, image: SAM3Features, text: TextFeatures) -> torch.Tensor:
        """Returns logits (B, P, h, w).

        At every threshold, a map of "objects" holds the masks, at this threshold, of all objects whose score is higher.
        """
        return torch.stack([found.maps for found in self.detect(image, text)])

    def detect(self, image: SAM3Features, text: TextFeatures) -> list[Detections]:
        """Returns the objects of every image, the best first; ``labels`` are indices into the prompts of ``text``."""
        return self._detected(image, text)

    def detect_like(
        self, image: SAM3Features, text: TextFeatures, boxes: torch.Tensor, is_positive: torch.Tensor
    ) -> Detections:
        # transformers calls torchvision's RoIAlign, which wants a compiler where its compiled one is missing.
        complete_torchvision()
        low, high = (boxes / self.input_spec.size).split(2, dim=1)
        middles = torch.cat([(low + high) / 2, high - low], dim=1)[None]  # (1, N, 4): x, y, width, height
        (found,) = self._detected(image, text, input_boxes=middles, input_boxes_labels=is_positive.long()[None])
        return found

    def _detected(self, image: SAM3Features, text: TextFeatures, **boxes: torch.Tensor) -> list[Detections]:
        """Does what ``detect`` does; ``boxes`` are more arguments of the network."""
        prompts, side = text.pooled.shape[0], self.input_spec.size
        rows: list[list[tuple[torch.Tensor, ...]]] = [[] for _ in range(image.maps[0].shape[0])]
        pair = 0
        for found in self._found(image, text, boxes):
            maps = self._maps(found)
            for scores, boxes, masks, whole in zip(found.scores, found.boxes, found.masks, maps, strict=True):
                sure = scores >= LEAST_SCORE
                label = torch.full((int(sure.sum()),), pair % prompts, device=scores.device)
                part = scores[sure], boxes[sure] * side, masks[sure].sigmoid(), label, whole[None]
                rows[pair // prompts].append(part)
                pair += 1
        return [_detections(row) for row in rows]

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return self.tokenizer.unknown_words(prompt)

    def _maps(self, found: _Found) -> torch.Tensor:
        """Returns logits (N, h, w), what ``decode`` does for some pairs of an image and a prompt."""
        if self.config.phrase_map == "semantic":
            return found.semantic.float()
        shares = torch.minimum(found.masks.float().sigmoid(), found.scores.float()[:, :, None, None])
        return shares.amax(dim=1).logit(eps=_LEAST_DOUBT)

    def _found(self, image: SAM3Features, text: TextFeatures, boxes: Mapping[str, torch.Tensor]) -> Iterator[_Found]:
        """Yields what was found in some of the pairs, all prompts of the first image before those of the second."""
        prompts = text.pooled.shape[0]
        for pairs in torch.arange(image.maps[0].shape[0] * prompts).split(_AT_ONCE):
            images, texts = (pairs // prompts).to(text.pooled.device), (pairs % prompts).to(text.pooled.device)
            answer = self.network(
                vision_embeds=vision_embeds(self.network, tuple(each[images] for each in image.maps)),
                text_embeds=text_embeds(text.tokens[texts]),
                attention_mask=~text.padding_mask[texts],
                **boxes,
            )
            scores = answer.pred_logits.sigmoid() * answer.presence_logits.sigmoid()
            yield _Found(scores, answer.pred_boxes, answer.pred_masks, answer.semantic_seg[:, 0])


def _detections(rows: Sequence[tuple[torch.Tensor, ...]]) -> Detections:
    scores, boxes, masks, labels, maps = (torch.cat(parts) for parts in zip(*rows, strict=True))
    order = scores.argsort(descending=True, stable=True)
    return Detections(boxes[order], scores[order], labels[order], masks[order], maps, of_image=True)
