# SPDX-License-Identifier: Apache-2.0
"""Converts results of the pipeline to messages. Every message has the stamp of its image."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import cv2
import numpy as np
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion, Vector3
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from clip_seg_ros.msg import SegmentedObject, SegmentedObjectArray
from clip_seg_ros.nodes.camera.conversions import byte_array
from clip_seg_ros.pipeline.space.point_cloud import PointCloud
from clip_seg_ros.types import ObjectRegion, OrientedBox

_SPHERE_DIAMETER_M = 0.03
_TEXT_HEIGHT_M = 0.025
_WORD_SPACE = 0.4
"""Width of the space between words, as a share of the text's height; RViz takes it from ``scale.x``."""
OPTICAL_UP, WORLD_UP = (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)
"""The direction that points up in an optical frame, and in all other frames by ROS's convention (REP 103)."""
_BOX_OPACITY = 0.25
_THINNEST_M = 0.001
"""The least thickness of a box, because RViz refuses a box without any."""


def objects_message(
    header: Header, prompts: Sequence[str], regions: Sequence[ObjectRegion], camera: str = "", position_frame: str = ""
) -> SegmentedObjectArray:
    """Returns the list of the regions.

    Args:
        header: Header of the image.
        prompts: The phrases that were asked, found or not.
        regions: The regions, with positions in ``position_frame``.
        camera: Name of the camera, if there are several.
        position_frame: Frame of the positions; by default the frame of the header.
    """
    return SegmentedObjectArray(
        header=header,
        camera=camera,
        prompts=list(prompts),
        position_frame=position_frame or header.frame_id,
        objects=[object_message(region) for region in regions],
    )


def object_message(region: ObjectRegion) -> SegmentedObject:
    """Returns one region; absent positions are NaN."""
    x_min, y_min, x_max, y_max = region.box_px
    absent = (math.nan,) * 3
    box = region.box_m
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
        position=point(region.position_m or absent),
        has_box=box is not None,
        box_pose=box_pose(box) if box else Pose(position=point(absent)),
        box_size=vector(box.size_m if box else absent),
    )


def no_object_message() -> SegmentedObject:
    """Returns the message for no region: everything that could be taken for a place is NaN."""
    absent = (math.nan,) * 3
    return SegmentedObject(
        centroid_x=math.nan,
        centroid_y=math.nan,
        position=point(absent),
        box_pose=Pose(position=point(absent)),
        box_size=vector(absent),
    )


def box_pose(box: OrientedBox) -> Pose:
    """Returns the centre and the orientation of a box."""
    x, y, z, w = (float(value) for value in box.orientation_xyzw)
    return Pose(position=point(box.center_m), orientation=Quaternion(x=x, y=y, z=z, w=w))


def centroids_message(header: Header, regions: Sequence[ObjectRegion]) -> PoseArray:
    """Returns the positions of the regions that have one, without orientation."""
    poses = []
    for region in regions:
        if region.position_m is not None:
            poses.append(Pose(position=point(region.position_m)))
            poses[-1].orientation.w = 1.0
    return PoseArray(header=header, poses=poses)


