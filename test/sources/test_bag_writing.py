# SPDX-License-Identifier: Apache-2.0
"""What is written into a recording is what rosbags, the package mcap and our own sources read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability

from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sources.bag_messages import OBJECTS, RecordingError, Stamped, Transform
from clip_seg_ros.sources.bag_writing import BagWriter
from clip_seg_ros.sources.frames import open_frames
from clip_seg_ros.sources.messages import (
    camera_info_to_intrinsics,
    compressed_depth_to_metres,
    compressed_to_rgb,
    depth_to_metres,
    image_to_rgb,
)
from clip_seg_ros.types import CameraIntrinsics, ObjectRegion

START_NS = 1_700_000_000_000_000_007
STEP_NS = 100_000_000
PLACE = Transform("world", "lens", (1.0, -2.0, 0.5), (0.5, -0.5, 0.5, 0.5))


def write(path: Path, views: list[RenderedView], is_raw: bool = False) -> Path:
    """Writes one message of every kind for each view."""
    with BagWriter(path) as bag:
        make = bag.messages
        bag.add("/tf_static", make.transforms(START_NS, [PLACE]), START_NS)
        for index, view in enumerate(views):
            stamp_ns = START_NS + STEP_NS * index
            at = Stamped(stamp_ns, "lens")
            color = make.image(at, view.rgb, "rgb8") if is_raw else make.jpeg(at, view.rgb)
            depth = make.image(at, view.depth_m, "32FC1") if is_raw else make.compressed_depth(at, view.depth_m)
            bag.add("/camera/color/image_raw" + "/compressed" * (not is_raw), color, stamp_ns)
            bag.add("/camera/depth/image_raw" + "/compressedDepth" * (not is_raw), depth, stamp_ns)
            bag.add("/camera/color/camera_info", make.camera_info(at, view.intrinsics), stamp_ns)
            bag.add("/camera/labels", make.grey_png(at, view.labels), stamp_ns)
            bag.add("/camera/objects", make.objects(at, "camera", ["red cup"], [region_of(view)]), stamp_ns)
            bag.add("/notes", make.text(f"image {index}"), stamp_ns)
    return path


def region_of(view: RenderedView) -> ObjectRegion:
    return ObjectRegion.of_mask("red cup", 7, 0.75, view.labels > 0, (0.1, 0.2, 0.9))


@pytest.fixture(scope="module", params=[False, True], ids=["compressed", "raw"])
def recording(request, views, tmp_path_factory) -> tuple[Path, bool]:
    path = tmp_path_factory.mktemp("written") / "a.mcap"
    return write(path, views, request.param), request.param


def read(path: Path) -> dict[str, list[Any]]:
    """Returns the messages of each topic, as rosbags reads them with nothing but what is in the file."""
    found: dict[str, list[Any]] = {}
    with AnyReader([path]) as reader:
        for connection, _, data in reader.messages():
            found.setdefault(connection.topic, []).append(reader.deserialize(data, connection.msgtype))
    return found


def test_images_come_back(recording, views) -> None:
    path, is_raw = recording
    messages = read(path)
    (color,) = (each for topic, each in messages.items() if "/color/image_raw" in topic)
    (depth,) = (each for topic, each in messages.items() if "/depth/image_raw" in topic)

    for view, picture, distance in zip(views, color, depth, strict=True):
        rgb = image_to_rgb(picture) if is_raw else compressed_to_rgb(picture)
        depth_m = depth_to_metres(distance) if is_raw else compressed_depth_to_metres(distance)
        assert np.abs(rgb.astype(int) - view.rgb).mean() < (1e-9 if is_raw else 3)
        np.testing.assert_allclose(depth_m, view.depth_m, atol=1e-9 if is_raw else 0.00051)
    labels = [compressed_to_rgb(each)[..., 0] for each in messages["/camera/labels"]]
    assert all(np.array_equal(each, view.labels) for each, view in zip(labels, views, strict=True))


def test_lens_places_objects_and_text_come_back(recording, views) -> None:
    messages = read(recording[0])
    (transform,) = messages["/tf_static"][0].transforms
    found = messages["/camera/objects"][0]
    (seen,) = found.objects
    region = region_of(views[0])

    assert camera_info_to_intrinsics(messages["/camera/color/camera_info"][0]) == views[0].intrinsics
    assert (transform.header.frame_id, transform.child_frame_id) == ("world", "lens")
    moved, turned = transform.transform.translation, transform.transform.rotation
    assert (moved.x, moved.y, moved.z) == PLACE.position_m
    assert (turned.x, turned.y, turned.z, turned.w) == PLACE.orientation_xyzw
    assert (found.camera, found.prompts, found.position_frame, len(found.anchors)) == ("camera", ["red cup"], "lens", 0)
    assert (seen.id, seen.score, seen.area) == (7, 0.75, region.area_px)
    assert (seen.x_min, seen.y_min, seen.x_max, seen.y_max) == region.box_px
    assert (seen.position.x, seen.position.y, seen.position.z) == region.position_m
    assert math.isnan(seen.box_size.x)
    assert [each.data for each in messages["/notes"]] == [f"image {index}" for index in range(len(views))]


def test_a_lens_with_distortion_comes_back(tmp_path) -> None:
    lens = CameraIntrinsics(500.0, 510.0, 319.5, 239.5, 640, 480, (0.1, -0.2, 0.001, 0.002, 0.3, 0.4, 0.5, 0.6))
    with BagWriter(tmp_path / "a.mcap") as bag:
        bag.add("/info", bag.messages.camera_info(Stamped(0, "lens"), lens), 0)

    assert camera_info_to_intrinsics(read(tmp_path / "a.mcap")["/info"][0]) == lens


def test_our_own_sources_read_it(recording, views) -> None:
    frames = open_frames(str(recording[0]))
    first, *_ = read_frames = list(frames)

    assert frames.notes == []
    assert len(read_frames) == len(views)
    assert (first.stamp_ns, first.frame_id, first.intrinsics) == (START_NS, "lens", views[0].intrinsics)
    np.testing.assert_allclose(first.depth_m, views[0].depth_m, atol=0.00051)


def test_the_package_mcap_reads_it(recording, views) -> None:
    reader = pytest.importorskip("mcap.reader")
    with recording[0].open("rb") as stream:
        opened = reader.make_reader(stream)
        assert opened.get_header().profile == "ros2"
        messages = list(opened.iter_messages())

    assert [message.log_time for _, channel, message in messages if channel.topic == "/notes"] == [
        START_NS + STEP_NS * index for index in range(len(views))
    ]
    assert OBJECTS in {schema.name for schema, _, _ in messages}
    assert {(schema.encoding, channel.message_encoding) for schema, channel, _ in messages} == {("ros2msg", "cdr")}


def test_players_keep_static_transforms_for_those_who_come_later(recording) -> None:
    with AnyReader([recording[0]]) as reader:
        (connection,) = (each for each in reader.connections if each.topic == "/tf_static")

    assert connection.ext.offered_qos_profiles[0].durability == QosDurability.TRANSIENT_LOCAL


def test_the_same_messages_give_the_same_bytes_under_any_name(recording, views, tmp_path) -> None:
    path, is_raw = recording

    assert write(tmp_path / "other.mcap", views, is_raw).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "why"),
    [("taken.mcap", "exists already"), ("a.bag", "ends with .mcap"), ("no/a.mcap", "there is no folder")],
)
def test_what_cannot_be_written_is_said(tmp_path, views, name, why) -> None:
    (tmp_path / "taken.mcap").write_bytes(b"mine")

    with pytest.raises(RecordingError, match=why):
        write(tmp_path / name, views)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.mcap"]
    assert (tmp_path / "taken.mcap").read_bytes() == b"mine"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit, ValueError])
def test_nothing_is_left_of_a_failed_attempt(tmp_path, stop) -> None:
    def write_in_vain() -> None:
        with BagWriter(tmp_path / "a.mcap") as bag:
            bag.add("/notes", bag.messages.text("begun"), 0)
            raise stop

    with pytest.raises(stop):
        write_in_vain()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_program_left_is_removed_and_what_another_one_writes_stays(tmp_path) -> None:
    (tmp_path / ".recording_killed").mkdir()
    (tmp_path / ".recording_killed" / "recording.mcap").write_bytes(b"half")
    with BagWriter(tmp_path / "one.mcap") as one:
        with BagWriter(tmp_path / "two.mcap") as two:
            assert not (tmp_path / ".recording_killed").exists()
            two.add("/said", two.messages.text("two"), START_NS)
        one.add("/said", one.messages.text("one"), START_NS)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.mcap", "two.mcap"]


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="stopped"), BagWriter(path, replace=True):
        raise ValueError("stopped")
    assert path.read_bytes() == b"old"
    with BagWriter(path, replace=True) as bag:
        bag.add("/notes", bag.messages.text("new"), 0)
        assert path.read_bytes() == b"old"

    assert read(path)["/notes"][0].data == "new"


def test_pixels_of_another_type_than_the_encoding_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="an image of 32FC1 cannot hold uint8"), BagWriter(tmp_path / "a.mcap") as bag:
        bag.messages.image(Stamped(0, ""), np.zeros((2, 2), np.uint8), "32FC1")
