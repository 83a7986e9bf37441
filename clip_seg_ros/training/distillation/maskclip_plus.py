# SPDX-License-Identifier: Apache-2.0
"""MaskCLIP+ (Zhou et al., ECCV 2022, section 3.3): a network that learns from another model's answers, without labels.

    phase 1, guided:   images -> teacher, once per image or on each view -> hard labels -> student
    phase 2, self:     images -> student, once per round -> hard labels on disk -> student

The paper's teacher labels the views of each step. Its annotation-free setting has the first phase alone; self-training
belongs to the zero-shot setting (``zero_shot``), which labels anew at every step. Here, the second phase has labels
that are fixed for a round: a student that began with random weights and labelled anew at every step lost one class
after the other, because it learnt each of its mistakes at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.models.student.model import Student
from clip_seg_ros.pipeline.preprocess import Preprocessor
from clip_seg_ros.training.distillation.pseudo_labels import GUIDED, LabelledPictures, Labeller
from clip_seg_ros.training.distillation.student_training import StudentSettings, StudentTraining
from clip_seg_ros.training.losses import dense_cross_entropy
from clip_seg_ros.training.runner import Runner

_ROUND = "self_"
"""The prefix of the names of phase 2's stages and of their folders of labels."""


@dataclass(frozen=True)
class TrainSettings(StudentSettings):
    """The settings of a student's training in both phases, which share ``steps``."""

    self_share: float = 0.0
    """The share of the steps that train on the student's own labels, at least 0 and below 1."""
    rounds: int = 2
    """The number of times that the student labels the images in the second phase."""
    self_learning_rate: float = 3e-4
    confidence: float = 0.7
    """The least probability of the student's own labels, 0..1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise ValueError(f"self-training needs 1 round at least, got {self.rounds}")
        if not 0.0 <= self.self_share < 1.0:
            raise ValueError(f"the share of self-training must lie in 0..1 and be less than 1, got {self.self_share}")


class MaskCLIPPlus:
    """Trains a student in both phases.

    Args:
        student: Student, on the device of the training.
        pictures: Images with the teacher's labels.
        indices: Indices of the images to train on.
        settings: Steps, rates and thresholds.
        teacher: Labels the views of each step of the first phase, as in the paper; ``None``: its labels are stored.
    """

    def __init__(
        self,
        student: Student,
        pictures: LabelledPictures,
        indices: Sequence[int],
        settings: TrainSettings,
        teacher: Labeller | None = None,
    ) -> None:
        self.student, self.settings = student, settings
        self._training = StudentTraining(student, settings)
        self._pictures, self._indices = pictures, tuple(indices)
        self._guided_path = pictures.folder / "guided.pt"
        self._preprocess = Preprocessor(student.input_spec, self._training.device)
        self._teacher = None if teacher is None else teacher.for_views(self._training.crop_px)

    def run(self, runner: Runner) -> None:
        """Trains from the state of ``runner``, and leaves the student in evaluation mode."""
        settings = self.settings
        own = round(settings.steps * settings.self_share)
        if settings.steps > own:
            loss = partial(self._terms, GUIDED)
            runner.run(self._training.stage("guided", settings.steps - own, loss, begin=self._forget_rounds))
        for number in range(settings.rounds if own else 0):
            steps = own * (number + 1) // settings.rounds - own * number // settings.rounds
            part = f"{_ROUND}{number + 1}"
            if steps:
                loss, rate = partial(self._terms, part), settings.self_learning_rate
                runner.run(self._training.stage(part, steps, loss, rate, begin=partial(self._label, part)))
        self.student.eval()

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
        online = self._teacher if part == GUIDED else None
        views, labels = [], []
        for pick in rng.integers(len(self._indices), size=self.settings.batch):
            index = self._indices[pick]
            rgb = self._pictures.rgb(index)
            known = self._pictures.labels(index, part) if online is None else np.full(rgb.shape[:2], IGNORED, np.uint8)
            view, view_labels = self._training.view(rgb, known, rng)
            views.append(view)
            labels.append(view_labels)
        if online is not None:
            labels = online.batch(views)
        return {"entropy": dense_cross_entropy(self._training.logits(views), self._training.truth(labels), IGNORED)}
