# SPDX-License-Identifier: Apache-2.0
"""`clip-seg record`: what is in a recording of the simulator is what was rendered, and others read it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources import recorded_table
from clip_seg_ros.sources.frames import open_frames
from clip_seg_ros.sources.messages import compressed_to_rgb
from clip_seg_ros.sources.recorded_table import START_NS, TRUE_LABELS, TRUE_OBJECTS, RecordingPlan, write_recording
from clip_seg_ros.tools.cli import main

MOMENTS, SIZE = 12, "160x120"
OPTIONS = ["--seconds", "1.2", "--size", SIZE]
COLOR = "/camera_{}/color/image_raw/compressed"


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "table.mcap"
    assert main(["record", str(path), *OPTIONS]) == 0
    return path


@pytest.fixture(scope="module")
def messages(recording) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    with AnyReader([recording]) as reader:
        for connection, _, data in reader.messages():
            found.setdefault(connection.topic, []).append(reader.deserialize(data, connection.msgtype))
    return found


def test_each_camera_has_colour_depth_lens_and_truth(messages) -> None:
    of_camera = {
        "color/image_raw/compressed",
        "color/camera_info",
        "depth/image_raw/compressedDepth",
        "depth/camera_info",
        TRUE_LABELS,
        TRUE_OBJECTS,
    }
    expected = {f"/camera_{number}/{topic}" for number in (1, 2) for topic in of_camera}

    assert set(messages) == {"/tf", "/tf_static", *expected}
    assert {len(messages[topic]) for topic in expected} == {MOMENTS}
    assert len(messages["/tf"]) == 2 * MOMENTS
    stamps = [[stamp_of(each) for each in messages[topic]] for topic in expected]
    assert stamps == [[START_NS + 10**8 * moment for moment in range(MOMENTS)]] * len(expected)


def stamp_of(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.mark.parametrize("camera", [1, 2])
def test_our_own_sources_find_depth_and_intrinsics(recording, camera) -> None:
    frames = open_frames(str(recording), COLOR.format(camera))
    read = list(frames)

    assert (len(read), frames.notes, frames.faults) == (MOMENTS, [], [])
    assert all(np.isfinite(frame.depth_m).mean() > 0.5 and frame.intrinsics.width == 160 for frame in read)
    assert {frame.frame_id for frame in read} == {f"camera_{camera}_color_optical_frame"}


def test_with_two_cameras_the_topics_are_named(recording) -> None:
    with pytest.raises(DataError) as caught:
        open_frames(str(recording))

    assert str(caught.value).endswith(f"name one with --topic: {COLOR.format(1)}, {COLOR.format(2)}")


def test_objects_are_where_their_labels_are(messages) -> None:
    for camera in (1, 2):
        for image, truth in zip(
            messages[f"/camera_{camera}/{TRUE_LABELS}"], messages[f"/camera_{camera}/{TRUE_OBJECTS}"], strict=True
        ):
            labels = compressed_to_rgb(image)[..., 0]
            assert {each.id for each in truth.objects} == set(np.unique(labels)) - {0}
            for each in truth.objects:
                rows, columns = np.nonzero(labels == each.id)
                assert (each.x_min, each.y_max, each.area) == (columns.min(), rows.max() + 1, len(rows))


def test_an_object_keeps_its_id_in_all_images_of_all_cameras(messages) -> None:
    names: dict[int, set[str]] = {}
    for camera in (1, 2):
        for truth in messages[f"/camera_{camera}/{TRUE_OBJECTS}"]:
            for each in truth.objects:
                names.setdefault(each.id, set()).add(each.prompt)

    assert len(names) >= 2
    assert all(len(several) == 1 for several in names.values())
    assert {name for several in names.values() for name in several} <= set(RecordingPlan().names)


def test_both_cameras_see_the_same_object_at_the_same_place(messages) -> None:
    """The positions of the surfaces that two cameras see of a thing differ by not more than its size."""
    frames = {each.transforms[0].child_frame_id: each.transforms[0].transform for each in messages["/tf"][-2:]}
    places = []
    for camera in (1, 2):
        pose = frames[f"camera_{camera}_color_optical_frame"]
        q, t = pose.rotation, pose.translation
        rotation = rotation_of(q.x, q.y, q.z, q.w)
        truth = messages[f"/camera_{camera}/{TRUE_OBJECTS}"][-1]
        seen = {each.id: (each.position.x, each.position.y, each.position.z) for each in truth.objects}
        places.append({key: rotation @ np.array(at) + [t.x, t.y, t.z] for key, at in seen.items()})
    shared = places[0].keys() & places[1].keys()

    assert shared
    assert max(np.linalg.norm(places[0][key] - places[1][key]) for key in shared) < 0.15


def rotation_of(x: float, y: float, z: float, w: float) -> np.ndarray:
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_cameras_and_objects_move(tmp_path) -> None:
    ways = [list(recorded_table._way(RecordingPlan(seconds=6), number)) for number in (1, 2)]

    assert len({scene.objects for scene in ways[0]}) > 5
    assert all(len({scene.camera for scene in way}) > 5 for way in ways)


def test_the_same_arguments_give_the_same_bytes(recording, tmp_path) -> None:
    assert main(["record", str(tmp_path / "again.mcap"), *OPTIONS]) == 0

    assert (tmp_path / "again.mcap").read_bytes() == recording.read_bytes()


def test_raw_images_are_written_as_they_are(tmp_path, capsys) -> None:
    path = tmp_path / "raw.mcap"
    assert main(["record", str(path), "--seconds", "0.1", "--cameras", "1", "--size", SIZE, "--raw"]) == 0
    frames = open_frames(str(path))
    (frame,) = frames

    assert frames.notes == []
    assert frame.rgb.shape == (120, 160, 3)
    assert np.isfinite(frame.depth_m).any()
    assert "--topic" not in capsys.readouterr().out


def test_what_to_type_next_is_said(tmp_path, capsys) -> None:
    path = tmp_path / "table.mcap"
    assert main(["record", str(path), "--seconds", "0.1", "--size", SIZE]) == 0
    printed = capsys.readouterr()

    assert f"clip-seg view {path} --topic {COLOR.format(1)}" in printed.out
    assert f'clip-seg annotate {path} --prompts "{RecordingPlan().names[0]}"' in printed.out
    assert f"{path.stat().st_size / 1e6:.1f} MB" in printed.out
    assert "2/2" in printed.err


def test_a_recording_that_was_cut_is_read_up_to_the_cut(tmp_path) -> None:
    path = tmp_path / "table.mcap"
    assert main(["record", str(path), "--seconds", "1", "--cameras", "1", "--size", "320x240", "--raw"]) == 0
    whole = [frame.stamp_ns for frame in open_frames(str(path))]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames = open_frames(str(path))
    read, images = [], iter(frames)
    with contextlib.suppress(DataError):
        while True:
            read.append(next(images))

    assert frames.faults == [f"{path} is cut off: only the part before is there"]
    assert 0 < len(read) < len(whole)
    assert [frame.stamp_ns for frame in read] == whole[: len(read)]
    assert all(np.isfinite(frame.depth_m).any() for frame in read)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--seconds", "0"], "as long as an image"),
        (["--rate", "0"], "a rate of 0 to 1000"),
        (["--cameras", "9"], "1 to 8 cameras, got 9"),
        (["--seed", "1000"], "lies in 0..999, got 1000"),
        (["--size", "8x8"], "16 to 8192 pixels, got 8x8"),
        (["--seconds", "nan"], "as long as an image"),
    ],
)
def test_a_wrong_number_is_said(tmp_path, capsys, options, why) -> None:
    assert main(["record", str(tmp_path / "a.mcap"), *options]) == 2
    assert why in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_kept(tmp_path, capsys) -> None:
    path = tmp_path / "mine.mcap"
    path.write_bytes(b"mine")

    assert main(["record", str(path), *OPTIONS]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"clip-seg record: {path} exists already; choose another name"
    assert path.read_bytes() == b"mine"


def test_nothing_is_left_after_ctrl_c(tmp_path, monkeypatch, capsys) -> None:
    def stopped(*args):
        for done in write_recording(*args):
            yield done
            raise KeyboardInterrupt

    monkeypatch.setattr("clip_seg_ros.tools.record.write_recording", stopped)

    assert main(["record", str(tmp_path / "a.mcap"), *OPTIONS]) == 130
    assert "nothing was written" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
