# SPDX-License-Identifier: Apache-2.0
"""Results as messages of ``vision_msgs``, if that package is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from std_msgs.msg import Header

from clip_seg_ros.nodes.outputs.topics import box_pose, point, vector
from clip_seg_ros.types import ObjectRegion

try:
    from vision_msgs.msg import (
        BoundingBox2D,
        BoundingBox3D,
        Detection2D,
        Detection2DArray,
        Detection3D,
        Detection3DArray,
        LabelInfo,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
        VisionClass,
    )
except ImportError:
    AVAILABLE = False
else:
    AVAILABLE = True


def message(header: Header, regions: Sequence[ObjectRegion]) -> Detection2DArray:
    """Returns the boxes of regions; ``class_id`` is the phrase, and ``id`` is the id of the object."""
    return Detection2DArray(header=header, detections=[_detection(header, region) for region in regions])


def _detection(header: Header, region: ObjectRegion) -> Detection2D:
    x_min, y_min, x_max, y_max = region.box_px
    box = BoundingBox2D(size_x=float(x_max - x_min), size_y=float(y_max - y_min))
    # Pixel centres are whole numbers: the box reaches half a pixel beyond its outermost pixel centres.
    box.center.position.x, box.center.position.y = (x_min + x_max - 1) / 2, (y_min + y_max - 1) / 2
    return Detection2D(header=header, id=str(region.id), bbox=box, results=[_hypothesis(region)])


def message_3d(header: Header, regions: Sequence[ObjectRegion]) -> Detection3DArray:
    """Returns the oriented boxes of the regions that have a position.

    ``class_id`` is the phrase, and ``id`` is the id of the object. A region that is too small for a box gets one of
    size 0 at its position.

    Args:
        header: Stamp of the image and frame of the positions.
        regions: The regions, with positions in that frame.
    """
    placed = [region for region in regions if region.position_m is not None]
    return Detection3DArray(header=header, detections=[_detection_3d(header, region) for region in placed])


def _detection_3d(header: Header, region: ObjectRegion) -> Detection3D:
    box = BoundingBox3D()
    if region.box_m is not None:
        box.center, box.size = box_pose(region.box_m), vector(region.box_m.size_m)
    else:
        box.center.position = point(region.position_m)
    return Detection3D(header=header, id=str(region.id), bbox=box, results=[_hypothesis(region)])


def _hypothesis(region: ObjectRegion) -> ObjectHypothesisWithPose:
    hypothesis = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=region.prompt, score=region.score))
    if region.position_m is not None:
        hypothesis.pose.pose.position = point(region.position_m)
    return hypothesis


def label_info(header: Header, names: Mapping[int, str], threshold: float) -> LabelInfo:
    """Returns the meaning of a label image: the names of its values, and the threshold on probabilities, 0..1."""
    classes = [VisionClass(class_id=value, class_name=name) for value, name in names.items()]
    return LabelInfo(header=header, class_map=classes, threshold=threshold)
