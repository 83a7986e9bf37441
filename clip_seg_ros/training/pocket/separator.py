# SPDX-License-Identifier: Apache-2.0
"""Trains the separator (``models.separator``) on rendered scenes in which objects of one kind touch.

Half of the scenes show the things of the simulated table. Their regions are those of the embedded CLIPSeg, so that
their masks have its faults. The other half shows random shapes, because what looks like one thing must not depend on
the eight kinds of that table. The loss has three terms:

* *heat*: the squared error of the heat map, in which pixels of the mask and near middles weigh more;
* *offsets*: the absolute error of the offsets, where a pixel of the mask shows an object;
* *several*: the cross-entropy of whether there is more than one object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.models.checkpoints import save_safetensors, update_sum
from clip_seg_ros.models.separator.model import SeparatorConfig, SeparatorNet
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.separation import FILE
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.training import distributed
from clip_seg_ros.training.optimizer import SMALL_RUN, Precision
from clip_seg_ros.training.pocket.separator_windows import Windows, draw_lesson, windows_of, windows_of_shapes
from clip_seg_ros.training.runner import Stage
from clip_seg_ros.training.settings import RecipeSettings, require_steps

_HEAT, _OFFSETS, _SEVERAL = 20.0, 2.0, 0.5
"""The weights of the terms."""
_SHAPES = (4, 9)
"""The least and the greatest number of random shapes in a scene."""


@dataclass(frozen=True)
class SeparatorSettings(RecipeSettings):
    """The recipe of the separator."""

    scenes: int
    steps: int
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    width: int = 16
    precision: Precision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        require_steps(self)


class SeparatorRecipe:
    """A separator with random weights, and the loss of a batch.

    Args:
        settings: Settings of the recipe.
        scenes: Scenes to train on. They are rendered again, larger and with depth, before the first step, and with
            each a scene of random shapes.
    """

    def __init__(self, settings: SeparatorSettings, scenes: TabletopScenes) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self._scenes = settings, scenes
        self.net = SeparatorNet(SeparatorConfig(settings.width)).to(memory_format=torch.channels_last)

    @property
    def module(self) -> nn.Module:
        """The module whose weights the state file keeps."""
        return self.net

    def stages(self) -> list[Stage]:
        """Returns the only stage of the recipe, for a ``Runner``."""
        s = self.settings
        run = {**SMALL_RUN, "precision": s.precision}
        return [Stage("separator", s.steps, s.learning_rate, s.weight_decay, self.net, self.terms, **run)]

    def save(self, folder: Path) -> list[Path]:
        """Writes the weights in half precision."""
        if distributed.rank() != 0:
            return []
        path = folder / FILE
        save_safetensors(path, self.net.state_dict(), {"separator": self.net.config.to_dict()})
        update_sum(path)
        return [path]

    def terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draws a batch, half of whose windows show several objects, and returns the terms of its loss."""
        self.net.train()
        windows, half = self.windows, self.settings.batch // 2
        chosen = [rng.choice(windows.several, half), rng.choice(windows.single, self.settings.batch - half)]
        seeds = rng.integers(1 << 32, size=self.settings.batch)
        drawn = distributed.share(torch.from_numpy(np.stack([np.concatenate(chosen), seeds], axis=1)))
        lessons = [draw_lesson(windows, index, np.random.default_rng(seed)) for index, seed in drawn.tolist()]
        device = next(self.net.parameters()).device
        seen, inside, heat, offsets, known, several = (
            torch.from_numpy(np.stack(each)).to(device) for each in zip(*lessons, strict=True)
        )
        votes = self.net(seen.contiguous(memory_format=torch.channels_last))
        weight = (0.1 + inside) / (0.1 + inside).sum()
        error = F.mse_loss(votes.heat.float().sigmoid(), heat, reduction="none") * (1 + 4 * heat)
        off = F.l1_loss(votes.offsets.float(), offsets, reduction="none").mean(dim=1)
        return {
            "heat": _HEAT * (error * weight).sum(),
            "offsets": _OFFSETS * (off * known).sum() / known.sum().clamp(min=1),
            "several": _SEVERAL * F.binary_cross_entropy_with_logits(votes.several.float(), several),
        }

    @cached_property
    def windows(self) -> Windows:
        """The windows of all scenes; they are cut out once, in every process."""
        predictor = Predictor.from_name("clipseg-pocket", "cpu", engine="eager")
        found: list[tuple[np.ndarray, ...]] = []
        with SceneRenderer() as renderer:
            for index in tqdm(range(len(self._scenes)), desc="windows", disable=distributed.rank() != 0):
                scene = self._scenes.scene(index)
                rng = np.random.default_rng([self.settings.seed, scene.seed, 80])
                found += windows_of(renderer.render(scene), predictor, rng)
                # Neighbouring seeds share their shapes.
                shapes = sample_scene(5 * scene.seed, objects=_SHAPES, alike=index % 4 > 0, odd=True)
                found += windows_of_shapes(renderer.render(shapes), rng)
        return Windows.joined(found)
