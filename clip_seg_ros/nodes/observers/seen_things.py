# SPDX-License-Identifier: Apache-2.0
"""Messages of found objects and of their points, as the viewer shows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import PointCloud2

from clip_seg_ros.msg import SegmentedObject, SegmentedObjectArray
from clip_seg_ros.pipeline.space.point_cloud import PointCloud
from clip_seg_ros.types import OrientedBox
from clip_seg_ros.viewer.views import Thing

MOST_POINTS = 40000
"""The largest number of points of a cloud that is shown; of more, so many are taken evenly."""
_FIELDS = {"x": "f4", "y": "f4", "z": "f4", "rgb": "u4", "id": "u4"}
"""The fields of the topic ``points`` and their types; the bits of the colour lie in a field that is declared float."""


def things_of(message: SegmentedObjectArray) -> tuple[Thing, ...]:
    """Returns the objects of an image, and after them what they relate to, whose ids are 0."""
    return tuple(map(thing_of, [*message.objects, *message.anchors]))


def thing_of(item: SegmentedObject) -> Thing:
    """Returns an object; what it has no valid numbers for is ``None``."""
    place = item.position
    return Thing(
        prompt=item.prompt,
        id=item.id,
        score=item.score,
        box_px=(item.x_min, item.y_min, item.x_max, item.y_max),
        centroid_px=(item.centroid_x, item.centroid_y),
        area_px=item.area,
        position_m=(place.x, place.y, place.z) if item.has_position else None,
        box_m=_box_of(item) if item.has_box else None,
    )


def _box_of(item: SegmentedObject) -> OrientedBox | None:
    at, turn, size = item.box_pose.position, item.box_pose.orientation, item.box_size
    try:
        return OrientedBox((at.x, at.y, at.z), (size.x, size.y, size.z), (turn.x, turn.y, turn.z, turn.w))
    except ValueError:
        return None


def cloud_of(message: PointCloud2) -> PointCloud:
    """Returns the points of a message of the topic ``points``, at most ``MOST_POINTS``.

    Raises:
        ValueError: The message is no such cloud.
    """
    offsets = {field.name: field.offset for field in message.fields}
    if not offsets.keys() >= _FIELDS.keys():
        raise ValueError(f"a cloud of objects has the fields {', '.join(_FIELDS)}, got {', '.join(offsets)}")
    order = ">" if message.is_bigendian else "<"
    layout = {
        "names": list(_FIELDS),
        "formats": [order + kind for kind in _FIELDS.values()],
        "offsets": [offsets[name] for name in _FIELDS],
        "itemsize": message.point_step,
    }
    points = np.frombuffer(message.data, np.dtype(layout), message.width * message.height)
    points = points[_evenly(len(points))]
    packed = points["rgb"]
    rgb = np.stack([packed >> shift & 255 for shift in (16, 8, 0)], axis=-1).astype(np.uint8)
    places = np.stack([points[axis] for axis in "xyz"], axis=-1).astype(np.float32)
    return PointCloud(places, rgb, points["id"].astype(np.uint8))


def _evenly(count: int) -> slice | np.ndarray:
    if count <= MOST_POINTS:
        return slice(None)
    return (2 * np.arange(MOST_POINTS) + 1) * count // (2 * MOST_POINTS)


def same_thing(mask: np.ndarray, labels: np.ndarray | None, things: Sequence[Thing], least: float) -> Thing | None:
    """Returns the found thing whose pixels a mask covers best; ``None`` if none has that much in common with it.

    Args:
        mask: (H, W) bool.
        labels: (H, W) uint8, the ids of the things.
        things: The things.
        least: The least intersection over union, 0..1.
    """
    if labels is None or labels.shape != mask.shape:
        return None
    best, best_iou = None, least
    inside, area = np.bincount(labels[mask], minlength=256), np.bincount(labels.ravel(), minlength=256)
    total = int(np.count_nonzero(mask))
    for thing in things:
        union = total + area[thing.id] - inside[thing.id]
        if thing.id and union and inside[thing.id] / union >= best_iou:
            best, best_iou = thing, inside[thing.id] / union
    return best
