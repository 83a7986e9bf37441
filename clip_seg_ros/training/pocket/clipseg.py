# SPDX-License-Identifier: Apache-2.0
"""Trains the embedded weights: a small CLIP from rendered scenes, then CLIPSeg's decoder on it.

1. ``crops`` compares object crops with phrases, as CLIP does; three crops of ten are recoloured.
2. ``scenes`` uses whole scenes. It compares every token with phrases through the attention pool's value path (which
   MaskCLIP uses), trains CLIPSeg's decoder end to end, and a linear head that predicts kind and colour of each token.
3. ``decoder`` is CLIPSeg's own training: the towers are frozen after their BatchNorm statistics are measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, TabletopScenes
from clip_seg_ros.models.checkpoints import load_safetensors, load_strict, save_safetensors, update_sum
from clip_seg_ros.models.clip import backbone
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.models.clipseg.model import CLIPSeg, CLIPSegConfig
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.sim.scene import COLORS, KINDS
from clip_seg_ros.training import distributed
from clip_seg_ros.training.losses import dice_loss
from clip_seg_ros.training.optimizer import SMALL_RUN
from clip_seg_ros.training.pocket.batches import SceneBatch, crop_batch, example_batch, index_crops, scene_batch
from clip_seg_ros.training.pocket.clip import pocket_clip
from clip_seg_ros.training.pocket.contrast import PhraseBank, at_grid, cross_entropy_of_known, mostly_objects
from clip_seg_ros.training.pocket.phrases import known_words
from clip_seg_ros.training.recipes.recipe import Normaliser
from clip_seg_ros.training.runner import Stage
from clip_seg_ros.training.settings import RecipeSettings

_STATISTICS_BATCHES = 60
"""The number of batches, of 16 scenes each, on which BatchNorm's statistics are measured."""


