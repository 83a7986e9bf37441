# SPDX-License-Identifier: Apache-2.0
"""What was shown is kept within bounds, and other programs read the recording as it was shown."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from clip_seg_ros.resources import message_dir
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sources.bag_messages import OBJECTS, RecordingError, typestore
from clip_seg_ros.viewer.recorder import Recorder, topics_of
from clip_seg_ros.viewer.views import View
from table_view import table_view

START_NS = 1_700_000_000_000_000_007


@pytest.fixture(scope="module")
def view(rendered: RenderedView) -> View:
    return table_view(rendered)


@pytest.fixture(scope="module")
def shown(view: View) -> list[tuple[View, bytes]]:
    """Ten different pictures of two cameras; of one thing neither position nor box is known."""
    found = []
    for index in range(10):
        picture = np.roll(view.rgb, 17 * index, axis=1)
        jpeg = cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()
        things = (replace(view.things[0], position_m=None, box_m=None), *view.things[1 : 2 + index])
        camera = ("left", "right")[index % 2]
        moment = replace(
            view, camera=camera, stamp_ns=START_NS + 33_000_001 * index, arrived_s=index / 30, things=things
        )
        found.append((moment, jpeg))
    return found


@pytest.fixture(scope="module")
def recording(shown: list[tuple[View, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("rosbags")
    recorder = Recorder()
    for view, jpeg in shown:
        recorder.add(view, jpeg)
    path = tmp_path_factory.mktemp("recordings") / "last.mcap"
    assert recorder.write(path) == len(shown)
    return path


def read(path: Path) -> list[tuple[str, int, Any]]:
    """Reads a recording with rosbags, with nothing but what is in the file."""
    from rosbags.highlevel import AnyReader

    with AnyReader([path]) as reader:
        return [
            (connection.topic, stamp_ns, reader.deserialize(data, connection.msgtype))
            for connection, stamp_ns, data in reader.messages()
        ]


def test_rosbags_reads_the_pictures(recording: Path, shown: list[tuple[View, bytes]]) -> None:
    pictures = [(t, ns, bytes(m.data)) for t, ns, m in read(recording) if t.endswith("compressed")]

    assert pictures == [(f"/clip_seg/{view.camera}/overlay/compressed", view.stamp_ns, jpeg) for view, jpeg in shown]


def test_rosbags_reads_the_objects(recording: Path, shown: list[tuple[View, bytes]]) -> None:
    messages = [(t, m) for t, _, m in read(recording) if t.endswith("objects")]

    for (topic, message), (view, _) in zip(messages, shown, strict=True):
        assert topic == f"/clip_seg/{view.camera}/objects"
        assert message.camera == view.camera
        assert tuple(message.prompts) == view.prompts
        assert message.position_frame == view.frame
        assert [o.prompt for o in message.objects] == [thing.prompt for thing in view.things if thing.id]
        assert [o.prompt for o in message.anchors] == [thing.prompt for thing in view.things if not thing.id]


def test_objects_hold_what_the_things_are(recording: Path, shown: list[tuple[View, bytes]]) -> None:
    things = [thing for thing in shown[-1][0].things if thing.id]
    (message,) = [m for t, ns, m in read(recording) if t.endswith("objects") and ns == shown[-1][0].stamp_ns]

    for found, thing in zip(message.objects, things, strict=True):
        assert found.id == thing.id
        assert found.score == pytest.approx(thing.score, abs=1e-6)
        assert (found.x_min, found.y_min, found.x_max, found.y_max) == thing.box_px
        assert (found.centroid_x, found.centroid_y, found.area) == (*thing.centroid_px, thing.area_px)
        assert found.has_position == (thing.position_m is not None)
        assert found.has_box == (thing.box_m is not None)
    last, thing = message.objects[-1], things[-1]
    assert (last.position.x, last.position.y, last.position.z) == thing.position_m
    assert (last.box_size.x, last.box_size.y, last.box_size.z) == thing.box_m.size_m
    turn = last.box_pose.orientation
    assert (turn.x, turn.y, turn.z, turn.w) == thing.box_m.orientation_xyzw


def test_what_is_unknown_is_nan(recording: Path) -> None:
    first = next(message for topic, _, message in read(recording) if topic.endswith("objects")).objects[0]

    assert not first.has_position
    assert math.isnan(first.position.z)
    assert math.isnan(first.box_size.x)


def test_stamps_are_those_of_the_images(recording: Path, shown: list[tuple[View, bytes]]) -> None:
    stamps = {m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, _, m in read(recording)}

    assert stamps == {view.stamp_ns for view, _ in shown}


def test_the_package_mcap_reads_it(recording: Path, shown: list[tuple[View, bytes]]) -> None:
    reader = pytest.importorskip("mcap.reader")
    with recording.open("rb") as stream:
        opened = reader.make_reader(stream)
        profile = opened.get_header().profile
        messages = list(opened.iter_messages())
        kinds = {schema.name for schema, _, _ in messages}
        encodings = {(schema.encoding, channel.message_encoding) for schema, channel, _ in messages}

    assert profile == "ros2"
    assert kinds == {"sensor_msgs/msg/CompressedImage", OBJECTS}
    assert encodings == {("ros2msg", "cdr")}
    assert [message.log_time for _, channel, message in messages if channel.topic.endswith("objects")] == [
        view.stamp_ns for view, _ in shown
    ]
    pictures = [message.data for _, channel, message in messages if channel.topic.endswith("compressed")]
    assert [jpeg in data for data, (_, jpeg) in zip(pictures, shown, strict=True)] == [True] * len(shown)


def test_types_are_those_that_ros_builds() -> None:
    pytest.importorskip("rosbags")
    built = message_dir() / "SegmentedObjectArray.json"
    if not built.is_file():
        pytest.skip("the type's hash is known only where the package was built by colcon")
    hashes = {entry["type_name"]: entry["hash_string"] for entry in json.loads(built.read_text())["type_hashes"]}

    assert typestore().hash_rihs01(OBJECTS) == hashes[OBJECTS]


def test_only_the_last_seconds_are_kept(view: View, tmp_path: Path) -> None:
    pytest.importorskip("rosbags")
    recorder = Recorder(seconds=2.0)
    for index in range(100):
        recorder.add(replace(view, stamp_ns=START_NS + index, arrived_s=index / 10), b"jpeg")

    assert recorder.write(tmp_path / "a.mcap") == 21


def test_memory_is_bounded(view: View, tmp_path: Path) -> None:
    pytest.importorskip("rosbags")
    recorder = Recorder(seconds=1e6, most_mb=1.0)
    for index in range(100):
        recorder.add(replace(view, arrived_s=float(index)), bytes(100_000))

    assert recorder.write(tmp_path / "a.mcap") == 9


def test_arrays_are_not_kept(view: View) -> None:
    recorder = Recorder()
    recorder.add(view, b"jpeg")

    assert not any(isinstance(value, np.ndarray) for kept in recorder._kept for value in vars(kept).values())


def test_there_is_no_recording_of_nothing(tmp_path: Path) -> None:
    recorder = Recorder()

    with pytest.raises(RecordingError, match="no pictures"):
        recorder.write(tmp_path / "a.mcap")


@pytest.mark.parametrize(
    ("name", "why"),
    [("taken.mcap", "exists already"), ("a.bag", "ends with .mcap"), ("no/a.mcap", "cannot be written")],
)
def test_a_file_that_cannot_be_written_leaves_nothing(view: View, tmp_path: Path, name: str, why: str) -> None:
    pytest.importorskip("rosbags")
    (tmp_path / "taken.mcap").write_bytes(b"mine")
    recorder = Recorder()
    recorder.add(view, b"jpeg")

    with pytest.raises(RecordingError, match=why):
        recorder.write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.mcap"]
    assert (tmp_path / "taken.mcap").read_bytes() == b"mine"


def test_writing_goes_on_while_pictures_come(view: View, tmp_path: Path) -> None:
    pytest.importorskip("rosbags")
    recorder, many, stop = Recorder(), threading.Event(), threading.Event()

    def come() -> None:
        index = 0
        while not stop.is_set():
            recorder.add(replace(view, stamp_ns=START_NS + index, arrived_s=index / 1000), bytes(1000))
            index += 1
            if index == 100:
                many.set()

    thread = threading.Thread(target=come)
    thread.start()
    try:
        many.wait()
        written = [recorder.write(tmp_path / f"{index}.mcap") for index in range(3)]
    finally:
        stop.set()
        thread.join()

    assert [len(read(tmp_path / f"{index}.mcap")) for index in range(3)] == [2 * count for count in written]


def test_a_failed_attempt_leaves_no_file(view: View, tmp_path: Path) -> None:
    pytest.importorskip("rosbags")
    recorder = Recorder()
    recorder.add(replace(view, stamp_ns=2**70), b"jpeg")

    with pytest.raises(Exception, match=r".+"):
        recorder.write(tmp_path / "a.mcap")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("camera", "topic"),
    [
        ("", "/clip_seg/objects"),
        ("left", "/clip_seg/left/objects"),
        ("holiday.mp4", "/clip_seg/holiday_mp4/objects"),
        ("2nd cámara", "/clip_seg/camera_2nd_c_mara/objects"),
    ],
)
def test_topics_have_names_that_ros_allows(camera: str, topic: str) -> None:
    assert topics_of(camera, "/clip_seg")[1] == topic
