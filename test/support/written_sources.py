# SPDX-License-Identifier: Apache-2.0
"""Writes videos and bags of rendered pictures, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from clip_seg_ros.sim.renderer import RenderedView

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
COLOR_TOPIC, DEPTH_TOPIC, INFO_TOPIC = "/camera/color/image_raw", "/camera/depth/image_raw", "/camera/color/camera_info"
FRAME = "camera_optical"
START_NS = 10**18
"""The stamp of the first image of a bag of ``write_bag``."""
TF = "tf2_msgs/msg/TFMessage"


@dataclass(frozen=True)
class Joint:
    """Where a frame is in another one, for ``write_bag``."""

    parent: str
    child: str
    position_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn_xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    at_s: float | None = None
    """The time after the first image; ``None``: always, on /tf_static."""


def write_video(path: Path, pictures: Sequence[np.ndarray], rate_hz: float = 10.0, codec: str = "mp4v") -> Path:
    """Writes RGB pictures of one size as a video."""
    height, width = pictures[0].shape[:2]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate_hz, (width, height))
    assert video.isOpened()
    for rgb in pictures:
        video.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    video.release()
    return path


def write_bag(
    path: Path,
    views: Sequence[RenderedView],
    version: int = 2,
    storage: StoragePlugin = StoragePlugin.MCAP,
    depth: str = "32FC1",
    is_compressed: bool = False,
    period_s: float = 0.1,
    depth_late_s: float = 0.004,
    joints: Sequence[Joint] = (),
) -> Path:
    """Writes colours, depth and camera_info as a depth camera records them: the depth a little later.

    Args:
        path: The folder of a bag of ROS 2, or the file of one of ROS 1.
        views: The images.
        version: That of ROS.
        storage: Of ROS 2.
        depth: "32FC1", "16UC1", or "" for none.
        is_compressed: Whether colours are written as JPEG.
        period_s: The time between images.
        depth_late_s: By how much the stamps of the depth are later.
        joints: The transforms of frames.
    """
    store = get_typestore(Stores.ROS2_HUMBLE if version == 2 else Stores.ROS1_NOETIC)
    if TF not in store.types:
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", TF))
    writer = Writer(path, version=9, storage_plugin=storage) if version == 2 else Writer1(path)
    with writer as bag:
        connections: dict[str, object] = {}

        def write(topic: str, kind: str, message: object, logged_ns: int) -> None:
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=store)
            serialize = store.serialize_cdr if version == 2 else store.serialize_ros1
            bag.write(connections[topic], logged_ns, serialize(message, kind))

        for joint in joints:
            at_ns = START_NS + round((joint.at_s or 0.0) * 1e9)
            topic = "/tf_static" if joint.at_s is None else "/tf"
            write(topic, TF, _transforms(store, joint, at_ns), at_ns)
        for index, view in enumerate(views):
            stamp_ns = START_NS + round(index * period_s * 1e9)
            color = _compressed(store, view, stamp_ns) if is_compressed else _raw(store, view.rgb, "rgb8", stamp_ns)
            topic = f"{COLOR_TOPIC}/compressed" if is_compressed else COLOR_TOPIC
            write(topic, COMPRESSED if is_compressed else IMAGE, color, stamp_ns + 1_000_000)
            if not index or version == 2:
                write(INFO_TOPIC, INFO, _info(store, view, stamp_ns), stamp_ns + 2_000_000)
            if depth:
                late_ns = stamp_ns + round(depth_late_s * 1e9)
                write(DEPTH_TOPIC, IMAGE, _raw(store, _stored(view, depth), depth, late_ns), late_ns + 30_000_000)
    return path


def write_pictures(path: Path, pictures: Sequence[tuple[str, np.ndarray, str]]) -> Path:
    """Writes (topic, pixels, encoding), one a second, as a bag of ROS 2; without any, one text on /chatter."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(path, version=9) as bag:
        if not pictures:
            kind = "std_msgs/msg/String"
            chatter = bag.add_connection("/chatter", kind, typestore=store)
            bag.write(chatter, 0, store.serialize_cdr(store.types[kind](data="hello"), kind))
        for second, (topic, pixels, encoding) in enumerate(pictures):
            connection = bag.add_connection(topic, IMAGE, typestore=store)
            message = _raw(store, pixels, encoding, second * 10**9)
            bag.write(connection, second * 10**9, store.serialize_cdr(message, IMAGE))
    return path


def _stored(view: RenderedView, depth: str) -> np.ndarray:
    if depth == "32FC1":
        return view.depth_m
    return np.nan_to_num(view.depth_m * 1000).round().astype(np.uint16)


def _header(store: object, stamp_ns: int, frame_id: str = FRAME) -> object:
    time = store.types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    kind = store.types["std_msgs/msg/Header"]
    more = {"seq": 0} if "seq" in kind.__dataclass_fields__ else {}
    return kind(stamp=time, frame_id=frame_id, **more)


def _transforms(store: object, joint: Joint, stamp_ns: int) -> object:
    types = store.types
    move = types["geometry_msgs/msg/Vector3"](*joint.position_m)
    turn = types["geometry_msgs/msg/Quaternion"](*joint.turn_xyzw)
    stamped = types["geometry_msgs/msg/TransformStamped"](
        header=_header(store, stamp_ns, joint.parent),
        child_frame_id=joint.child,
        transform=types["geometry_msgs/msg/Transform"](translation=move, rotation=turn),
    )
    return types[TF](transforms=[stamped])


def _raw(store: object, pixels: np.ndarray, encoding: str, stamp_ns: int) -> object:
    data = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
    return store.types[IMAGE](
        header=_header(store, stamp_ns),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.shape[1],
        data=data.ravel(),
    )


def _compressed(store: object, view: RenderedView, stamp_ns: int) -> object:
    data = cv2.imencode(".jpg", view.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].ravel()
    return store.types[COMPRESSED](header=_header(store, stamp_ns), format="rgb8; jpeg compressed bgr8", data=data)


def _info(store: object, view: RenderedView, stamp_ns: int) -> object:
    lens = view.intrinsics
    k = np.array([lens.fx, 0, lens.cx, 0, lens.fy, lens.cy, 0, 0, 1], np.float64)
    p = np.array([lens.fx, 0, lens.cx, 0, 0, lens.fy, lens.cy, 0, 0, 0, 1, 0], np.float64)
    kind = store.types[INFO]
    matrices = {"d": np.zeros(5), "k": k, "r": np.eye(3).ravel(), "p": p}
    if "D" in kind.__dataclass_fields__:
        matrices = {name.upper(): value for name, value in matrices.items()}
    roi = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return kind(
        header=_header(store, stamp_ns),
        height=lens.height,
        width=lens.width,
        distortion_model="plumb_bob",
        binning_x=0,
        binning_y=0,
        roi=roi,
        **matrices,
    )
