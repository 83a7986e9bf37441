# SPDX-License-Identifier: Apache-2.0
"""MaskCLIP+ (Zhou et al., ECCV 2022, section 3.3): a network that learns from another model's answers, without labels.

    phase 1, guided:   images -> teacher, once per image -> hard labels on disk -> student
    phase 2, self:     images -> student, once per round -> hard labels on disk -> student

The paper adds the second phase because a student soon sees more than its teacher; no weights are averaged over time.
The paper labels anew at every step. Here, a student without ImageNet's weights thereby lost one class after the other,
because it learnt each of its mistakes at once; with labels that are fixed for a round, it does not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.models.student.model import MULTIPLE, Student
from clip_seg_ros.pipeline.preprocess import Preprocessor
from clip_seg_ros.training.augment import photometric_distortion
from clip_seg_ros.training.distillation.pseudo_labels import LabelledPictures
from clip_seg_ros.training.losses import dense_cross_entropy
from clip_seg_ros.training.optimizer import SMALL_RUN, Precision, rising
from clip_seg_ros.training.runner import Runner, Stage

_SCALES = (0.75, 1.5)
"""The range of the short side in training, relative to the student's own."""
_ROUND = "self_"
"""The prefix of the names of phase 2's stages and of their folders of labels."""
_WARMUP_STEPS = 50
_AIMED_SHARE = 0.75
_BATCH_NORM_MOMENTUM = 0.1


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a student's training."""

    steps: int
    """The number of steps of both phases together."""
    self_share: float = 0.25
    """The share of the steps that train on the student's own labels, at least 0 and below 1."""
    rounds: int = 2
    """The number of times that the student labels the images in the second phase."""
    batch: int = 8
    learning_rate: float = 2e-3
    self_learning_rate: float = 3e-4
    weight_decay: float = 0.01
    confidence: float = 0.7
    """The least probability of the student's own labels, 0..1."""
    precision: Precision = "float32"
    """The precision of activations in training."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2 or self.rounds < 1:
            got = f"{self.steps}, {self.batch} and {self.rounds}"
            raise ValueError(f"needed are 1 step, batches of 2 and 1 round at least, got {got}")
        if not 0.0 <= self.self_share < 1.0:
            raise ValueError(f"the share of self-training must lie in 0..1 and be less than 1, got {self.self_share}")


class MaskCLIPPlus:
    """Trains a student in both phases.

    Args:
        student: Student, on the device of the training.
        pictures: Images with the teacher's labels.
        indices: Indices of the images to train on.
        settings: Steps, rates and thresholds.
    """

    def __init__(
        self, student: Student, pictures: LabelledPictures, indices: Sequence[int], settings: TrainSettings
    ) -> None:
        self.student, self.settings = student, settings
        self._pictures, self._indices = pictures, tuple(indices)
        self._guided_path = pictures.folder / "guided.pt"
        spec = student.input_spec
        self._crop = crop_side(spec.size)
        self._device = next(student.parameters()).device
        self._mean, self._std = (torch.tensor(v, device=self._device).view(3, 1, 1) for v in (spec.mean, spec.std))
        self._preprocess = Preprocessor(spec, self._device)
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Some networks have a momentum for far longer training; their statistics would be those of the start.
                module.momentum = _BATCH_NORM_MOMENTUM

    def run(self, runner: Runner) -> None:
        """Trains from the state of ``runner``, and leaves the student in evaluation mode."""
        settings = self.settings
        own = round(settings.steps * settings.self_share)
        self._run(runner, "guided", settings.steps - own, settings.learning_rate, "labels", self._forget_rounds)
        for number in range(settings.rounds if own else 0):
            steps = own * (number + 1) // settings.rounds - own * number // settings.rounds
            part = f"{_ROUND}{number + 1}"
            self._run(runner, part, steps, settings.self_learning_rate, part, partial(self._label, part))
        self.student.eval()

    def _run(self, runner: Runner, name: str, steps: int, rate: float, part: str, begin: Callable[[], None]) -> None:
        settings = self.settings
        loss = partial(self._terms, part)
        if steps:
            runner.run(
                Stage(
                    name,
                    steps,
                    rate,
                    settings.weight_decay,
                    self.student,
                    loss,
                    begin,
                    precision=settings.precision,
                    **{**SMALL_RUN, "warmup": rising(_WARMUP_STEPS)},
                )
            )

    def guided_weights(self) -> dict[str, torch.Tensor] | None:
        """Returns the student's weights between the phases, or ``None`` if there was no second phase."""
        path = self._guided_path
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None

    def _forget_rounds(self) -> None:
        """Removes the student's labels and weights of an earlier training in this folder."""
        self._guided_path.unlink(missing_ok=True)
        for folder in self._pictures.folder.glob(f"{_ROUND}*"):
            shutil.rmtree(folder)

    def _label(self, part: str) -> None:
        """Labels all images with the student. Labels of an interrupted run stay: the student has changed since then."""
        if not self._guided_path.is_file():
            beside = self._guided_path.with_suffix(".part")
            torch.save(self.student.state_dict(), beside)
            os.replace(beside, self._guided_path)
        for index in tqdm(self._indices, desc=f"label for {part}", mininterval=2.0):
            if not self._pictures.has_labels(index, part):
                self._pictures.write_labels(index, part, self.own_labels(self._pictures.rgb(index)))

    @torch.no_grad()
    def own_labels(self, rgb: np.ndarray) -> np.ndarray:
        """Labels an image (H, W, 3) uint8 with the present student: (H, W) uint8, ``IGNORED`` where unsure."""
        self.student.eval()
        logits = self.student.encode_image(self._preprocess(rgb).pixels).logits.float()
        logits = nn.functional.interpolate(logits, size=rgb.shape[:2], mode="bilinear", align_corners=False)
        confidence, best = logits[0].softmax(dim=0).max(dim=0)
        return best.where(confidence >= self.settings.confidence, IGNORED).byte().cpu().numpy()

    def _terms(self, part: str, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draws views of images with the labels in ``part`` and returns the terms of the student's loss on them."""
        views, labels = [], []
        for pick in rng.integers(len(self._indices), size=self.settings.batch):
            index = self._indices[pick]
            rgb, known = self._pictures.rgb(index), self._pictures.labels(index, part)
            view, view_labels = random_view(rgb, known, rng, self.student.input_spec.size, self._crop)
            views.append(photometric_distortion(view, rng))
            labels.append(view_labels)
        self.student.train()
        pixels = torch.from_numpy(np.stack(views)).to(self._device).permute(0, 3, 1, 2).float() / 255.0
        logits = self.student.encode_image((pixels - self._mean) / self._std).logits
        truth = torch.from_numpy(np.stack(labels)).long().to(self._device)
        return {"entropy": dense_cross_entropy(logits, truth, IGNORED)}


def crop_side(short_side: int) -> int:
    """Returns the side of the square views for training in pixels: two thirds of the student's short side."""
    return max(MULTIPLE, short_side * 2 // 3 // MULTIPLE * MULTIPLE)


def random_view(
    rgb: np.ndarray, labels: np.ndarray, rng: np.random.Generator, short_side: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Crops a square from an image at a random scale and place, and mirrors half of the squares.

    Three squares in four contain a pixel of a class that is drawn uniformly from the classes in the image; otherwise,
    small objects would hardly be seen.

    Args:
        rgb: Image (H, W, 3) uint8.
        labels: Labels (H, W) uint8, ``IGNORED`` for no class.
        rng: Generator of the random numbers.
        short_side: Short side of the student's input in pixels; that of the image becomes 0.75 to 1.5 times as long.
        side: Side of the square in pixels, at most 0.75 ``short_side``.

    Returns:
        The square of the image, (side, side, 3), and that of the labels, (side, side), both uint8.
    """
    height, width = rgb.shape[:2]
    scale = short_side * rng.uniform(*_SCALES) / min(height, width)
    window = min(max(1, round(side / scale)), height, width)
    corner = rng.integers([height - window + 1, width - window + 1])
    if rng.random() < _AIMED_SHARE and (aim := _aim(labels, rng)) is not None:
        corner = np.clip(aim - rng.integers(window, size=2), 0, [height - window, width - window])
    top, left = (int(value) for value in corner)
    flip = 1 - 2 * int(rng.integers(2))
    rgb = rgb[top : top + window, left : left + window]
    shrink = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
    labels = labels[top : top + window, left : left + window]
    return (
        np.ascontiguousarray(cv2.resize(rgb, (side, side), interpolation=shrink)[:, ::flip]),
        np.ascontiguousarray(cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST)[:, ::flip]),
    )


def _aim(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Draws a class of the labels (H, W), then one of its pixels: (2,) row, column; ``None`` if all are ignored."""
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=IGNORED + 1)[:IGNORED])
    if not present.size:
        return None
    places = np.flatnonzero(labels.ravel() == rng.choice(present))
    return np.array(divmod(int(rng.choice(places)), labels.shape[1]))
