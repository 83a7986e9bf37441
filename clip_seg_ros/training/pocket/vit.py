# SPDX-License-Identifier: Apache-2.0
"""Trains a small CLIP with a ViT, whose last block MaskCLIP and its successors use in different ways.

The text tower is that of the embedded CLIP and is not trained. The image tower begins with random weights. The loss has
four terms:

* *crops* compares the class token with phrases, as CLIP does;
* *region* compares every patch, computed as MaskCLIP does, with phrases for its content;
* *teacher* draws the same embeddings to those of the embedded CLIP's ResNet at the same place;
* *linear* trains a temporary head that predicts the class and colour of every patch.

Its position table begins with sines of row and column, and a window of a scene takes a random window of the table, so
that a place's neighbours are as far from it in training as they are in a whole image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, TabletopScenes
from clip_seg_ros.models.checkpoints import save_safetensors, update_sum
from clip_seg_ros.models.clip import backbone
from clip_seg_ros.models.clip.positions import resize_position_table
from clip_seg_ros.models.clip.vision_taps import ResNetTaps, embed_patches
from clip_seg_ros.models.maskclip.dense_attention import dense_last_block
from clip_seg_ros.sim.scene import COLORS
from clip_seg_ros.training import distributed
from clip_seg_ros.training.optimizer import SMALL_RUN, Precision, rising
from clip_seg_ros.training.pocket.batches import crop_batch, index_crops, scene_batch
from clip_seg_ros.training.pocket.clip import pocket_clip
from clip_seg_ros.training.pocket.contrast import PhraseBank, at_grid, cross_entropy_of_known, mostly_objects
from clip_seg_ros.training.pocket.phrases import known_words
from clip_seg_ros.training.recipes.recipe import Normaliser
from clip_seg_ros.training.runner import Stage
from clip_seg_ros.training.settings import RecipeSettings
from clip_seg_ros.zoo.embedded import POCKET_SPECS

_POSITION_SCALE = 0.3
"""The size of the first positions: below that of the patches' embeddings, which are normalised together with them."""


@dataclass(frozen=True)
class ViTSettings(RecipeSettings):
    """The recipe of the embedded ViT."""

    scenes: int
    steps: int
    batch: int = 12
    crops: int = 24
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    width: int = 160
    layers: int = 6
    head_width: int = 32
    patch: int = 8
    image_px: int = 256
    """The side of the image that the position table describes."""
    scene_px: int = 128
    """The side of the window that is cropped from a scene."""
    crop_px: int = 64
    precision: Precision = "float32"
    seed: int = 0


def position_waves(grid: tuple[int, int], width: int) -> torch.Tensor:
    """Returns sines and cosines of the column and the row of every cell, (h * w, width), in -1..1.

    Vision transformers with such positions are those of Chen et al. (ICCV 2021, MoCo v3), whose longest wave is longer.
    Here the wavelengths rise from 2 pi to 200 pi cells, because an image has some 32 cells on a side.
    """
    quarter = width // 4
    frequencies = 0.01 ** torch.linspace(0, 1, quarter)
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = [cells.flatten()[:, None] * frequencies for cells in (columns, rows)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)


