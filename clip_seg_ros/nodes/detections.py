"""The same results as ``vision_msgs``, where that package is installed."""

from __future__ import annotations

from collections.abc import Sequence

from std_msgs.msg import Header

from clip_seg_ros.types import ObjectRegion

try:
    from vision_msgs.msg import (
        BoundingBox2D,
        Detection2D,
        Detection2DArray,
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
    """The boxes and centroids of regions; ``class_id`` is the phrase, ``id`` the object's."""
    return Detection2DArray(header=header, detections=[_detection(header, region) for region in regions])


def _detection(header: Header, region: ObjectRegion) -> Detection2D:
    x_min, y_min, x_max, y_max = region.box_px
    box = BoundingBox2D(size_x=float(x_max - x_min), size_y=float(y_max - y_min))
    # Pixel centres are whole numbers: the box reaches half a pixel beyond its outermost ones.
    box.center.position.x, box.center.position.y = (x_min + x_max - 1) / 2, (y_min + y_max - 1) / 2
    hypothesis = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=region.prompt, score=region.score))
    if region.position_m is not None:
        place = hypothesis.pose.pose.position
        place.x, place.y, place.z = region.position_m
    return Detection2D(header=header, id=str(region.id), bbox=box, results=[hypothesis])


def label_info(header: Header, names: Sequence[str], threshold: float) -> LabelInfo:
    """What the values of a label image mean."""
    classes = [VisionClass(class_id=index, class_name=name) for index, name in enumerate(names)]
    return LabelInfo(header=header, class_map=classes, threshold=threshold)
