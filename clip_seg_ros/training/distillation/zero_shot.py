# SPDX-License-Identifier: Apache-2.0
"""The zero-shot setting of MaskCLIP+ (Zhou et al., ECCV 2022, sections 3.3 and 4.3): some classes have no true labels.

Pixels of seen classes keep their true labels. Pixels of unseen classes are known as such, because the setting is
transductive, and get pseudo-labels on the views of each step, among the unseen classes alone:

    first tenth of the steps, guided:   view -> teacher -> the unseen class with the highest logit
    afterwards, self-training:          view -> student -> the unseen class with the highest logit

Pixels that the data set ignores stay ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from clip_seg_ros.data.samples import IGNORED, DataError, SemanticDataset
from clip_seg_ros.models.student.model import Student
from clip_seg_ros.training.distillation.pseudo_labels import Labeller
from clip_seg_ros.training.distillation.student_training import StudentSettings, StudentTraining
from clip_seg_ros.training.losses import dense_cross_entropy
from clip_seg_ros.training.runner import Runner

_UNLABELLED = 254
"""The label of pixels of unseen classes, until they get a pseudo-label."""


@dataclass(frozen=True)
class ZeroShotSettings(StudentSettings):
    """The settings of a student's training in the zero-shot setting."""

    guided_share: float = 0.1
    """The share of the steps in which the teacher labels the unseen classes, 0..1; afterwards the student does."""
    pseudo_labels: bool = True
    """Whether unseen classes get pseudo-labels; otherwise their pixels are ignored, for comparison."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.guided_share <= 1.0:
            raise ValueError(f"the share of guided steps must lie in 0..1, got {self.guided_share}")


class ZeroShot:
    """Trains a student whose unseen classes have no true labels.

    Args:
        student: Student for the classes of the data set, on the device of the training.
        dataset: Images with labels. Those of the unseen classes are never used.
        unseen: Some of its classes.
        teacher: Labels images with the classes ``unseen``, in this order.
        settings: The settings of the training.

    Raises:
        DataError: The student's, the teacher's and the data set's classes do not fit together, or the data set is
            empty.
    """

    def __init__(
        self,
        student: Student,
        dataset: SemanticDataset,
        unseen: Sequence[str],
        teacher: Labeller,
        settings: ZeroShotSettings,
    ) -> None:
        names = tuple(dataset.class_names)
        if student.class_names != names or teacher.class_names != tuple(unseen) or not {*unseen} <= {*names}:
            raise DataError("a zero-shot training needs a student for the classes of the data set, some of them unseen")
        if len(names) > _UNLABELLED or not len(dataset):
            raise DataError(f"a zero-shot training needs images and at most {_UNLABELLED} classes, got {len(names)}")
        self.student, self.settings = student, settings
        self._dataset = dataset
        self._training = StudentTraining(student, settings)
        self._teacher = teacher.for_views(self._training.crop_px)
        self._unseen = np.array([names.index(name) for name in unseen])
        self._shown = np.arange(IGNORED + 1, dtype=np.uint8)
        self._shown[self._unseen] = _UNLABELLED
        self._batch = 0

    def run(self, runner: Runner) -> None:
        """Trains from the state of ``runner``, and leaves the student in evaluation mode."""
        stage = self._training.stage("zero_shot", self.settings.steps, self._terms, before_batch=self._begin_batch)
        runner.run(stage)
        self.student.eval()

    def _begin_batch(self, number: int) -> None:
        self._batch = number

    def _terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draws views and returns the terms of the student's loss on them."""
        views, labels = [], []
        for pick in rng.integers(len(self._dataset), size=self.settings.batch):
            sample = self._dataset[int(pick)]
            view, view_labels = self._training.view(sample.rgb, self._shown[sample.labels], rng)
            views.append(view)
            labels.append(view_labels)
        logits = self._training.logits(views)
        truth = self._training.truth(labels)
        unlabelled = truth == _UNLABELLED
        truth = truth.masked_fill(unlabelled, IGNORED)
        if self.settings.pseudo_labels and unlabelled.any():
            truth = torch.where(unlabelled, self._pseudo_labels(views, logits.detach()), truth)
        return {"entropy": dense_cross_entropy(logits, truth, IGNORED)}

    def _pseudo_labels(self, views: Sequence[np.ndarray], logits: torch.Tensor) -> torch.Tensor:
        """Returns an unseen class for each pixel of the views, or ``IGNORED``, (B, side, side) int64."""
        if self._batch < self.settings.guided_share * self.settings.steps:
            classes = np.append(self._unseen, np.full(IGNORED + 1 - len(self._unseen), IGNORED))
            return self._training.truth([classes[labels] for labels in self._teacher.batch(views)])
        unseen = torch.from_numpy(self._unseen).to(logits.device)
        own = F.interpolate(logits[:, unseen], size=views[0].shape[:2], mode="bilinear", align_corners=False)
        return unseen[own.argmax(dim=1)]
