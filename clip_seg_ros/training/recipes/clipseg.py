# SPDX-License-Identifier: Apache-2.0
"""CLIPSeg's own training (Lüddecke and Ecker, CVPR 2022, sections 3.3 and 4) on any data that draws samples.

CLIP is frozen, and the decoder is trained by binary cross-entropy. The prompt of each sample is a mixture of its phrase
and an example image, so that both, and all mixtures of them, can be prompts afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.data.phrasecut_plus import TEMPLATES
from clip_seg_ros.data.samples import ReferringSample
from clip_seg_ros.models.clip.vision_taps import TapFeatures
from clip_seg_ros.models.clipseg.model import CLIPSeg, CLIPSegDecoder
from clip_seg_ros.models.clipseg.visual_prompts import visual_prompt
from clip_seg_ros.training import distributed
from clip_seg_ros.training.losses import dice_loss
from clip_seg_ros.training.optimizer import Precision, Schedule
from clip_seg_ros.training.recipes.new_words import NewWords
from clip_seg_ros.training.recipes.recipe import save_model
from clip_seg_ros.training.recipes.run_settings import RunSettings
from clip_seg_ros.training.recipes.sampling import DrawnSamples, EpochSampler, SampleLoader
from clip_seg_ros.training.runner import Stage, Validation


@dataclass(frozen=True)
class CLIPSegSettings(RunSettings):
    """The settings of the recipe. The defaults are those of the authors' configuration for PhraseCut."""

    steps: int = 20_000
    batch: int = 64
    learning_rate: float = 1e-3
    floor: float = 0.1
    """The factor on the learning rate at the end of the cosine, for a rate of 1e-4."""
    weight_decay: float = 0.01
    precision: Precision = "float16"
    text_weight: tuple[float, float] = (0.0, 0.5)
    """The phrase's share of a prompt is drawn evenly from this range. The published weights were trained with shares up
    to 0.5; the paper says up to 1."""
    negative_probability: float = 0.2
    """The share of phrases, 0..1, that are replaced by one that the image does not show, with an empty mask."""
    templates: tuple[str, ...] = TEMPLATES
    """The sentences of which one is drawn for each phrase; ["{}"] is the phrase alone."""
    fresh_decoder: bool = True
    """Whether the decoder starts with random weights instead of the model's."""
    fresh_clip: bool = False
    """Whether CLIP has random weights, which stay as they are, as in the paper's ablation "no CLIP pre-training"."""
    word_factor: float = 1.0
    """The factor on the learning rate for new words, which a small vocabulary lacks; other words are frozen."""
    image_factor: float = 0.0
    """The factor on the learning rate for CLIP's image tower; 0, as in the paper, freezes it."""
    dice_weight: float = 0.0
    """The weight of a soft dice term, in which small objects count as much as large ones; the paper has none."""
    kept_phrases: tuple[str, ...] = ()
    """Phrases that must not be forgotten: for every other sample, the model also learns the output of the initial
    weights for one of them (Li and Hoiem, Learning without Forgetting)."""
    size_px: int | None = None
    """Side of the squares to which images are cut and resized, a multiple of the model's stride; by default the side of
    the model's input."""
    threads: int = 4
    """The number of threads that read and cut samples, in each process."""
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "text_weight", tuple(self.text_weight))
        super().__post_init__()
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        low, high = self.text_weight
        if not 0 <= low <= high <= 1:
            raise ValueError(f"text_weight must be a range within 0..1, got {low}..{high}")
        if not 0 <= self.negative_probability <= 1:
            raise ValueError(f"negative_probability must lie in 0..1, got {self.negative_probability}")
        if not self.templates or any(template.count("{}") != 1 for template in self.templates):
            raise ValueError('templates must be sentences with one {} for the phrase, such as "a photo of a {}."')

    @property
    def uses_examples(self) -> bool:
        """Whether example images are a part of the prompts."""
        return self.text_weight[0] < 1