class ViTRecipe(nn.Module):
    """A CLIP with a new image tower, and the loss of a batch.

    Args:
        settings: Settings of the recipe.
        scenes: Scenes to train on.
        teacher: Path of ``clip_pocket.safetensors``, with the text tower and the ResNet that is the teacher.
    """

    def __init__(self, settings: ViTSettings, scenes: TabletopScenes, teacher: Path) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        self.settings, self._scenes = settings, scenes
        self._crops = index_crops(scenes)
        words = known_words()
        old, config, self.tokenizer = pocket_clip(teacher, words, 24, output_stride=16)
        vision = backbone.VisionConfig(
            settings.layers, settings.width, settings.image_px, settings.patch, settings.head_width
        )
        self.config = replace(config, vision=vision)
        self.clip = backbone.build_clip(self.config)
        texts = {name: value for name, value in old.state_dict().items() if not name.startswith("visual.")}
        self.clip.load_state_dict(texts, strict=False)
        visual = self.clip.visual
        visual.positional_embedding.data[0] = 0
        visual.positional_embedding.data[1:] = _POSITION_SCALE * position_waves(visual.grid_size, settings.width)
        for name, parameter in self.clip.named_parameters():
            parameter.requires_grad_(name.startswith("visual."))
        # The list keeps the teacher from being a submodule, because it is neither trained nor saved.
        self._teacher = [ResNetTaps(old.visual.eval().requires_grad_(False), [4], grid_stride=16)]
        self.bank = PhraseBank(self.clip, self.tokenizer)
        self.linear = nn.Linear(settings.width, len(SEMANTIC_CLASSES) + len(COLORS))
        self.normalised = Normaliser(POCKET_SPECS["vit"])

    def stages(self) -> list[Stage]:
        """Returns the only stage of the recipe, for a ``Runner``."""
        s = self.settings
        run = {**SMALL_RUN, "warmup": rising(200), "precision": s.precision}
        return [Stage("vit", s.steps, s.learning_rate, s.weight_decay, self, self.terms, **run)]

    @property
    def module(self) -> nn.Module:
        """The module whose weights the state file keeps."""
        return self

    def save(self, folder: Path) -> list[Path]:
        """Writes both towers in half precision, with the configuration from which ``factory`` builds them."""
        if distributed.rank() != 0:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "clip_vit_pocket.safetensors"
        values = {"clip": self.config.to_dict(), "known_words": list(self.tokenizer.known_words)}
        save_safetensors(path, self.clip.state_dict(), values, half=True)
        update_sum(path)
        return [path]

    def terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draws a batch and returns the terms of its loss."""
        s, device = self.settings, self.normalised.device
        self.train()
        with torch.no_grad():
            bank = self.bank.draw(rng)
        batch = scene_batch(self._scenes, rng, s.batch, (s.scene_px, s.scene_px), phrases=0)
        batch = batch.share().to(device)
        pixels = self.normalised(batch.pixels)
        tokens, dense, grid = self._patches(pixels, self._positions_of_window(rng))
        class_ids, color = at_grid(batch.class_map, grid).flatten(), at_grid(batch.color_map, grid).flatten()
        kept = mostly_objects(class_ids)
        terms = {"region": self.bank.loss(dense.flatten(0, 1)[kept], bank, color[kept], class_ids[kept])}
        classes, colors = self.linear(tokens).flatten(0, 1).split([len(SEMANTIC_CLASSES), len(COLORS)], dim=1)
        terms["linear"] = 0.5 * (cross_entropy_of_known(classes, class_ids) + cross_entropy_of_known(colors, color))
        terms["teacher"] = self._teacher_loss(pixels, dense, grid, kept)
        crops = crop_batch(self._scenes, self._crops, rng, s.crops, s.crop_px).share().to(device)
        pooled = self._pooled(self.normalised(crops.pixels))
        terms["crops"] = 0.5 * self.bank.loss(pooled, bank, crops.color, crops.kind)
        return terms

    def _positions(self, grid: tuple[int, int]) -> torch.Tensor:
        visual = self.clip.visual
        return resize_position_table(visual.positional_embedding, visual.grid_size, grid)

    def _positions_of_window(self, rng: np.random.Generator) -> torch.Tensor:
        """Returns the positions (1 + h * w, C) of a random window of an image, whose size and shape are random, too."""
        side = self.settings.scene_px // self.settings.patch
        whole = self.clip.visual.grid_size[0]
        rows = int(rng.integers(max(side, 3 * whole // 4), max(side, whole) + 1))
        columns = int(rng.integers(rows, 4 * rows // 3 + 2))
        table = self._positions((rows, columns))
        top, left = int(rng.integers(rows - side + 1)), int(rng.integers(columns - side + 1))
        window = table[1:].unflatten(0, (rows, columns))[top : top + side, left : left + side]
        return torch.cat([table[:1], window.flatten(0, 1)])

    def _tokens(self, pixels: torch.Tensor, positions: torch.Tensor, blocks: int) -> torch.Tensor:
        """Returns the tokens (B, 1 + h * w, C) after the first ``blocks`` blocks."""
        visual = self.clip.visual
        x = visual.ln_pre(embed_patches(visual, pixels, positions))
        for block in visual.transformer.resblocks[:blocks]:
            x = block(x)
        return x

    def _grid(self, pixels: torch.Tensor) -> tuple[int, int]:
        return (pixels.shape[2] // self.settings.patch, pixels.shape[3] // self.settings.patch)

    def _pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        visual = self.clip.visual
        tokens = self._tokens(pixels, self._positions(self._grid(pixels)), self.settings.layers)
        return visual.ln_post(tokens[:, 0]) @ visual.proj

    def _patches(
        self, pixels: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
        """Returns patches before the last block (B, h * w, C), MaskCLIP's embeddings (B, h * w, D), and the grid."""
        visual, grid = self.clip.visual, self._grid(pixels)
        x = self._tokens(pixels, positions, self.settings.layers - 1)
        dense, _ = dense_last_block(visual.transformer.resblocks[-1], x, grid, "maskclip")
        return x[:, 1:], visual.ln_post(dense) @ visual.proj, grid

    def _teacher_loss(
        self, pixels: torch.Tensor, dense: torch.Tensor, grid: tuple[int, int], kept: torch.Tensor
    ) -> torch.Tensor:
        """Returns the mean of 1 - cosine between the embeddings and the ResNet's at the same places."""
        taps = self._teacher[0]
        taps.visual.to(pixels.device)
        with torch.no_grad():
            wanted = taps.dense(taps.feature_maps(pixels, 4)[3])
            wanted = F.interpolate(wanted, size=grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        return (1 - F.cosine_similarity(dense.flatten(0, 1)[kept], wanted.flatten(0, 1)[kept], dim=-1)).mean()
