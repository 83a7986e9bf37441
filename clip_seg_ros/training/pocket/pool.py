# SPDX-License-Identifier: Apache-2.0
"""Trains the queries and keys of the embedded CLIP's attention pool at single places, and nothing else.

Whole images alone teach them little: their products grow until every place attends to the same few places. MaskCLIP's
value path does not use them, but SCLIP, ClearCLIP and NACLIP do, and so does every method that applies the whole pool
at each place, as DenseCLIP and CRIS do. They begin anew here, soft, and the loss has four terms:

* *places* compares every place with phrases for its content, as one of ``ATTENTIONS`` embeds it;
* *crops* and *examples* compare pooled images with phrases, as CLIP does;
* *teacher* holds pooled images to what they were before the training, because CLIPSeg's decoder has learnt those.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.models.checkpoints import load_safetensors, save_safetensors, update_sum
from clip_seg_ros.models.clip.vision_taps import ResNetTaps
from clip_seg_ros.models.layers import split_heads
from clip_seg_ros.models.maskclip.dense_attention import dense_pool
from clip_seg_ros.sim.scene import COLORS, KINDS
from clip_seg_ros.training import distributed
from clip_seg_ros.training.optimizer import SMALL_RUN, rising
from clip_seg_ros.training.pocket.batches import SceneBatch, crop_batch, example_batch, index_crops, scene_batch
from clip_seg_ros.training.pocket.clip import pocket_clip
from clip_seg_ros.training.pocket.contrast import PhraseBank, at_grid, mostly_objects
from clip_seg_ros.training.pocket.phrases import known_words
from clip_seg_ros.training.recipes.recipe import Normaliser
from clip_seg_ros.training.runner import Stage
from clip_seg_ros.training.settings import RecipeSettings, require_steps
from clip_seg_ros.zoo.embedded import POCKET_SPECS

Attention = Literal["sclip", "naclip", "whole"]
ATTENTIONS: tuple[Attention, ...] = ("sclip", "naclip", "whole")
"""The attentions that are trained in turn: two variants of ``dense_attention``, of which the first covers ClearCLIP's,
and the whole pool at every place, with positions."""

_TRAINED = ("visual.attnpool.q_proj.", "visual.attnpool.k_proj.")
_PARTS = ((1, KINDS), (0, COLORS))
"""The places of kind and colour in a pair, and their names."""
_ENCODED_AT_ONCE = 16
"""The number of windows in one batch of the image tower."""


@dataclass(frozen=True)
class Features:
    """The last maps of N images, and what they show."""

    layer4: torch.Tensor
    """(N, C, h, w); float16 in memory, float32 in a batch."""
    class_ids: torch.Tensor
    """The indices into SEMANTIC_CLASSES, (N, h, w) or, of images of single objects, (N,); -1 = beyond the floor."""
    color: torch.Tensor
    """The indices into COLORS, shaped alike; -1 = no object, or recoloured."""

    @classmethod
    def joined(cls, parts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> Features:
        """Joins batches, on the device of their maps."""
        layer4, class_ids, color = (torch.cat(part) for part in zip(*parts, strict=True))
        return cls(layer4, class_ids.to(layer4.device), color.to(layer4.device))

    def draw(self, rng: np.random.Generator, size: int) -> Features:
        """Returns this process's part of ``size`` images."""
        rows = distributed.share(torch.from_numpy(rng.integers(len(self.layer4), size=size))).to(self.layer4.device)
        return Features(self.layer4[rows].float(), self.class_ids[rows], self.color[rows])