class _Before:
    """The model before the training, and its outputs for the phrases that must not be forgotten."""

    def __init__(self, model: CLIPSeg, phrases: Sequence[str]) -> None:
        for phrase in phrases:
            if unknown := model.unknown_words(phrase):
                raise ValueError(f'kept_phrases: {model.name} never knew "{unknown[0]}", of "{phrase}"')
        self._model = copy.deepcopy(model).requires_grad_(False).eval()
        with torch.no_grad():
            self._prompts = self._model.encode_text(phrases).pooled.float()

    @torch.no_grad()
    def answers(self, pixels: torch.Tensor, phrases: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns probabilities (B, H, W) and embeddings (B, D) of one phrase for each image, by indices (B,)."""
        prompts = self._prompts[torch.from_numpy(phrases)]
        features = self._model.encode_image(pixels)
        return self._model.decoder(features.taps, features.grid_size, prompts).float().sigmoid(), prompts


class CLIPSegRecipe:
    """The model, its data and the loss of a batch.

    The state holds the trained parts: the decoder, and new words and the image tower if they are trained, too.

    Args:
        settings: The settings of the recipe.
        model: The model, on the device of the training.
        data: ``data.phrasecut_plus.PhraseCutPlus``, or anything else that draws samples of one size, whose sides the
            model's stride divides. The prompt of a sample without an example image is its phrase alone.
        config: The configuration in the model's weight file: ``checkpoints.load_safetensors(path)[1]``.
        new_rows: The new rows of the table of word embeddings, which are trained: ``vocabulary.grow(...).rows``.
        validation: Scores the model now and then; the best weights are kept.
    """

    def __init__(
        self,
        settings: CLIPSegSettings,
        model: CLIPSeg,
        data: DrawnSamples[ReferringSample],
        config: Mapping[str, Any],
        new_rows: Sequence[int] = (),
        validation: Validation | None = None,
    ) -> None:
        self._validation = validation
        self.settings, self.model, self._data, self._config = settings, model, data, config
        self._before = _Before(model, settings.kept_phrases) if settings.kept_phrases else None
        device = model.decoder.film_mul.weight.device
        if settings.fresh_decoder:
            with torch.random.fork_rng():
                torch.manual_seed(settings.seed)
                model.decoder = CLIPSegDecoder(model.decoder.config).to(device)
        self._words = NewWords(model.clip.token_embedding, new_rows) if new_rows else None
        self._trained = nn.ModuleDict({"decoder": model.decoder})
        if self._words is not None:
            model.clip.token_embedding = self._trained["words"] = self._words
        if settings.image_factor:
            self._trained["visual"] = model.clip.visual
        spec = model.input_spec
        self._mean = torch.tensor(spec.mean, device=device)[:, None, None]
        self._std = torch.tensor(spec.std, device=device)[:, None, None]
        self._loader: SampleLoader[ReferringSample] | None = None
        self._samples: list[ReferringSample] = []

    @property
    def module(self) -> nn.Module:
        """The trained module, which the state file stores: the decoder, or a module of all trained parts."""
        return self._trained if len(self._trained) > 1 else self.model.decoder

    def stages(self) -> list[Stage]:
        """Returns the recipe's one stage, for a ``Runner``."""
        s = self.settings
        factors = {"words": s.word_factor, "visual": s.image_factor}
        stage = s.stage(
            "clipseg",
            self.module,
            loss=self.terms,
            begin=self._begin,
            schedule=Schedule("cosine", floor=s.floor),
            before_batch=self._load,
            validation=self._validation,
            rate_factors=tuple((f"{part}.", factor) for part, factor in factors.items() if part in self._trained),
        )
        return [stage]

    def _begin(self) -> None:
        self.model.clip.requires_grad_(False)
        self.module.requires_grad_(True)
        self.model.decoder.train()
        # BatchNorm keeps its statistics, because those of a few images would be worse.
        self.model.clip.eval()

    def _load(self, number: int) -> None:
        if self._loader is None:
            s = self.settings
            self._loader = SampleLoader(self._data, EpochSampler(len(self._data), s.batch, s.seed), s.threads)
        self._samples = self._loader.load(number)
        if number + 1 == self.settings.steps:
            self._loader.close()
            self._loader = None

    def terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Returns the loss of the loaded batch: the mean binary cross-entropy over the pixels that count.

        Raises:
            ValueError: The samples differ in size.
        """
        samples = self._samples
        weights = distributed.share(rng.uniform(*self.settings.text_weight, self.settings.batch))
        sizes = sorted({sample.mask.shape for sample in samples})
        if len(sizes) > 1:
            raise ValueError(f"samples of a batch must have one size, not {', '.join(f'{w}x{h}' for h, w in sizes)}")
        pixels = torch.stack([self._normalised(sample.rgb) for sample in samples])
        with torch.set_grad_enabled("visual" in self._trained):
            features = self.model.encode_image(pixels)
        conditionals = self._conditionals(samples, weights)
        logits = self.model.decoder(features.taps, features.grid_size, conditionals)
        masks = torch.from_numpy(np.stack([sample.mask for sample in samples])).to(logits.device).float()
        logits, ignored = logits.float(), None
        if any(sample.ignored is not None for sample in samples):
            unknown = [np.zeros_like(sample.mask) if sample.ignored is None else sample.ignored for sample in samples]
            ignored = torch.from_numpy(np.stack(unknown)).to(logits.device)
        counted = slice(None) if ignored is None else ~ignored
        terms = {"bce": F.binary_cross_entropy_with_logits(logits[counted], masks[counted])}
        if self.settings.dice_weight:
            terms["dice"] = self.settings.dice_weight * dice_loss(logits, masks, ignored)
        if self._before is not None:
            drawn = distributed.share(rng.integers(len(self.settings.kept_phrases), size=self.settings.batch))
            terms["kept"] = self._kept_loss(pixels, features, drawn)
        return terms

    def _kept_loss(self, pixels: torch.Tensor, features: TapFeatures, drawn: np.ndarray) -> torch.Tensor:
        """Returns the cross-entropy with the initial outputs for every other sample; ``drawn`` (B,) are the phrases."""
        taps = tuple(tap[::2] for tap in features.taps)
        wanted, prompts = self._before.answers(pixels[::2], drawn[::2])
        logits = self.model.decoder(taps, features.grid_size, prompts)
        return F.binary_cross_entropy_with_logits(logits.float(), wanted)

    def _conditionals(self, samples: Sequence[ReferringSample], text_weights: np.ndarray) -> torch.Tensor:
        """Returns the prompts (B, D): phrases, mixed with the example images, if any, by ``text_weights`` (B,)."""
        with torch.set_grad_enabled(self._words is not None):
            texts = self.model.encode_text([sample.phrase for sample in samples]).pooled.float()
        side = self.model.decoder.config.image_prompt_px or self.model.input_spec.size
        shown = [row for row, sample in enumerate(samples) if sample.support is not None]
        if not shown:
            return texts
        # They are encoded one by one, because example images may differ in size.
        crops = []
        for row in shown:
            rgb, mask = samples[row].support
            there = torch.from_numpy(np.ascontiguousarray(mask)).to(texts.device)
            style = self.model.decoder.config.example_style
            crops.append(visual_prompt(self._normalised(rgb)[None], there[None], side, style))
        with torch.no_grad():
            images = self.model.encode_image_prompt(torch.cat(crops)).float()
        mixed = texts.clone()
        weights = torch.from_numpy(text_weights[shown])
        mixed[shown] = self.model.mix_prompts(texts[shown], images, weights)
        return mixed

    def _normalised(self, rgb: np.ndarray) -> torch.Tensor:
        """Normalises (H, W, 3) uint8 to (3, H, W) on the model's device."""
        pixels = torch.from_numpy(np.ascontiguousarray(rgb)).to(self._mean.device).permute(2, 0, 1)
        return (pixels.float() / 255 - self._mean) / self._std

    def save(self, folder: Path) -> list[Path]:
        """Writes the whole model to a weight file with the model's name, and returns its path."""
        config = {**self._config, "clipseg": self.model.decoder.config.to_dict()}
        if self._words is not None:
            self.model.clip.token_embedding = nn.Embedding.from_pretrained(self._words.weight.detach())
        return save_model(self.model, config, folder / f"{self.model.name}.safetensors")
