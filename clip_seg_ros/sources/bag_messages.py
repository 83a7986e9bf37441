# SPDX-License-Identifier: Apache-2.0
"""Makes messages of ROS 2 from plain values, for bags that ``rosbags`` writes without ROS."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from clip_seg_ros.resources import message_dir
from clip_seg_ros.sources.messages import metres_to_millimetres
from clip_seg_ros.types import CameraIntrinsics, OrientedBox

PICTURE = "sensor_msgs/msg/CompressedImage"
IMAGE = "sensor_msgs/msg/Image"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
OBJECTS = "clip_seg_ros/msg/SegmentedObjectArray"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
TEXT = "std_msgs/msg/String"
JPEG_QUALITY = 95
_OBJECT = "clip_seg_ros/msg/SegmentedObject"
_NO_ROSBAGS = "recordings are written by the package rosbags, which is not installed: pip install rosbags"
_DEPTH_HEADER = struct.pack("<iff", 0, 0.0, 0.0)
"""What compressed_depth_image_transport puts before a PNG of millimetres, which needs no quantisation."""
_ENCODINGS = {"rgb8": np.uint8, "mono8": np.uint8, "8UC1": np.uint8, "16UC1": np.uint16, "32FC1": np.float32}


class RecordingError(Exception):
    """A recording cannot be written; the message says why, and what to do."""


class SeenObject(Protocol):
    """What a message says of an object: ``types.ObjectRegion`` and ``viewer.views.Thing`` have it."""

    @property
    def prompt(self) -> str: ...

    @property
    def id(self) -> int:
        """0..255; 0 for what other things relate to and nobody asked for."""

    @property
    def score(self) -> float: ...

    @property
    def box_px(self) -> tuple[int, int, int, int]: ...

    @property
    def centroid_px(self) -> tuple[float, float]: ...

    @property
    def area_px(self) -> int: ...

    @property
    def position_m(self) -> tuple[float, float, float] | None: ...

    @property
    def box_m(self) -> OrientedBox | None: ...


@dataclass(frozen=True)
class Stamped:
    """When and where what a message holds was seen."""

    stamp_ns: int
    frame_id: str
    """Name of the camera's optical frame, or of the parent of a transform."""


@dataclass(frozen=True)
class Transform:
    """Where a frame is in its parent."""

    parent: str
    child: str
    position_m: tuple[float, float, float]
    orientation_xyzw: tuple[float, float, float, float]
    """Unit quaternion that turns axes of the child into those of the parent."""


def typestore() -> Any:
    """Returns the message types of ROS 2 Jazzy and of this package, for ``rosbags``.

    Raises:
        RecordingError: rosbags is not installed.
        FileNotFoundError: The package's own definitions are not there.
    """
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise RecordingError(_NO_ROSBAGS) from error
    store = get_typestore(Stores.ROS2_JAZZY)
    own = {}
    for name in ("SegmentedObject", "SegmentedObjectArray"):
        text = (message_dir() / f"{name}.msg").read_text(encoding="utf-8")
        own.update(get_types_from_msg(text, f"clip_seg_ros/msg/{name}"))
    store.register(own)
    return store


