# SPDX-License-Identifier: Apache-2.0
"""Measures a student's agreement with its teacher's labels on images that training never saw, and its speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from clip_seg_ros.evaluation.metrics.classes import ClassScores, ConfusionMatrix
from clip_seg_ros.models.student.model import Student
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.training.distillation.pseudo_labels import LabelledPictures

_TOLERATED = 0.97
"""The factor to which self-training may lower the agreement with the teacher, because it may correct the teacher."""


def keep_the_better(
    student: Student,
    guided: dict[str, torch.Tensor] | None,
    device: str,
    pictures: LabelledPictures,
    to_choose: Sequence[int],
) -> None:
    """Restores the weights from before self-training if that made the student forget what it had learnt.

    Args:
        student: Student after both phases.
        guided: Weights of the student between the phases; ``None`` if there was no second phase.
        device: Device on which to evaluate the student.
        pictures, to_choose: Images with labels, and the indices of those to compare the weights on. Others measure the
            student afterwards, because a choice favours the images on which it was made.
    """
    if guided is None:
        return
    own = {key: value.clone() for key, value in student.state_dict().items()}
    after = agreement(Predictor.from_model(student, device), pictures, to_choose).mean_iou
    student.load_state_dict(guided)
    before = agreement(Predictor.from_model(student, device), pictures, to_choose).mean_iou
    told = f"mean IoU with the labels {before:.3f} before self-training, {after:.3f} after"
    if after < _TOLERATED * before:
        print(f"{told}: the network from before is kept. It needs more --steps or pictures, or --self-share 0")
        return
    student.load_state_dict(own)
    print(told)


def likeliest(predictor: Predictor, rgb: np.ndarray) -> np.ndarray:
    """Returns the most probable class of every pixel of an image (H, W, 3) uint8: (H, W) uint8 class indices."""
    return predictor.predict(rgb, predictor.spec.class_names).values.argmax(axis=0).astype(np.uint8)


def agreement(predictor: Predictor, pictures: LabelledPictures, indices: Sequence[int]) -> ClassScores:
    """Compares a student with its teacher's labels at all pixels that these do not ignore."""
    matrix = ConfusionMatrix(len(predictor.spec.class_names))
    for index in indices:
        matrix.add(likeliest(predictor, pictures.rgb(index)), pictures.labels(index))
    return matrix.scores()


def median_ms(
    predictor: Predictor, prompts: Sequence[str], pictures: LabelledPictures, indices: Sequence[int]
) -> float:
    """Returns the median time from an image to the probabilities at its size, after one pass that is not timed."""
    taken = []
    for index in (indices[0], *indices):
        rgb = pictures.rgb(index)
        start = time.perf_counter()
        predictor.predict(rgb, prompts)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken[1:])
