# SPDX-License-Identifier: Apache-2.0
"""Measures ``pipeline.pointing``: clicks at random places of random objects, and boxes around them drawn carelessly."""

from __future__ import annotations

import statistics
import time
from functools import partial

import numpy as np

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.evaluation.pages.pictures import COLUMNS, Gallery, answer_cell, grid
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.pipeline.cutting import Box, cut_around, enlarged, part_at
from clip_seg_ros.pipeline.pointing import guesses_at, guesses_in, likeness, thing_at, thing_in
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import Scene

MIN_AREA_FRACTION = 0.002
"""The smallest visible object, as the nodes have it by default."""
CLICKS = 2
"""The most objects of a scene that are clicked at."""
JITTER = 0.1
"""The most by which each side of a box is wrong, as a share of the box."""
LIKE = 0.4
"""The likeness above which the way "features" takes a place to belong to the thing."""
DISK_SHARE = 1 / 30
"""The radius of the first guess of the way "colours", as a share of the shorter side: 16 pixels at 640x480."""


def jittered(box_px: Box, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """Returns a box (x_min, y_min, x_max, y_max) whose sides are wrong by up to ``JITTER``, in an image (H, W)."""
    left, top, right, bottom = box_px
    sides = np.array([right - left, bottom - top] * 2)
    moved = np.round(np.array(box_px) + rng.uniform(-JITTER, JITTER, 4) * sides)
    x_min, y_min, x_max, y_max = moved.clip(0, [size[1], size[0]] * 2).astype(int).tolist()
    return x_min, y_min, max(x_max, x_min + 1), max(y_max, y_min + 1)


def box_of(mask: np.ndarray) -> Box:
    """Returns the box of a mask (H, W) bool that is not empty."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


class ClickExaminer(Examiner):
    """Clicks at objects and draws boxes around them, and compares the masks with the truth.

    Several ways are measured. For points: ``features`` takes the places that are like the one at the point, ``colours``
    is GrabCut from a disk around it without any model, ``one_guess`` is GrabCut from one first guess by features, and
    ``point`` is what ``thing_at`` gives. For boxes: ``one_box`` is GrabCut alone, and ``box`` what ``thing_in`` gives.

    Args:
        predictor: Predictor of a model that keeps features of places.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._ious: dict[str, list[float]] = {}
        self._taken_ms: dict[str, list[float]] = {}
        self._gallery = Gallery(2 * COLUMNS, 0)

    def examine(self, scene: Scene, view: RenderedView) -> None:
        rng = np.random.default_rng([scene.seed, 11])
        counts = np.bincount(view.labels.ravel(), minlength=len(view.objects) + 1)
        large = [label for label in range(1, len(counts)) if counts[label] >= MIN_AREA_FRACTION * view.labels.size]
        if not large:
            return
        encoded = self._predictor.encode(view.rgb)
        for label in rng.permutation(large)[:CLICKS]:
            truth = view.labels == label
            rows, columns = np.nonzero(truth)
            place = rng.integers(len(rows))
            point = int(columns[place]), int(rows[place])
            box = jittered(box_of(truth), truth.shape, rng)
            for name, mask in self._answers(encoded, view.rgb, point, box).items():
                self._ious.setdefault(name, []).append(mask_iou(mask, truth))
                if name in ("point", "box"):
                    caption = f"{view.objects[label - 1].name}: {name}"
                    self._gallery.add(0.0, partial(answer_cell, view.rgb, mask, truth, caption))

    def _answers(self, encoded, rgb: np.ndarray, point: tuple[int, int], box: Box) -> dict[str, np.ndarray]:
        """Returns the mask (H, W) bool of every way."""
        size = rgb.shape[:2]
        disk = np.hypot(*(np.indices(size) - np.reshape(point[::-1], (2, 1, 1)))) <= DISK_SHARE * min(size)
        found = {
            "features": part_at(likeness(encoded, point) > LIKE, point),
            "colours": cut_around(rgb, disk, np.zeros(size, np.bool_), point),
            "one_guess": enlarged(guesses_at(self._predictor, encoded, rgb, point).cuts[0], size),
            "one_box": guesses_in(self._predictor, encoded, rgb, box).cuts[0],
        }
        for name, find in (("point", partial(thing_at, point_px=point)), ("box", partial(thing_in, box_px=box))):
            start_s = time.perf_counter()
            found[name] = find(self._predictor, encoded, rgb).mask
            self._taken_ms.setdefault(name, []).append((time.perf_counter() - start_s) * 1e3)
        return found

    def figures(self) -> list[Figure]:
        found = [
            Figure(f"clicks.{name}.mean_iou", round(float(np.mean(ious)), 4), "IoU")
            for name, ious in self._ious.items()
        ]
        for name, ious in self._ious.items():
            found.append(
                Figure(f"clicks.{name}.wrong", round(float(np.mean(np.array(ious) < 0.5)), 4), "IoU below 0.5")
            )
        for name, taken_ms in self._taken_ms.items():
            found.append(
                Figure(f"clicks.{name}.ms", round(statistics.median(taken_ms), 1), "ms after the image's features")
            )
        return [*found, Figure("clicks.count", len(self._ious.get("point", ())), "objects")]

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns random answers to points and boxes; empty before the first answer."""
        cells = self._gallery.cells()
        return {"clicks": grid(cells)} if cells else {}
