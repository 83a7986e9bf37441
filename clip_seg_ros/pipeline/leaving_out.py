# SPDX-License-Identifier: Apache-2.0
"""Leaves out what a negative names: "the boxes, not the white one"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from clip_seg_ros.types import ObjectRegion

_DOUBTFUL_SHARE = 0.4
"""A pixel above this share of the threshold belongs to the negative if it is connected with one above the threshold.
The shaded side of a white box, for example, has a low probability of "white" and would stay as a scrap."""
_CUT_SHARE, _LEFT_OUT_SHARE = 0.1, 0.5
"""Shares of a region's pixels. If the negative has at most the first, the region stays as it is. If it has more than
the second, the region is left out. In between, the mask holds two objects, and the negative's part is cut away."""


def leave_out(regions: Sequence[ObjectRegion], unwanted: np.ndarray, threshold: float) -> list[ObjectRegion]:
    """Returns the regions, in their order and with their ids, without what a negative names.

    Args:
        regions: The regions of one image.
        unwanted: (H, W) probabilities of the negative, 0..1.
        threshold: A pixel belongs to the negative above this probability.
    """
    named = _named(unwanted, threshold)
    kept = []
    for region in regions:
        window, mask = region.window, region.inside
        if float(unwanted[window][mask].mean()) > threshold:
            continue
        share = 0.0 if named is None else np.count_nonzero(named[window] & mask) / region.area_px
        if share <= _CUT_SHARE:
            kept.append(region)
        elif share <= _LEFT_OUT_SHARE:
            kept.append(_largest_part(region, mask & ~named[window]))
    return kept


def _named(unwanted: np.ndarray, threshold: float) -> np.ndarray | None:
    """Returns (H, W) bool, the pixels of the negative by two thresholds; ``None`` if there are none."""
    sure = unwanted > threshold
    if not sure.any():
        return None
    _, labels = cv2.connectedComponents((unwanted > _DOUBTFUL_SHARE * threshold).view(np.uint8), connectivity=8)
    is_named = np.zeros(int(labels.max()) + 1, np.bool_)
    is_named[labels[sure]] = True
    is_named[0] = False
    return is_named[labels]


def _largest_part(region: ObjectRegion, inside: np.ndarray) -> ObjectRegion:
    """Returns the region reduced to the largest connected part of ``inside`` (h, w), a mask in its box."""
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(inside).view(np.uint8), connectivity=8
    )
    label = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height, area = stats[label].tolist()
    x, y = region.box_px[:2]
    return replace(
        region,
        inside=labels[top : top + height, left : left + width] == label,
        box_px=(x + left, y + top, x + left + width, y + top + height),
        area_px=area,
        centroid_px=(float(centroids[label][0]) + x, float(centroids[label][1]) + y),
    )
