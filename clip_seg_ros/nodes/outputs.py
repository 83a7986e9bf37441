"""Results of the pipeline as messages. Every message carries the header of the image that it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseArray, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from clip_seg_ros.msg import SegmentedObject, SegmentedObjectArray
from clip_seg_ros.types import ObjectRegion

_SPHERE_DIAMETER_M = 0.03
_TEXT_HEIGHT_M = 0.025


def objects_message(header: Header, prompts: Sequence[str], regions: Sequence[ObjectRegion]) -> SegmentedObjectArray:
    """Lists the regions; ``prompts`` are the phrases that were asked, found or not."""
    return SegmentedObjectArray(
        header=header, prompts=list(prompts), objects=[_object_message(region) for region in regions]
    )


def _object_message(region: ObjectRegion) -> SegmentedObject:
    x_min, y_min, x_max, y_max = region.box_px
    absent = (math.nan,) * 3
    return SegmentedObject(
        prompt=region.prompt,
        id=region.id,
        score=region.score,
        x_min=x_min,
        y_min=y_min,
        x_max=x_max,
        y_max=y_max,
        area=region.area_px,
        centroid_x=region.centroid_px[0],
        centroid_y=region.centroid_px[1],
        has_position=region.position_m is not None,
        position=_point(region.position_m or absent),
    )


def centroids_message(header: Header, regions: Sequence[ObjectRegion]) -> PoseArray:
    """Positions in the optical frame of the regions that have one, without orientation."""
    poses = []
    for region in regions:
        if region.position_m is not None:
            poses.append(Pose(position=_point(region.position_m)))
            poses[-1].orientation.w = 1.0
    return PoseArray(header=header, poses=poses)


def markers_message(
    header: Header, regions: Sequence[ObjectRegion], colors: Sequence[tuple[int, int, int]]
) -> MarkerArray:
    """A ball and a name at each region that has a position, after the order to delete those of the image before.

    Args:
        colors: RGB 0..255 of each region.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for region, color in zip(regions, colors, strict=True):
        if region.position_m is not None:
            rgba = ColorRGBA(r=color[0] / 255, g=color[1] / 255, b=color[2] / 255, a=0.9)
            markers += [_ball(header, region, rgba), _name(header, region)]
    return MarkerArray(markers=markers)


def _ball(header: Header, region: ObjectRegion, rgba: ColorRGBA) -> Marker:
    size = _SPHERE_DIAMETER_M
    marker = Marker(header=header, ns="objects", id=region.id, type=Marker.SPHERE, action=Marker.ADD, color=rgba)
    marker.scale = Vector3(x=size, y=size, z=size)
    marker.pose.position = _point(region.position_m)
    marker.pose.orientation.w = 1.0
    return marker


def _name(header: Header, region: ObjectRegion) -> Marker:
    marker = Marker(header=header, ns="names", id=region.id, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD)
    marker.text = f"{region.prompt} {region.score:.2f}"
    marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    marker.scale.z = _TEXT_HEIGHT_M
    # Above the ball: y points down in the optical frame.
    x, y, z = region.position_m
    marker.pose.position = _point((x, y - _SPHERE_DIAMETER_M - _TEXT_HEIGHT_M, z))
    marker.pose.orientation.w = 1.0
    return marker


def union_mask(labels: np.ndarray) -> np.ndarray:
    """(H, W) uint8, 255 where ``labels`` (H, W) holds any object, else 0."""
    return np.where(labels > 0, np.uint8(255), np.uint8(0))


def _point(position_m: tuple[float, float, float]) -> Point:
    return Point(x=float(position_m[0]), y=float(position_m[1]), z=float(position_m[2]))
