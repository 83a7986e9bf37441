# SPDX-License-Identifier: Apache-2.0
"""How well and how fast a student answers, held to its teacher's labels on images that training never saw."""

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
"""Self-training may change the agreement with the teacher by this factor: it is meant to correct the teacher."""


def keep_the_better(
    student: Student,
    guided: dict[str, torch.Tensor] | None,
    device: str,
    pictures: LabelledPictures,
    held_out: Sequence[int],
) -> None:
    """Puts the weights from before self-training back where that made the student forget what it was taught.

    Args:
        student: After both phases.
        guided: Its weights from between the phases; ``None`` where there was no second one.
        device: Where to ask it.
        pictures, held_out: What to ask it about.
    """
    if guided is None:
        return
    own = {key: value.clone() for key, value in student.state_dict().items()}
    after = agreement(Predictor.from_model(student, device), pictures, held_out).mean_iou
    student.load_state_dict(guided)
    before = agreement(Predictor.from_model(student, device), pictures, held_out).mean_iou
    told = f"mean IoU with the teacher's labels {before:.3f} before self-training, {after:.3f} after"
    if after < _TOLERATED * before:
        print(f"{told}: the network from before is kept. It needs more --steps or pictures, or --self-share 0")
        return
    student.load_state_dict(own)
    print(told)


def likeliest(predictor: Predictor, rgb: np.ndarray) -> np.ndarray:
    """Returns the likeliest class of every pixel of (H, W, 3) uint8: (H, W) uint8 index into the model's classes."""
    return predictor.predict(rgb, predictor.spec.class_names).values.argmax(axis=0).astype(np.uint8)


def agreement(predictor: Predictor, pictures: LabelledPictures, indices: Sequence[int]) -> ClassScores:
    """Compares a student with its teacher's labels, where those are not ignored."""
    matrix = ConfusionMatrix(len(predictor.spec.class_names))
    for index in indices:
        matrix.add(likeliest(predictor, pictures.rgb(index)), pictures.labels(index))
    return matrix.scores()


def median_ms(
    predictor: Predictor, prompts: Sequence[str], pictures: LabelledPictures, indices: Sequence[int]
) -> float:
    """Times whole answers, from the image to the probabilities at its size; the first picture goes ahead untimed."""
    taken = []
    for index in (indices[0], *indices):
        rgb = pictures.rgb(index)
        start = time.perf_counter()
        predictor.predict(rgb, prompts)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken[1:])
