"""Trains the embedded weights: a small CLIP from rendered scenes, then CLIPSeg's decoder on it.

1. ``crops``: object crops against phrases, as CLIP learns, with the picture's colours changed in three crops of ten.
2. ``scenes``: whole scenes; every token against phrases through the attention pool's value path (what MaskCLIP reads),
   CLIPSeg's decoder end to end, and a linear head that names kind and colour a token.
3. ``decoder``: the towers frozen and their BatchNorm statistics measured again; CLIPSeg's own training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.models import backbone
from clip_seg_ros.models.base import InputSpec
from clip_seg_ros.models.checkpoints import save_safetensors, update_sums
from clip_seg_ros.models.clipseg import CLIPSeg, CLIPSegConfig
from clip_seg_ros.models.tokenizer import CompactTokenizer
from clip_seg_ros.sim.scene import COLORS, KINDS
from clip_seg_ros.training.batches import SceneBatch, crop_batch, index_crops, scene_batch
from clip_seg_ros.training.phrases import TRAIN_PAIRS, known_words, make_query
from clip_seg_ros.training.runner import Runner, Stage


@dataclass(frozen=True)
class StageSettings:
    """Length and size of one stage."""

    steps: int
    batch: int
    learning_rate: float
    phrases: int = 0
    """Phrases asked a scene."""
    crops: int = 0
    """Object crops beside the scenes."""
    scene_px: tuple[int, int] = (160, 160)
    """(height, width) of the window that is cut out of a scene; both multiples of 16."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scene_px", tuple(self.scene_px))


@dataclass(frozen=True)
class PocketSettings:
    """The whole recipe, as ``config/train_pocket.yaml`` writes it down."""

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
    input_px: int = 192
    """Short side of the picture in use; 192 x 256 for a 4:3 camera."""
    weight_decay: float = 0.02

    @classmethod
    def from_mapping(cls, values: dict) -> PocketSettings:
        """Reads the YAML's mapping. Raises TypeError on unknown names."""
        values = dict(values)
        for name in ("crops", "joint", "decoder"):
            values[name] = StageSettings(**values[name])
        if "layers" in values:
            values["layers"] = tuple(values["layers"])
        return cls(**values)


def build_pocket(settings: PocketSettings) -> tuple[CLIPSeg, backbone.ClipConfig]:
    """Builds the pocket CLIPSeg with random weights, and returns its CLIP's configuration too."""
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
        input_spec=InputSpec(
            settings.input_px, "short_side", 16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        ),
        reduce_dim=settings.reduce_dim,
        feed_forward=settings.feed_forward,
        dropout=0.0,  # tens of thousands of scenes do not overfit it, and dropout shuts out the fused attention
    )
    model = CLIPSeg("clipseg-pocket", backbone.build_clip(clip_config), config, tokenizer)
    model.clip.visual.to(memory_format=torch.channels_last)
    return model, clip_config


