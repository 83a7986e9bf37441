# SPDX-License-Identifier: Apache-2.0
"""Measures ``pipeline.edges`` on real pictures with labels, from which answers of a model are made.

No weights here know real pictures. Labels that are averaged over 22 x 22 cells stand for a model that is right but
answers as coarsely as CLIPSeg's published weights; labels that are blurred by a few pixels stand for one whose masks
are right to a pixel or two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from clip_seg_ros.data.samples import IGNORED, SemanticSample
from clip_seg_ros.evaluation.metrics.boundary import boundary_score
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.evaluation.suite import Figure
from clip_seg_ros.evaluation.suites.edges import MIN_AREA_FRACTION, coarse, covered
from clip_seg_ros.pipeline.cell_maps import CellMaps, runs_of_cells
from clip_seg_ros.pipeline.edges import refined
from clip_seg_ros.pipeline.postprocess import regions_of
from clip_seg_ros.pipeline.preprocess import Geometry

BLUR_PX = 3.0
"""The standard deviation of the blurred labels."""
TOLERANCE_PX = 2.0
"""The distance within which borders match."""
_THRESHOLD = 0.5


def label_edges(samples: Iterable[SemanticSample], class_names: Sequence[str]) -> list[Figure]:
    """Returns how well masks of all classes fit their labels, before and after they are refined.

    Pixels without a label count for no mask.
    """
    scores: dict[str, list[tuple[float, float]]] = {}
    images = 0
    for sample in samples:
        images += 1
        for name, before, after, truth in _masks(sample, class_names):
            # The measure rounds up to whole pixels.
            share = (TOLERANCE_PX - 0.5) / math.hypot(*truth.shape)
            for state, mask in (("unrefined", before), ("refined", after)):
                found = boundary_score(mask, truth, share, sample.labels == IGNORED).f, mask_iou(mask, truth)
                scores.setdefault(f"{name}_{state}", []).append(found)
    figures = [Figure("edges.images", images, "images")]
    for name, each in scores.items():
        boundary_f, iou = (round(float(mean), 4) for mean in np.mean(each, axis=0))
        figures += [
            Figure(f"edges.{name}.boundary_f", boundary_f, f"F within {TOLERANCE_PX:g} px"),
            Figure(f"edges.{name}.mean_iou", iou, "IoU"),
            Figure(f"edges.{name}.count", len(each), "masks"),
        ]
    return figures


def _masks(
    sample: SemanticSample, class_names: Sequence[str]
) -> Iterable[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (kind of answer, mask, refined mask, truth), each mask (H, W) bool, for the classes in an image."""
    labels, size = sample.labels, sample.labels.shape
    shares = np.bincount(labels.ravel(), minlength=256)[: len(class_names)] / labels.size
    classes = np.flatnonzero(shares >= MIN_AREA_FRACTION)
    if not len(classes):
        return
    truths = labels == classes[:, None, None]
    prompts = tuple(class_names[index] for index in classes)
    own = CellMaps(prompts, truths.astype(np.float32), Geometry(size, size))
    blurred = np.stack([cv2.GaussianBlur(value, (0, 0), BLUR_PX) for value in own.values])
    for name, maps in (("coarse", coarse(own)), ("blurred", CellMaps(prompts, blurred, own.geometry))):
        least_px = max(1, round(MIN_AREA_FRACTION * labels.size))
        before = regions_of(runs_of_cells(maps, maps.values, _THRESHOLD), prompts, least_px, tidy=True)
        after = refined(before, maps, sample.rgb, _THRESHOLD)
        for prompt, truth in zip(prompts, truths, strict=True):
            unrefined, fine = (covered(regions, prompt, size) & (labels != IGNORED) for regions in (before, after))
            yield name, unrefined, fine, truth
