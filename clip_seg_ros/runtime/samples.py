# SPDX-License-Identifier: Apache-2.0
"""A few images and phrases that come with the package, on which two engines of a model can be compared."""

from __future__ import annotations

import cv2
import torch
from torch.nn import functional

from clip_seg_ros import resources
from clip_seg_ros.models.spec import InputSpec, ModelSpec

PHRASES = ("red cup", "blue box", "table")
"""What is in the images; a model that tells other classes apart finds its own there, or none."""
CAMERA_SIZE = (480, 640)
"""The size (H, W) of the camera that the images stand for."""


def sample_pixels(spec: InputSpec) -> list[torch.Tensor]:
    """Returns the sample images as a model with this input sees those of a camera, each (B, 3, h, w) float32.

    B is 1, or 2 windows for a model that looks through windows.
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    found = []
    for path in sorted((resources.config_dir() / "samples").glob("*.jpg")):
        rgb = torch.from_numpy(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))
        pixels = rgb.permute(2, 0, 1)[None].float() / 255.0
        size = spec.model_size(CAMERA_SIZE)
        pixels = functional.interpolate(
            pixels, size=size, mode="bilinear", align_corners=False, antialias=spec.antialias
        )
        pixels = (pixels - mean) / std
        if spec.window is not None:
            crop = spec.window.crop
            pixels = torch.cat([pixels[..., :crop, :crop], pixels[..., -crop:, -crop:]])
        found.append(pixels.contiguous())
    return found


def sample_prompts(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the prompts to decode together: all classes of a model that has them, else phrases and background."""
    return _with_background(PHRASES, spec)


def usual_prompts(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the prompts that a robot's usual command needs, which names one thing."""
    return _with_background(PHRASES[:1], spec)


def _with_background(phrases: tuple[str, ...], spec: ModelSpec) -> tuple[str, ...]:
    if spec.class_names is not None:
        return spec.class_names
    return phrases + tuple(phrase for phrase in spec.background_prompts if phrase not in phrases)