def markers_message(
    header: Header,
    regions: Sequence[ObjectRegion],
    colors: Sequence[tuple[int, int, int]],
    up: tuple[float, float, float] = OPTICAL_UP,
) -> MarkerArray:
    """Returns a ball, a name and a box for each region that has a position, after deleting all earlier markers.

    Args:
        header: Stamp of the image and frame of the positions.
        regions: The regions, with positions in that frame.
        colors: RGB colour of each region, 0..255.
        up: Unit vector that points up in that frame; names are placed in this direction.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for region, color in zip(regions, colors, strict=True):
        if region.position_m is not None:
            rgba = ColorRGBA(r=color[0] / 255, g=color[1] / 255, b=color[2] / 255, a=0.9)
            text, place = f"{region.prompt} {region.score:.2f}", region.position_m
            name = name_marker(header, "names", region.id, text, place, region.box_m, up)
            markers += [_ball(header, region, rgba), name]
            if region.box_m is not None:
                markers.append(_box(header, region, rgba))
    return MarkerArray(markers=markers)


def _ball(header: Header, region: ObjectRegion, rgba: ColorRGBA) -> Marker:
    size = _SPHERE_DIAMETER_M
    marker = Marker(header=header, ns="objects", id=region.id, type=Marker.SPHERE, action=Marker.ADD, color=rgba)
    marker.scale = Vector3(x=size, y=size, z=size)
    marker.pose.position = point(region.position_m)
    marker.pose.orientation.w = 1.0
    return marker


def _box(header: Header, region: ObjectRegion, rgba: ColorRGBA) -> Marker:
    marker = Marker(header=header, ns="boxes", id=region.id, type=Marker.CUBE, action=Marker.ADD)
    marker.color = ColorRGBA(r=rgba.r, g=rgba.g, b=rgba.b, a=_BOX_OPACITY)
    marker.pose = box_pose(region.box_m)
    marker.scale = box_size(region.box_m)
    return marker


def box_size(box: OrientedBox) -> Vector3:
    """Returns the size of the marker of a box."""
    return vector([max(length, _THINNEST_M) for length in box.size_m])


def name_marker(
    header: Header,
    namespace: str,
    id: int,
    text: str,
    position_m: Sequence[float],
    box_m: OrientedBox | None,
    up: tuple[float, float, float],
) -> Marker:
    """Returns a text above a place and above the box there, if there is one.

    Args:
        header: Frame of the place.
        namespace: Namespace of the marker.
        id: Id of the marker in this namespace.
        text: The text.
        position_m: The place.
        box_m: The box.
        up: Unit vector that points up in that frame.
    """
    marker = Marker(header=header, ns=namespace, id=id, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD)
    marker.text = text
    marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    marker.scale.x, marker.scale.z = _WORD_SPACE * _TEXT_HEIGHT_M, _TEXT_HEIGHT_M
    position, direction = np.asarray(position_m), np.asarray(up)
    # The name is placed above the ball and the box.
    top_m = _SPHERE_DIAMETER_M / 2
    if box_m is not None:
        top_m = max(top_m, float((np.asarray(box_m.center_m) - position) @ direction) + box_m.reach_m(up))
    marker.pose.position = point(position + (top_m + _TEXT_HEIGHT_M) * direction)
    marker.pose.orientation.w = 1.0
    return marker


def union_mask(labels: np.ndarray) -> np.ndarray:
    """Returns (H, W) uint8, 255 where ``labels`` (H, W) has any object, else 0."""
    # This takes a tenth of the time of np.where.
    return cv2.threshold(labels, 0, 255, cv2.THRESH_BINARY)[1]


def points_message(header: Header, cloud: PointCloud) -> PointCloud2:
    """Returns the objects' points: x, y, z in metres, rgb as RViz reads it, and the id of the object."""
    packed = np.empty(len(cloud.ids), _POINT)
    for axis, name in enumerate("xyz"):
        packed[name] = cloud.points_m[:, axis]
    red, green, blue = cloud.rgb.astype(np.uint32).T
    packed["rgb"] = red << 16 | green << 8 | blue
    packed["id"] = cloud.ids
    fields = [
        PointField(name=name, offset=_POINT.fields[name][1], datatype=datatype, count=1)
        for name, datatype in _POINT_FIELDS.items()
    ]
    message = PointCloud2(
        header=header,
        height=1,
        width=len(packed),
        fields=fields,
        is_bigendian=sys.byteorder == "big",
        point_step=_POINT.itemsize,
        row_step=packed.nbytes,
        is_dense=True,
    )
    message.data = byte_array(packed)
    return message


# RViz reads the bits of the colour from a field that is declared as float.
_POINT_FIELDS = {
    "x": PointField.FLOAT32,
    "y": PointField.FLOAT32,
    "z": PointField.FLOAT32,
    "rgb": PointField.FLOAT32,
    "id": PointField.UINT32,
}
_POINT = np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4"), ("rgb", "u4"), ("id", "u4")])


def vector(values: Sequence[float]) -> Vector3:
    """Returns three numbers as a message."""
    return Vector3(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def point(position_m: Sequence[float]) -> Point:
    """Returns a position in metres as a message."""
    return Point(x=float(position_m[0]), y=float(position_m[1]), z=float(position_m[2]))
