# SPDX-License-Identifier: Apache-2.0
"""DenseCLIP (Rao et al., CVPR 2022): text embeddings, adapted to the image, score every pixel for a segmentation net.

``prompting`` makes the maps with the score map; here they go through an FPN and the Semantic FPN head to logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.clip.backbone import TextTransformer
from clip_seg_ros.models.clip.tokenizer import Tokenizer
from clip_seg_ros.models.denseclip.backbones import DenseBackbone, DenseFeatures
from clip_seg_ros.models.denseclip.parts import FeaturePyramid, SemanticFPNHead
from clip_seg_ros.models.denseclip.prompting import PromptingConfig, TextGuided


@dataclass(frozen=True)
class DenseCLIPConfig(PromptingConfig):
    """Everything besides its towers that determines the shapes of DenseCLIP."""

    pyramid_channels: int = 256
    head_channels: int = 256


class DenseCLIP(TextGuided[DenseCLIPConfig]):
    """Semantic segmentation over a fixed list of classes."""

    competition = "softmax"
    config_type: ClassVar[type[PromptingConfig]] = DenseCLIPConfig

    def __init__(
        self,
        name: str,
        backbone: DenseBackbone,
        text_encoder: TextTransformer,
        config: DenseCLIPConfig,
        tokenizer: Tokenizer,
    ) -> None:
        """Combines the parts; all weights but those of the towers are random.

        Raises:
            ValueError: The length of the text tower's context is not that of contexts and names together.
        """
        super().__init__(name, backbone, text_encoder, config, tokenizer)
        self.neck = FeaturePyramid(self.guided_widths, config.pyramid_channels)
        self.decode_head = SemanticFPNHead(
            config.pyramid_channels, config.head_channels, len(config.class_names), config.dropout
        )

    def decode(self, image: DenseFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns logits (B, K, H / 4, W / 4). ``text`` has all classes in their order."""
        return self.decode_with_scores(image, text)[0]

    def decode_with_scores(self, image: DenseFeatures, text: TextFeatures) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the logits and the score map (B, K, h, w) of cosines, which has a loss of its own (section 3.2).

        Raises:
            ValueError: ``text`` does not have all classes.
        """
        maps, scores = self.guided_maps(image, text)
        return self.decode_head(self.neck(maps)), scores