class PocketTrainer(nn.Module):
    """The model and the heads that only training uses."""

    def __init__(self, settings: PocketSettings, scenes: TabletopScenes) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        self.settings, self._scenes = settings, scenes
        self._crops = index_crops(scenes)
        self.model, self.clip_config = build_pocket(settings)
        taps = self.model.taps
        self.crop_head = nn.Linear(settings.embed_dim, len(KINDS) + len(COLORS))
        # Kind, colour and "is there an object" of every token.
        self.token_head = nn.Linear(sum(taps.widths), len(KINDS) + len(COLORS) + 1)
        # Row of each (colour, kind) among the training pairs; -1 for the held-out ones.
        pair_of = [[TRAIN_PAIRS.index((c, k)) if (c, k) in TRAIN_PAIRS else -1 for k in KINDS] for c in COLORS]
        self.register_buffer("pair_of", torch.tensor(pair_of), persistent=False)
        spec = self.model.input_spec
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    def run(self, runner: Runner) -> None:
        """Runs the three stages."""
        s = self.settings
        decay = s.weight_decay
        runner.run(Stage("crops", s.crops.steps, s.crops.learning_rate, decay, self, self._crop_terms))
        runner.run(Stage("scenes", s.joint.steps, s.joint.learning_rate, decay, self, self._joint_terms))
        runner.run(
            Stage(
                "decoder", s.decoder.steps, s.decoder.learning_rate, decay, self.model.decoder,
                self._decoder_terms, begin=self._freeze_towers,
            )  # fmt: skip
        )
        self.eval()

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels - self.mean) / self.std).to(memory_format=torch.channels_last)

    # Phrases against embeddings: one phrase a class, worded anew at every step.

    def _phrase_bank(self, rng: np.random.Generator) -> torch.Tensor:
        """Unit embeddings (pairs + kinds + colours, D) of one wording of every class."""
        queries = [make_query(rng, color, kind) for color, kind in TRAIN_PAIRS]
        queries += [make_query(rng, None, kind) for kind in KINDS]
        queries += [make_query(rng, color, None) for color in COLORS]
        return F.normalize(self.model.encode_text([query.text for query in queries]).pooled, dim=-1)

    def _contrast(
        self, embeddings: torch.Tensor, bank: torch.Tensor, color: torch.Tensor, kind: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of (N, D) embeddings over pairs, kinds and colours; ``color`` -1 counts for kinds alone."""
        scale = self.model.clip.logit_scale.clamp(max=4.0).exp()
        pairs, kinds, colors = (scale * F.normalize(embeddings, dim=-1) @ bank.T).split(
            [len(TRAIN_PAIRS), len(KINDS), len(COLORS)], dim=1
        )
        pair = torch.where(color >= 0, self.pair_of[color, kind], -1)
        return _cross_entropy(kinds, kind) + _cross_entropy(colors, color) + _cross_entropy(pairs, pair)

    def _crop_embeddings(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        taps = self.model.taps
        last = taps.feature_maps(self._normalised(pixels), 4)[3]
        return taps.pool(last), taps.dense(last).mean(dim=(2, 3))

    def _crop_loss(self, rng: np.random.Generator, count: int, bank: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = crop_batch(self._scenes, self._crops, rng, count, self.settings.crop_px).to(self.mean.device)
        pooled, dense = self._crop_embeddings(batch.pixels)
        kind_logits, color_logits = self.crop_head(dense).split([len(KINDS), len(COLORS)], dim=1)
        return {
            "pool": self._contrast(pooled, bank, batch.color, batch.kind),
            "path": self._contrast(dense, bank, batch.color, batch.kind),
            "linear": _cross_entropy(kind_logits, batch.kind) + _cross_entropy(color_logits, batch.color),
        }

    def _crop_terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        self.train()
        return self._crop_loss(rng, self.settings.crops.batch, self._phrase_bank(rng))

    # Whole scenes.

    def _scene_batch(self, rng: np.random.Generator, stage: StageSettings) -> SceneBatch:
        return scene_batch(self._scenes, rng, stage.batch, stage.scene_px, stage.phrases).to(self.mean.device)

    def _joint_terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        self.train()
        stage = self.settings.joint
        batch = self._scene_batch(rng, stage)
        taps = self.model.taps
        maps = taps.feature_maps(self._normalised(batch.pixels), 4)
        grid = tuple(side // taps.stride for side in stage.scene_px)
        tokens = taps.to_tokens(maps, grid)
        bank = self._phrase_bank(rng)
        terms = {"token": 0.5 * self._token_loss(tokens, batch, grid)}
        terms["region"] = 0.3 * self._region_loss(taps.dense(maps[3]), bank, batch)
        terms |= self._mask_terms(tokens, grid, batch)
        terms |= {name: 0.15 * value for name, value in self._crop_loss(rng, stage.crops, bank).items()}
        return terms

    def _token_loss(self, tokens: Sequence[torch.Tensor], batch: SceneBatch, grid: tuple[int, int]) -> torch.Tensor:
        kind = _at_grid(batch.kind_map, grid).flatten()
        color = _at_grid(batch.color_map, grid).flatten()
        logits = self.token_head(torch.cat(tokens, dim=-1)).flatten(0, 1)
        kinds, colors, there = logits.split([len(KINDS), len(COLORS), 1], dim=1)
        loss = F.binary_cross_entropy_with_logits(there[:, 0], (kind >= 0).float())
        return loss + _cross_entropy(kinds, kind) + _cross_entropy(colors, color)

    def _region_loss(self, dense: torch.Tensor, bank: torch.Tensor, batch: SceneBatch) -> torch.Tensor:
        grid = tuple(dense.shape[-2:])
        kind, color = _at_grid(batch.kind_map, grid).flatten(), _at_grid(batch.color_map, grid).flatten()
        on_object = kind >= 0
        embeddings = dense.permute(0, 2, 3, 1).flatten(0, 2)[on_object]
        return self._contrast(embeddings, bank, color[on_object], kind[on_object])

    def _mask_terms(
        self, tokens: Sequence[torch.Tensor], grid: tuple[int, int], batch: SceneBatch
    ) -> dict[str, torch.Tensor]:
        texts = [query.text for queries in batch.queries for query in queries]
        unique = list(dict.fromkeys(texts))
        pooled = self.model.encode_text(unique).pooled
        conditionals = pooled[[unique.index(text) for text in texts]].unflatten(0, batch.masks.shape[:2])
        logits = self.model.decoder.decode_prompts(tokens, grid, conditionals)
        return mask_loss(logits, batch.masks)

    def _decoder_terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        batch = self._scene_batch(rng, self.settings.decoder)
        with torch.no_grad():
            features = self.model.encode_image(self._normalised(batch.pixels))
        return self._mask_terms(features.taps, features.grid_size, batch)

    def _freeze_towers(self) -> None:
        """Measures BatchNorm's statistics on pictures as they are, then holds CLIP still."""
        self.train()
        for parameter in self.model.clip.parameters():
            parameter.requires_grad_(False)
        norms = [m for m in self.model.clip.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches below
        rng = np.random.default_rng([self.settings.seed, 77])
        with torch.no_grad():
            for _ in range(60):
                batch = scene_batch(self._scenes, rng, 16, self.settings.decoder.scene_px, 1, recolor=False)
                self.model.taps.feature_maps(self._normalised(batch.pixels.to(self.mean.device)), 4)
        self.model.clip.eval()


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of (N, classes) over the rows whose (N,) target is not -1; 0 when there is none."""
    total = F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp(min=1)


def _at_grid(label_map: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The label at the middle of every cell: (B, H, W) to (B, h, w)."""
    rows, columns = label_map.shape[1] // grid[0], label_map.shape[2] // grid[1]
    return label_map[:, rows // 2 :: rows, columns // 2 :: columns]


def mask_loss(logits: torch.Tensor, masks: torch.Tensor) -> dict[str, torch.Tensor]:
    """CLIPSeg's binary cross-entropy, and a soft dice term where there is something to find.

    Objects cover a few hundredths of a scene; dice keeps the small ones from vanishing in the mean.

    Args:
        logits, masks: (B, P, H, W).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, masks)
    there = masks.flatten(2).sum(-1) > 0
    probabilities = logits.sigmoid().flatten(2)[there]
    wanted = masks.flatten(2)[there]
    overlap = 2 * (probabilities * wanted).sum(-1) + 1
    dice = 1 - overlap / (probabilities.sum(-1) + wanted.sum(-1) + 1)
    return {"bce": 10 * entropy, "dice": dice.mean() if len(dice) else entropy * 0}


def save_pocket(trainer: PocketTrainer, folder: Path) -> None:
    """Writes the towers and the decoder as two safetensors files and their checksums."""
    model, known = trainer.model, list(known_words())
    folder.mkdir(parents=True, exist_ok=True)
    clip_config = {"clip": trainer.clip_config.to_dict(), "known_words": known}
    save_safetensors(folder / "clip_pocket.safetensors", model.clip.state_dict(), clip_config)
    decoder = model.decoder
    save_safetensors(folder / "clipseg_pocket.safetensors", decoder.state_dict(), decoder.config.to_dict())
    update_sums(folder)
