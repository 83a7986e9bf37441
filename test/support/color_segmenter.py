# SPDX-License-Identifier: Apache-2.0
"""A model without weights that finds three colours, so that it is known what a right answer is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.spec import InputSpec

COLORS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


class ColorSegmenter(PromptableSegmenter):
    """Knows three words; a pixel's logit is positive where its colour is nearer than 0.5 to the word's."""

    def __init__(self, competition="sigmoid", resize="short_side", size=64, window=None):
        super().__init__()
        self.name = "color"
        self.input_spec = InputSpec(size, resize, 16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), window=window)
        self.competition = competition
        self.sharpness = torch.nn.Parameter(torch.tensor(20.0))
        self.dropout = torch.nn.Dropout(0.5)
        self.images_encoded = 0
        self.texts_encoded = []

    def encode_image(self, pixels):
        self.images_encoded += len(pixels)
        spec = self.input_spec
        mean, std = (pixels.new_tensor(value).view(1, 3, 1, 1) for value in (spec.mean, spec.std))
        rgb = pixels * std + mean
        return ColorFeatures(rgb)

    def encode_text(self, prompts):
        self.texts_encoded += prompts
        return TextFeatures(self.sharpness.new_tensor([COLORS[prompt] for prompt in prompts]))

    def decode(self, image, text):
        distance = torch.cdist(
            text.pooled.float().unsqueeze(0), image.rgb.flatten(2).transpose(1, 2).float()
        )  # (B, P, h * w)
        return self.dropout((0.5 - distance) * self.sharpness).unflatten(2, image.rgb.shape[2:])


@dataclass(frozen=True)
class ColorFeatures(ImageFeatures):
    rgb: torch.Tensor


def halves(left, right, size=(48, 64)):
    rgb = np.zeros((*size, 3), np.uint8)
    rgb[:, : size[1] // 2] = np.multiply(COLORS[left], 255)
    rgb[:, size[1] // 2 :] = np.multiply(COLORS[right], 255)
    return rgb
