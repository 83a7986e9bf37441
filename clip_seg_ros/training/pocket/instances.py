# SPDX-License-Identifier: Apache-2.0
"""Trains the embedded detector from the embedded CLIP: DenseCLIP with Mask R-CNN, for kinds of objects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clip_seg_ros.data.rendered_instances import RenderedInstances, instance_sample
from clip_seg_ros.data.samples import InstanceSample
from clip_seg_ros.data.tabletop import TabletopScenes, class_map
from clip_seg_ros.models.denseclip.detectors import DenseCLIPInstancesConfig
from clip_seg_ros.models.denseclip.instances import DenseCLIPInstances
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.training.pocket.batches import TABLE
from clip_seg_ros.training.pocket.denseclip import POCKET_PROMPTING, PromptingPocketSettings, pocket_towers
from clip_seg_ros.training.pocket.scene_views import augment, retextured, zoom
from clip_seg_ros.training.recipes.denseclip_instances import DenseCLIPInstancesRecipe, DenseCLIPInstancesSettings
from clip_seg_ros.training.recipes.instance_batch import InstanceBatch, instance_batch

_RETEXTURED_SHARE = 0.7
_RECOLORED_SHARE = 0.3


@dataclass(frozen=True)
class InstancesPocketSettings(PromptingPocketSettings):
    """The recipe of the embedded detector."""

    train: DenseCLIPInstancesSettings
    """Its ``views`` are not used: scenes are zoomed, recoloured and mirrored like those of the other recipes here."""


def instances_pocket(
    settings: InstancesPocketSettings, scenes: TabletopScenes, clip_path: Path
) -> DenseCLIPInstancesRecipe:
    """Makes the recipe.

    Args:
        settings: Settings of the recipe.
        scenes: Scenes, at least as many as the settings require.
        clip_path: Path of ``clip_pocket.safetensors``, with whose weights the towers begin.

    Raises:
        WeightsError: The towers' file is missing or damaged.
    """
    torch.manual_seed(settings.seed)
    model, config = build_instances_pocket(settings, clip_path)

    def draw(rng: np.random.Generator) -> InstanceBatch:
        return scene_instances(scenes, rng, settings.train.batch, settings.scene_px).share()

    return DenseCLIPInstancesRecipe(settings.train, model, config, draw)


def build_instances_pocket(
    settings: InstancesPocketSettings, clip_path: Path
) -> tuple[DenseCLIPInstances, dict[str, Any]]:
    """Builds the detector on the embedded CLIP; all other weights are random.

    Returns:
        The model, and the configuration from which ``factory.build_from_config`` builds it.
    """
    towers = pocket_towers(clip_path)
    own = DenseCLIPInstancesConfig(
        RenderedInstances.class_names,
        InputSpec(settings.input_px, "short_side", 32, IMAGENET_MEAN, IMAGENET_STD),
        context_aware=settings.context_aware,
        score_map=settings.score_map,
        pyramid_channels=64,
        box_channels=256,
        mask_channels=64,
        anchor_px=16.0,
        proposals=200,
        sampled_boxes=64,
        **POCKET_PROMPTING,
    )
    model = DenseCLIPInstances("denseclip_instances_pocket", towers.backbone, towers.text, own, towers.tokenizer)
    return model, {"kind": "denseclip_instances", "denseclip": own.to_dict(), **towers.config}


def scene_instances(
    scenes: TabletopScenes, rng: np.random.Generator, size: int, height_width: tuple[int, int]
) -> InstanceBatch:
    """Draws ``size`` scenes, zooms into each a little, and lists the objects that are then visible."""
    height, width = height_width
    recolored = rng.random(size) < _RECOLORED_SHARE
    samples: list[InstanceSample] = []
    for n in rng.integers(len(scenes), size=size):
        window = zoom(scenes.labels[n], rng, height, width)
        rgb, labels = window.cut(scenes.rgb[n]), np.ascontiguousarray(window.cut(scenes.labels[n]))
        if rng.random() < _RETEXTURED_SHARE:
            bare = window.cut(class_map(scenes.scene(n), scenes.labels[n])) == TABLE
            rgb = retextured(rgb, bare, rng)
        samples.append(instance_sample(rgb, labels, [kind for _, kind in scenes.objects[n]], f"scene {n}"))
    pixels = augment(np.stack([sample.rgb for sample in samples]), recolored, rng)
    plain = [replace(sample, rgb=np.ascontiguousarray(sample.rgb)) for sample in samples]
    return instance_batch(plain, IMAGENET_MEAN, pixels)