class Messages:
    """Makes messages.

    Raises:
        RecordingError: rosbags is not installed.
    """

    def __init__(self) -> None:
        self.store = typestore()
        self._types = self.store.types

    def picture(self, at: Stamped, data: bytes, format: str) -> Any:
        """Returns a compressed image of what a file holds; ``format`` is "jpeg", "png" or a longer form of these."""
        return self._types[PICTURE](header=self._header(at), format=format, data=np.frombuffer(data, np.uint8))

    def jpeg(self, at: Stamped, rgb: np.ndarray, quality: int = JPEG_QUALITY) -> Any:
        """Returns an image (H, W, 3) uint8 RGB compressed as JPEG."""
        data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return self.picture(at, data.tobytes(), "rgb8; jpeg compressed bgr8")

    def grey_png(self, at: Stamped, pixels: np.ndarray) -> Any:
        """Returns an image (H, W) uint8, such as a mask or one of labels, compressed without loss."""
        return self.picture(at, cv2.imencode(".png", pixels)[1].tobytes(), "mono8; png compressed mono8")

    def image(self, at: Stamped, pixels: np.ndarray, encoding: str) -> Any:
        """Returns an image (H, W) or (H, W, 3) as it is.

        Raises:
            ValueError: The type of ``pixels`` is not that of the encoding, or this is another than "rgb8", "mono8",
                "8UC1", "16UC1" and "32FC1".
        """
        if encoding not in _ENCODINGS or pixels.dtype != _ENCODINGS[encoding]:
            raise ValueError(f"an image of {encoding} cannot hold {pixels.dtype}; known: {', '.join(_ENCODINGS)}")
        little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
        data = little.reshape(-1).view(np.uint8)
        height, width = pixels.shape[:2]
        return self._types[IMAGE](
            header=self._header(at),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=len(data) // height,
            data=data,
        )

    def compressed_depth(self, at: Stamped, depth_m: np.ndarray) -> Any:
        """Returns depth (H, W) float32 metres, NaN where there is none, as compressed millimetres."""
        png = cv2.imencode(".png", metres_to_millimetres(depth_m))[1].tobytes()
        return self.picture(at, _DEPTH_HEADER + png, "16UC1; compressedDepth png")

    def camera_info(self, at: Stamped, lens: CameraIntrinsics) -> Any:
        """Returns the intrinsics of a camera whose images are not rectified, or have no distortion."""
        distortion = np.array(lens.distortion or (0.0,) * 5)
        k = np.array([lens.fx, 0.0, lens.cx, 0.0, lens.fy, lens.cy, 0.0, 0.0, 1.0])
        return self._types[CAMERA_INFO](
            header=self._header(at),
            height=lens.height,
            width=lens.width,
            distortion_model="rational_polynomial" if len(distortion) == 8 else "plumb_bob",
            d=distortion,
            k=k,
            r=np.eye(3).reshape(-1),
            p=np.hstack([k.reshape(3, 3), np.zeros((3, 1))]).reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=self._types["sensor_msgs/msg/RegionOfInterest"](
                x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
            ),
        )

    def transforms(self, stamp_ns: int, transforms: Iterable[Transform]) -> Any:
        """Returns transforms that hold at a time, for /tf or /tf_static."""
        return self._types[TRANSFORMS](transforms=[self._transform(stamp_ns, each) for each in transforms])

    def objects(
        self,
        at: Stamped,
        camera: str,
        prompts: Sequence[str],
        objects: Iterable[SeenObject],
        position_frame: str | None = None,
    ) -> Any:
        """Returns objects that were found in an image; those whose id is 0 become the message's anchors.

        Args:
            at: The stamp and the optical frame of the image.
            camera: Which of several cameras saw it; empty where there is only one.
            prompts: The phrases that were asked, found or not.
            objects: The objects.
            position_frame: Name of the frame of positions and boxes; by default the optical frame.
        """
        seen = list(objects)
        return self._types[OBJECTS](
            header=self._header(at),
            camera=camera,
            prompts=list(prompts),
            position_frame=at.frame_id if position_frame is None else position_frame,
            objects=[self._object(each) for each in seen if each.id],
            anchors=[self._object(each) for each in seen if not each.id],
        )

    def text(self, text: str) -> Any:
        """Returns a ``std_msgs/String``."""
        return self._types[TEXT](data=text)

    def _header(self, at: Stamped) -> Any:
        return self._types["std_msgs/msg/Header"](stamp=self._time(at.stamp_ns), frame_id=at.frame_id)

    def _time(self, stamp_ns: int) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        return self._types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)

    def _transform(self, stamp_ns: int, transform: Transform) -> Any:
        return self._types["geometry_msgs/msg/TransformStamped"](
            header=self._header(Stamped(stamp_ns, transform.parent)),
            child_frame_id=transform.child,
            transform=self._types["geometry_msgs/msg/Transform"](
                translation=self._vector("Vector3", transform.position_m),
                rotation=self._quaternion(transform.orientation_xyzw),
            ),
        )

    def _object(self, seen: SeenObject) -> Any:
        pose, size = self._box(seen.box_m)
        x_min, y_min, x_max, y_max = seen.box_px
        return self._types[_OBJECT](
            prompt=seen.prompt,
            id=seen.id,
            score=seen.score,
            x_min=x_min,
            y_min=y_min,
            x_max=x_max,
            y_max=y_max,
            area=seen.area_px,
            centroid_x=seen.centroid_px[0],
            centroid_y=seen.centroid_px[1],
            has_position=seen.position_m is not None,
            position=self._vector("Point", seen.position_m),
            has_box=seen.box_m is not None,
            box_pose=pose,
            box_size=size,
            anchors=np.zeros(0, np.uint8),  # none of those who write bags know what relates to what
        )

    def _box(self, box: OrientedBox | None) -> tuple[Any, Any]:
        """Returns pose and size of a box as messages, all NaN without one."""
        pose = self._types["geometry_msgs/msg/Pose"](
            position=self._vector("Point", box.center_m if box else None),
            orientation=self._quaternion(box.orientation_xyzw if box else (math.nan,) * 4),
        )
        return pose, self._vector("Vector3", box.size_m if box else None)

    def _vector(self, kind: str, values: tuple[float, float, float] | None) -> Any:
        x, y, z = values or (math.nan,) * 3
        return self._types[f"geometry_msgs/msg/{kind}"](x=x, y=y, z=z)

    def _quaternion(self, values: tuple[float, ...]) -> Any:
        x, y, z, w = values
        return self._types["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w)
