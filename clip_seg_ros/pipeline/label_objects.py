# SPDX-License-Identifier: Apache-2.0
"""The connected objects of a label image, those of all labels at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clip_seg_ros.pipeline.parts import parts_of
from clip_seg_ros.pipeline.postprocess import MAX_REGIONS, window_of
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
    parts = parts_of(labels, values)
    found = np.flatnonzero((parts.label < len(names)) & (parts.area >= min_area_px))
    # Equal scores keep the order of the names, and then that of the first pixels.
    found = found[np.lexsort((parts.label[found], -parts.value[found]))][:MAX_REGIONS]
    id_of = np.zeros(len(parts.area), np.uint8)
    id_of[found] = np.arange(1, len(found) + 1)
    ids, boxes, centroids = parts.numbered(id_of), parts.boxes(found), parts.centroids(found)
    # The system clears memory of this size only where it is touched.
    masks = np.zeros((len(found), *labels.shape), np.bool_)
    objects = []
    for id, (index, mask, box, (x, y)) in enumerate(zip(found, masks, boxes.tolist(), centroids.tolist()), start=1):
        window = window_of(tuple(box))
        np.equal(ids[window], id, out=mask[window])
        objects.append(
            ObjectRegion(
                prompt=names[parts.label[index]],
                id=id,
                score=float(parts.value[index]),
                mask=mask,
                box_px=tuple(box),
                centroid_px=(x, y),
                area_px=int(parts.area[index]),
            )
        )
    return objects
