# SPDX-License-Identifier: Apache-2.0
"""Objects of one class that touch in an image, and whether each of them is found by itself."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from clip_seg_ros.data.samples import InstanceSample
from clip_seg_ros.pipeline.postprocess import InWindow
from clip_seg_ros.types import window_of

FOUND_IOU = 0.5
"""An object is found if an answer of its class has a larger IoU with it."""


def touching_objects(sample: InstanceSample) -> np.ndarray:
    """Returns (N,) bool: which objects touch another one of their class, at a side or a corner of a pixel.

    Crowds neither touch nor are touched.
    """
    touches = np.zeros(len(sample.labels), bool)
    around = np.ones((3, 3), np.uint8)
    for index in np.flatnonzero(~sample.crowd):
        alike = np.flatnonzero((sample.labels == sample.labels[index]) & ~sample.crowd)
        if len(alike) > 1:
            grown = cv2.dilate(sample.masks[index].view(np.uint8), around).view(bool)
            touches[index] = any((grown & sample.masks[other]).any() for other in alike if other != index)
    return touches


def found_objects(sample: InstanceSample, labels: Sequence[int], answers: Sequence[InWindow]) -> np.ndarray:
    """Returns (N,) bool: which objects have an answer of their class with an IoU above ``FOUND_IOU``.

    No answer can find two objects, because masks of objects share no pixel.

    Args:
        sample: The true objects.
        labels: The class of each answer.
        answers: The answers' masks.
    """
    found = np.zeros(len(sample.labels), bool)
    for index, (label, mask) in enumerate(zip(sample.labels, sample.masks, strict=True)):
        area = np.count_nonzero(mask)
        for answer_label, answer in zip(labels, answers, strict=True):
            if answer_label == label:
                shared = np.count_nonzero(mask[window_of(answer.box_px)] & answer.inside)
                union = area + np.count_nonzero(answer.inside) - shared
                found[index] |= shared > FOUND_IOU * union
    return found


def pieces_of(sample: InstanceSample, labels: Sequence[int], answers: Sequence[InWindow]) -> np.ndarray:
    """Returns (N,) int64: how many answers of its class lie mostly in each object.

    Args:
        sample: The true objects.
        labels: The class of each answer.
        answers: The answers' masks.
    """
    pieces = np.zeros(len(sample.labels), np.int64)
    for index, (label, mask) in enumerate(zip(sample.labels, sample.masks, strict=True)):
        for answer_label, answer in zip(labels, answers, strict=True):
            if answer_label == label:
                shared = np.count_nonzero(mask[window_of(answer.box_px)] & answer.inside)
                pieces[index] += 2 * shared > np.count_nonzero(answer.inside)
    return pieces