@dataclass(frozen=True)
class PoolSettings(RecipeSettings):
    """The recipe of the embedded CLIP's attention pool."""

    scenes: int
    steps: int
    windows: int = 600
    """The number of windows of scenes that are encoded ahead; four times as many crops and example images are, too."""
    batch: int = 6
    crops: int = 24
    """The number of object crops, and of example images, in a batch besides the scenes."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    teacher_weight: float = 1.0
    """The weight of the term that holds pooled images where they were."""
    deviation: float = 2.0
    """The standard deviation of the attention's logits at the beginning; the smaller, the softer."""
    scene_px: tuple[int, int] = (192, 256)
    """The (height, width) of the window that is cropped from a scene; both are multiples of 16."""
    crop_px: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        require_steps(self)
        if self.windows < 1:
            raise ValueError(f"windows must be at least 1, got {self.windows}")
        if not self.deviation > 0:
            raise ValueError(f"deviation must be more than 0, got {self.deviation}")


class PoolRecipe(nn.Module):
    """The embedded CLIP with new queries and keys in its pool, and the loss of a batch.

    Args:
        settings: Settings of the recipe.
        scenes: Scenes to train on.
        start: Path of ``clip_pocket.safetensors``; all but the queries and keys stays as it is there.

    Raises:
        WeightsError: The file is missing or damaged.
    """

    def __init__(self, settings: PoolSettings, scenes: TabletopScenes, start: Path) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        self.settings, self._scenes, self._start = settings, scenes, start
        self._crops = index_crops(scenes)
        self._shown = sorted({(COLORS[c], KINDS[k]) for c, k in zip(self._crops.color, self._crops.kind, strict=True)})
        self.clip, _, tokenizer = pocket_clip(start, known_words(), 24, output_stride=16)
        self.clip.eval().requires_grad_(False)
        pool = self.clip.visual.attnpool
        self.taps = ResNetTaps(self.clip.visual, [4], grid_stride=16)
        # The list keeps the teacher from being a submodule, because it is neither trained nor saved.
        self._teacher = [ResNetTaps(deepcopy(self.clip.visual), [4], grid_stride=16)]
        self.bank = PhraseBank(self.clip, tokenizer)
        self.normalised = Normaliser(POCKET_SPECS["resnet"])
        self.trained = nn.ModuleList([pool.q_proj, pool.k_proj]).requires_grad_(True)
        self._soften(np.random.default_rng([settings.seed, 77]))

    def stages(self) -> list[Stage]:
        """Returns the only stage of the recipe, for a ``Runner``."""
        s = self.settings
        run = {**SMALL_RUN, "warmup": rising(20)}
        return [Stage("pool", s.steps, s.learning_rate, s.weight_decay, self.trained, self.terms, **run)]

    @property
    def module(self) -> nn.Module:
        """The module whose weights the state file keeps."""
        return self

    def save(self, folder: Path) -> list[Path]:
        """Writes the file from which the training began, with the new queries and keys, in half precision."""
        if distributed.rank() != 0:
            return []
        tensors, values = load_safetensors(self._start)
        new = self.clip.state_dict()
        changed = {name: new[name] for name in tensors if name.startswith(_TRAINED)}
        path = folder / "clip_pocket.safetensors"
        save_safetensors(path, tensors | changed, values)
        update_sum(path)
        return [path]

    def terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draws a batch and returns the terms of its loss."""
        s = self.settings
        with torch.no_grad():
            bank = self.bank.draw(rng)
        windows, crops, examples = self._windows.draw(rng, s.batch), self._singles[0], self._singles[1]
        dense = embed_places(self.taps, windows.layer4, ATTENTIONS[rng.integers(len(ATTENTIONS))])
        class_ids, color = windows.class_ids.flatten(), windows.color.flatten()
        kept = mostly_objects(class_ids)
        terms = {"places": self.bank.loss(dense.flatten(0, 1)[kept], bank, color[kept], class_ids[kept])}
        terms["teacher"] = torch.zeros((), device=dense.device)
        apart = 0.5 * s.teacher_weight
        self._teacher[0].visual.to(dense.device)
        for name, shown in (("crops", crops.draw(rng, s.crops)), ("examples", examples.draw(rng, s.crops))):
            pooled = self.taps.pool(shown.layer4)
            terms[name] = 0.5 * self.bank.loss(pooled, bank, shown.color, shown.class_ids)
            with torch.no_grad():
                before = self._teacher[0].pool(shown.layer4)
            # Lengths count, too: CLIPSeg's decoder has learnt them.
            moved = (pooled - before).square().sum(dim=-1) / before.square().sum(dim=-1)
            terms["teacher"] = terms["teacher"] + apart * moved.mean()
        return terms

    @cached_property
    def _windows(self) -> Features:
        """The windows of scenes; they are encoded once, because the tower stays as it is."""
        rng, s, parts = np.random.default_rng([self.settings.seed, 78]), self.settings, []
        for first in range(0, s.windows, _ENCODED_AT_ONCE):
            batch = self._scene_batch(rng, min(_ENCODED_AT_ONCE, s.windows - first))
            layer4 = self._layer4(batch.pixels)
            grid = tuple(layer4.shape[-2:])
            parts.append((layer4.half(), at_grid(batch.class_map, grid), at_grid(batch.color_map, grid)))
        return Features.joined(parts)

    @cached_property
    def _singles(self) -> tuple[Features, Features]:
        """The object crops and the example images, four of each for every window."""
        rng, crop_px = np.random.default_rng([self.settings.seed, 79]), self.settings.crop_px
        crops, examples = [], []
        for first in range(0, self.settings.windows, _ENCODED_AT_ONCE):
            count = 4 * min(_ENCODED_AT_ONCE, self.settings.windows - first)
            batch = crop_batch(self._scenes, self._crops, rng, count, crop_px)
            crops.append((self._layer4(batch.pixels).half(), batch.kind, batch.color))
            pairs = [self._shown[row] for row in rng.integers(len(self._shown), size=count)]
            kind, color = (torch.tensor([names.index(pair[part]) for pair in pairs]) for part, names in _PARTS)
            pixels = example_batch(self._scenes, self._crops, rng, pairs, crop_px)
            examples.append((self._layer4(pixels).half(), kind, color))
        return Features.joined(crops), Features.joined(examples)

    def _scene_batch(self, rng: np.random.Generator, size: int) -> SceneBatch:
        return scene_batch(self._scenes, rng, size, self.settings.scene_px, phrases=0)

    def _layer4(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns the last map (B, C, h, w) of pixels (B, 3, H, W) in 0..1, without gradients."""
        with torch.no_grad():
            return self.taps.feature_maps(self.normalised(pixels), 4)[3]

    @torch.no_grad()
    def _soften(self, rng: np.random.Generator) -> None:
        """Draws new queries and keys, the same for both, whose logits have ``settings.deviation`` in a batch."""
        pool = self.clip.visual.attnpool
        tokens = self._layer4(self._scene_batch(rng, self.settings.batch).pixels).flatten(2).transpose(1, 2)
        nn.init.normal_(pool.q_proj.weight)
        # What all places have in common says nothing about any of them.
        pool.q_proj.bias.copy_(-pool.q_proj.weight @ tokens.mean(dim=(0, 1)))
        heads = split_heads(pool.q_proj(tokens), pool.num_heads)
        logits = heads @ heads.transpose(2, 3) / heads.shape[-1] ** 0.5
        for value in pool.q_proj.parameters():
            value.mul_((self.settings.deviation / logits.std()).sqrt())
        pool.k_proj.load_state_dict(pool.q_proj.state_dict())


def embed_places(taps: ResNetTaps, layer4_map: torch.Tensor, attention: Attention) -> torch.Tensor:
    """Embeds every place of ``layer4_map`` (B, C, h, w) by one of ``ATTENTIONS``: (B, h * w, D), not normalised."""
    pool, grid = taps.visual.attnpool, tuple(layer4_map.shape[-2:])
    tokens = layer4_map.flatten(2).transpose(1, 2)
    if attention != "whole":
        return dense_pool(pool, tokens, grid, attention)[0]
    tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + taps.positions(grid, tokens.dtype)
    query, key, value = (split_heads(f(tokens), pool.num_heads) for f in (pool.q_proj, pool.k_proj, pool.v_proj))
    return pool.c_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))[:, 1:]