@dataclass(frozen=True)
class StageSettings:
    """The length and batch size of one stage."""

    steps: int
    batch: int
    learning_rate: float
    phrases: int = 0
    """The number of phrases per scene."""
    crops: int = 0
    """The number of object crops in a batch besides the scenes."""
    scene_px: tuple[int, int] = (160, 160)
    """The (height, width) of the window that is cropped from a scene; both are multiples of 16."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scene_px", tuple(self.scene_px))


@dataclass(frozen=True)
class PocketSettings(RecipeSettings):
    """The whole recipe, as in ``config/train_pocket.yaml``."""

    scenes: int
    crops: StageSettings
    joint: StageSettings
    decoder: StageSettings
    seed: int = 0
    width: int = 24
    layers: tuple[int, int, int, int] = (1, 2, 2, 1)
    embed_dim: int = 128
    text_width: int = 128
    text_layers: int = 3
    context_length: int = 24
    reduce_dim: int = 64
    feed_forward: int = 256
    crop_px: int = 48
    input_px: int = 256
    """The short side of the input image; 256 x 336 for a 4:3 camera. Training windows show objects at this size and at
    half of it; at 192, objects in scenes beyond the ranges of training lost 0.07 of their IoU."""
    more_kinds: float = 0.0
    """The share of phrases that name a kind alone, besides those that do so anyway; see ``sample_query``."""
    weight_decay: float = 0.02
    start: str | None = None
    """A folder with weights of an earlier run from which to continue; ``crops`` should then have no steps."""


def build_pocket(settings: PocketSettings) -> tuple[CLIPSeg, backbone.ClipConfig]:
    """Builds the pocket CLIPSeg with random weights; returns it with the configuration of its CLIP."""
    tokenizer = CompactTokenizer(known_words(), settings.context_length)
    clip_config = backbone.ClipConfig(
        embed_dim=settings.embed_dim,
        # Crops end on a grid of crop_px / 16; open_clip derives that grid as image_size / 32.
        vision=backbone.VisionConfig(settings.layers, settings.width, 2 * settings.crop_px, output_stride=16),
        text=backbone.TextConfig(
            settings.context_length, tokenizer.vocab_size, settings.text_width, 4, settings.text_layers
        ),
    )
    stages = (2, 3, 4)
    config = CLIPSegConfig(
        embed_dim=settings.embed_dim,
        extract_layers=stages,
        tap_widths=tuple(settings.width * 4 * 2 ** (stage - 1) for stage in stages),
        stride=8,
        prefix_tokens=0,
        input_spec=InputSpec(settings.input_px, "short_side", 16, IMAGENET_MEAN, IMAGENET_STD),
        reduce_dim=settings.reduce_dim,
        feed_forward=settings.feed_forward,
        image_prompt_px=settings.crop_px,
        dropout=0.0,  # the model does not overfit tens of thousands of scenes, and dropout rules out fused attention
    )
    model = CLIPSeg("clipseg-pocket", backbone.build_clip(clip_config), config, tokenizer)
    model.clip.visual.to(memory_format=torch.channels_last)
    return model, clip_config


class PocketRecipe(nn.Module):
    """The model and the heads that only training uses."""

    def __init__(self, settings: PocketSettings, scenes: TabletopScenes) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        self.settings, self._scenes = settings, scenes
        self._crops = index_crops(scenes)
        # Pairs that have an example; few scenes do not have one of every pair.
        self._shown = {(COLORS[c], KINDS[k]) for c, k in zip(self._crops.color, self._crops.kind, strict=True)}
        self.model, self.clip_config = build_pocket(settings)
        if settings.start:
            self._take_over(Path(settings.start))
        self.bank = PhraseBank(self.model.clip, self.model.tokenizer)
        taps = self.model.taps
        self.crop_head = nn.Linear(settings.embed_dim, len(KINDS) + len(COLORS))
        # This head predicts kind or surface, and colour, of every token.
        self.token_head = nn.Linear(sum(taps.widths), len(SEMANTIC_CLASSES) + len(COLORS))
        self.normalised = Normaliser(self.model.input_spec)

    def stages(self) -> list[Stage]:
        """Returns the stages of the recipe, for a ``Runner``."""
        s = self.settings
        parts = (
            ("crops", s.crops, self, self._crop_terms, _nothing),
            ("scenes", s.joint, self, self._joint_terms, _nothing),
            ("decoder", s.decoder, self.model.decoder, self._decoder_terms, self._freeze_towers),
        )
        return [
            Stage(name, part.steps, part.learning_rate, s.weight_decay, trained, loss, begin, **SMALL_RUN)
            for name, part, trained, loss, begin in parts
            if part.steps
        ]

    @property
    def module(self) -> nn.Module:
        """The module whose weights the state file keeps."""
        return self

    def save(self, folder: Path) -> list[Path]:
        """Writes the towers and the decoder as two safetensors files in half precision, and their checksums."""
        if distributed.rank() != 0:
            return []
        self.eval()
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "clip_pocket.safetensors", folder / "clipseg_pocket.safetensors"]
        clip_config = {"clip": self.clip_config.to_dict(), "known_words": list(known_words())}
        save_safetensors(paths[0], self.model.clip.state_dict(), clip_config)
        save_safetensors(paths[1], self.model.decoder.state_dict(), self.model.decoder.config.to_dict())
        for path in paths:
            update_sum(path)
        return paths

    def _take_over(self, folder: Path) -> None:
        """Loads the weights of an earlier run, whose vocabulary may be smaller."""
        words, length = known_words(), self.settings.context_length
        clip, config, _ = pocket_clip(folder / "clip_pocket.safetensors", words, length, output_stride=16)
        if config != self.clip_config:
            raise ValueError(f"the weights in {folder} are of another shape than the recipe's")
        self.model.clip.load_state_dict(clip.state_dict())
        tensors, _ = load_safetensors(folder / "clipseg_pocket.safetensors")
        load_strict(self.model.decoder, tensors, str(folder / "clipseg_pocket.safetensors"))

    def _crop_embeddings(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        taps = self.model.taps
        last = taps.feature_maps(self.normalised(pixels), 4)[3]
        return taps.pool(last), taps.dense(last).mean(dim=(2, 3))

    def _crop_loss(self, rng: np.random.Generator, count: int, bank: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = crop_batch(self._scenes, self._crops, rng, count, self.settings.crop_px)
        batch = batch.share().to(self.normalised.device)
        pooled, dense = self._crop_embeddings(batch.pixels)
        kind_logits, color_logits = self.crop_head(dense).split([len(KINDS), len(COLORS)], dim=1)
        return {
            "pool": self.bank.loss(pooled, bank, batch.color, batch.kind),
            "path": self.bank.loss(dense, bank, batch.color, batch.kind),
            "linear": cross_entropy_of_known(kind_logits, batch.kind)
            + cross_entropy_of_known(color_logits, batch.color),
        }

    def _crop_terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        self.train()
        return self._crop_loss(rng, self.settings.crops.batch, self.bank.draw(rng))

    # Whole scenes.

    def _scene_batch(self, rng: np.random.Generator, stage: StageSettings) -> SceneBatch:
        more = self.settings.more_kinds
        batch = scene_batch(self._scenes, rng, stage.batch, stage.scene_px, stage.phrases, more_kinds=more)
        return batch.share().to(self.normalised.device)

    def _joint_terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        self.train()
        stage = self.settings.joint
        batch = self._scene_batch(rng, stage)
        taps = self.model.taps
        maps = taps.feature_maps(self.normalised(batch.pixels), 4)
        grid = tuple(side // taps.stride for side in stage.scene_px)
        tokens = taps.to_tokens(maps, grid)
        bank = self.bank.draw(rng)
        terms = {"token": 0.5 * self._token_loss(tokens, batch, grid)}
        terms["region"] = 0.3 * self._region_loss(taps.dense(maps[3]), bank, batch)
        terms |= self._mask_terms(tokens, grid, batch)
        terms |= {name: 0.15 * value for name, value in self._crop_loss(rng, stage.crops, bank).items()}
        return terms

    def _token_loss(self, tokens: Sequence[torch.Tensor], batch: SceneBatch, grid: tuple[int, int]) -> torch.Tensor:
        classes, colors = (
            self.token_head(torch.cat(tokens, dim=-1)).flatten(0, 1).split([len(SEMANTIC_CLASSES), len(COLORS)], dim=1)
        )
        class_ids, color = at_grid(batch.class_map, grid).flatten(), at_grid(batch.color_map, grid).flatten()
        return cross_entropy_of_known(classes, class_ids) + cross_entropy_of_known(colors, color)

    def _region_loss(self, dense: torch.Tensor, bank: torch.Tensor, batch: SceneBatch) -> torch.Tensor:
        """Compares every cell with every phrase; only a fifth of those on table and floor count, as they are many."""
        grid = tuple(dense.shape[-2:])
        class_ids, color = at_grid(batch.class_map, grid).flatten(), at_grid(batch.color_map, grid).flatten()
        embeddings, kept = dense.permute(0, 2, 3, 1).flatten(0, 2), mostly_objects(class_ids)
        return self.bank.loss(embeddings[kept], bank, color[kept], class_ids[kept])

    def _mask_terms(
        self,
        tokens: Sequence[torch.Tensor],
        grid: tuple[int, int],
        batch: SceneBatch,
        rng: np.random.Generator | None = None,
    ) -> dict[str, torch.Tensor]:
        """Returns the terms of CLIPSeg's loss; with ``rng``, example images replace some of the phrases."""
        texts = [query.text for queries in batch.queries for query in queries]
        unique = list(dict.fromkeys(texts))
        conditionals = self.model.encode_text(unique).pooled[[unique.index(text) for text in texts]]
        if rng is not None:
            conditionals = self._with_examples(rng, batch, conditionals)
        logits = self.model.decoder.decode_prompts(tokens, grid, conditionals.unflatten(0, batch.masks.shape[:2]))
        return mask_loss(logits, batch.masks)

    def _with_examples(self, rng: np.random.Generator, batch: SceneBatch, texts: torch.Tensor) -> torch.Tensor:
        """Mixes an example image into the embeddings (B * P, D) of half of the phrases that name colour and kind.

        Half of the texts' weights are drawn from 0..1 (CLIPSeg, section 3.3); the others are 0, for the example alone.
        """
        queries = [query for asked in batch.queries for query in asked]
        rows = [row for row, query in enumerate(queries) if query.color and query.kind and rng.random() < 0.5]
        rows = [row for row in rows if (queries[row].color, queries[row].kind) in self._shown]
        if not rows:
            return texts
        pairs = [(queries[row].color, queries[row].kind) for row in rows]
        examples = example_batch(self._scenes, self._crops, rng, pairs, self.settings.crop_px).to(texts.device)
        with torch.no_grad():
            images = self.model.encode_image_prompt(self.normalised(examples))
        weights = torch.from_numpy(np.where(rng.random(len(rows)) < 0.5, rng.random(len(rows)), 0.0)).to(images)
        mixed = texts.clone()
        mixed[rows] = self.model.mix_prompts(texts[rows], images, weights)
        return mixed

    def _decoder_terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        batch = self._scene_batch(rng, self.settings.decoder)
        with torch.no_grad():
            features = self.model.encode_image(self.normalised(batch.pixels))
        return self._mask_terms(features.taps, features.grid_size, batch, rng)

    def _freeze_towers(self) -> None:
        """Measures BatchNorm's statistics on images that are not recoloured, then freezes CLIP."""
        self.train()
        for parameter in self.model.clip.parameters():
            parameter.requires_grad_(False)
        norms = [m for m in self.model.clip.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches below
        rng = np.random.default_rng([self.settings.seed, 77])
        with torch.no_grad():
            for _ in range(_STATISTICS_BATCHES):
                batch = scene_batch(self._scenes, rng, 16, self.settings.decoder.scene_px, 1, recolor=False)
                self.model.taps.feature_maps(self.normalised(batch.pixels.to(self.normalised.device)), 4)
        self.model.clip.eval()


def mask_loss(logits: torch.Tensor, masks: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns CLIPSeg's binary cross-entropy, and a soft dice term over the masks that are not empty.

    Objects cover a few hundredths of a scene; the dice term keeps small ones from vanishing in the mean.

    Args:
        logits, masks: Logits and true masks, (B, P, H, W).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, masks)
    return {"bce": 10 * entropy, "dice": dice_loss(logits, masks)}


def _nothing() -> None:
    """Begins a stage that needs no preparation."""
