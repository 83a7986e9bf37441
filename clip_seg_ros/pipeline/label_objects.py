# SPDX-License-Identifier: Apache-2.0
"""The connected objects of a label image, those of all labels at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clip_seg_ros.pipeline.parts import parts_of
from clip_seg_ros.pipeline.postprocess import MAX_REGIONS, objects_of
from clip_seg_ros.pipeline.runs import runs_of_labels
from clip_seg_ros.types import ObjectRegion


def label_objects(labels: np.ndarray, values: np.ndarray, names: Sequence[str], min_area_px: int) -> list[ObjectRegion]:
    """Splits each label's pixels into connected objects; parts that touch at a corner are one object.

    Args:
        labels: (H, W) uint8.
        values: (H, W) float32. An object's score is their mean over it.
        names: What the labels 0, 1, ... name; pixels of other labels belong to no object.
        min_area_px: Smaller objects are left out.

    Returns:
        The objects as ``postprocess.regions`` returns them: at most 255, the one with the best score first.
    """
    parts = parts_of(runs_of_labels(labels, values))
    found = np.flatnonzero((parts.label < len(names)) & (parts.area >= min_area_px))
    # Equal scores keep the order of the names, and then that of the first pixels.
    found = found[np.lexsort((parts.label[found], -parts.value[found]))][:MAX_REGIONS]
    return objects_of(parts, found, names)
