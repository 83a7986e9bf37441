# SPDX-License-Identifier: Apache-2.0
"""Draws a student's answers beside the labels that it learnt from."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.models.student.model import BACKGROUND_CLASS
from clip_seg_ros.pipeline.class_labels import class_colors
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.training.distillation.agreement import likeliest
from clip_seg_ros.training.distillation.pseudo_labels import LabelledPictures

_CELL = (320, 240)
_UNKNOWN_RGB = (40, 40, 40)


def example_grid(
    predictor: Predictor, pictures: LabelledPictures, indices: Sequence[int], whose: str = "teacher"
) -> np.ndarray:
    """Draws one row per image: the image, its labels and the student's; a legend follows below.

    Args:
        predictor: The student.
        pictures, indices: The images.
        whose: What is written above the labels.

    Returns:
        The drawing, (title + rows * 240 + legend, 960, 3) uint8 RGB. Pixels without a label are dark grey.
    """
    names = predictor.spec.class_names
    colors = _class_colors(names)
    rows = []
    for index in indices:
        rgb = pictures.rgb(index)
        cells = (rgb, _tinted(rgb, pictures.labels(index), colors), _tinted(rgb, likeliest(predictor, rgb), colors))
        rows.append(np.concatenate([_cell(cell) for cell in cells], axis=1))
    titles = [_titled(rows[0].shape[1], ("image", whose, "student"))]
    return np.concatenate([*titles, *rows, _legend(rows[0].shape[1], names, colors)])


def _class_colors(names: Sequence[str]) -> np.ndarray:
    """Returns the colours (256, 3) uint8 RGB of the classes and of ``IGNORED``; an added background is black."""
    things = [index for index, name in enumerate(names) if name != BACKGROUND_CLASS]
    colors = np.zeros((256, 3), np.uint8)
    colors[things] = class_colors(len(things))[: len(things)]
    colors[IGNORED] = _UNKNOWN_RGB
    return colors


def _tinted(rgb: np.ndarray, labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    tinted = cv2.addWeighted(rgb, 0.35, colors[labels], 0.65, 0)
    return np.where((colors[labels] == 0).all(axis=2, keepdims=True), rgb, tinted)


def _cell(rgb: np.ndarray) -> np.ndarray:
    """Fits an image into a cell: keeps its aspect ratio and fills the rest with black."""
    scale = min(_CELL[0] / rgb.shape[1], _CELL[1] / rgb.shape[0])
    width, height = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    cell = np.zeros((_CELL[1], _CELL[0], 3), np.uint8)
    cell[:height, :width] = small
    return cell


def _titled(width: int, titles: Sequence[str]) -> np.ndarray:
    bar = np.zeros((22, width, 3), np.uint8)
    for column, title in enumerate(titles):
        cv2.putText(bar, title, (column * _CELL[0] + 5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255,) * 3, 1, cv2.LINE_AA)
    return bar


def _legend(width: int, names: Sequence[str], colors: np.ndarray, columns: int = 6) -> np.ndarray:
    entries = [*((name, colors[index]) for index, name in enumerate(names)), ("(ignored)", colors[IGNORED])]
    bar = np.zeros((22 * -(-len(entries) // columns), width, 3), np.uint8)
    for place, (name, color) in enumerate(entries):
        left, top = place % columns * (width // columns), place // columns * 22
        cv2.rectangle(bar, (left + 4, top + 4), (left + 18, top + 17), tuple(int(v) for v in color), cv2.FILLED)
        cv2.putText(bar, name[:16], (left + 24, top + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,) * 3, 1, cv2.LINE_AA)
    return bar
