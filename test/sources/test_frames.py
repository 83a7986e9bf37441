# SPDX-License-Identifier: Apache-2.0
"""Images of files, videos and bags come back as they were written, with what belongs to them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.frames import open_frames
from written_sources import COLOR_TOPIC, FRAME, write_bag, write_pictures, write_video

STORAGES = [StoragePlugin.SQLITE3, StoragePlugin.MCAP]


def write_picture(path, view):
    cv2.imwrite(str(path), view.rgb[..., ::-1])
    return path


def test_a_picture(tmp_path, views):
    frames = open_frames(str(write_picture(tmp_path / "table.png", views[0])))
    (frame,) = frames
    assert (frames.title, frames.kind, len(frames)) == ("table.png", "still", 1)
    assert np.array_equal(frame.rgb, views[0].rgb)
    assert (frame.depth_m, frame.intrinsics) == (None, None)


def test_the_pictures_of_a_folder_and_of_a_pattern_come_by_name_and_a_broken_one_is_noted(tmp_path, views):
    (tmp_path / "more").mkdir()
    for index, name in enumerate(("b.png", "more/c.png", "a.png")):
        write_picture(tmp_path / name, views[index])
    (tmp_path / "aa.png").write_bytes(b"nothing")
    frames = open_frames(str(tmp_path))
    order = [view for frame in frames for view in range(4) if np.array_equal(frame.rgb, views[view].rgb)]
    assert order == [2, 0, 1]
    assert len(frames) == 4
    assert frames.faults == [f"{tmp_path / 'aa.png'} is no picture that can be read"]
    matching = open_frames(str(tmp_path / "[ab].png"))
    assert [frame.name for frame in matching] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_a_picture_with_another_ending_is_recognised(tmp_path, views):
    write_picture(tmp_path / "table.png", views[0]).rename(tmp_path / "table.photo")
    (frame,) = open_frames(str(tmp_path / "table.photo"))
    assert np.array_equal(frame.rgb, views[0].rgb)


@pytest.mark.parametrize(("name", "codec"), [("table.mp4", "mp4v"), ("table.avi", "MJPG")])
def test_the_pictures_of_a_video_with_their_times(tmp_path, views, name, codec):
    frames = open_frames(str(write_video(tmp_path / name, [view.rgb for view in views], 10.0, codec)))
    read = list(frames)
    assert (frames.kind, len(frames), len(read)) == ("recorded", 4, 4)
    steps_ms = np.diff([frame.stamp_ns for frame in read]) / 1e6
    assert steps_ms == pytest.approx([100, 100, 100], abs=2)
    for frame, view in zip(read, views, strict=True):
        # Red and blue in their places: a swap would be off by far more.
        assert np.abs(frame.rgb.astype(int) - view.rgb).mean() < 6


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("depth", ["32FC1", "16UC1"])
def test_the_images_of_a_bag_have_their_depth_and_intrinsics(tmp_path, views, storage, depth):
    frames = open_frames(str(write_bag(tmp_path / "bag", views, storage=storage, depth=depth)))
    read = list(frames)
    assert (frames.title, frames.kind, len(frames)) == (f"bag {COLOR_TOPIC}", "recorded", 4)
    assert frames.notes == []
    assert [frame.stamp_ns for frame in read] == [10**18 + index * 10**8 for index in range(4)]
    for frame, view in zip(read, views, strict=True):
        assert np.array_equal(frame.rgb, view.rgb)
        np.testing.assert_allclose(frame.depth_m, view.depth_m, atol=0.0006)
        assert frame.intrinsics.fx == pytest.approx(view.intrinsics.fx)
        assert frame.frame_id == FRAME


def test_a_bag_of_ros_1(tmp_path, views):
    (frame, *_) = read = list(open_frames(str(write_bag(tmp_path / "table.bag", views, version=1, is_compressed=True))))
    assert len(read) == 4
    assert np.abs(frame.rgb.astype(int) - views[0].rgb).mean() < 4
    np.testing.assert_allclose(frame.depth_m, views[0].depth_m)
    assert frame.intrinsics.cx == pytest.approx(views[0].intrinsics.cx)


def test_depth_of_another_moment_is_not_taken(tmp_path, views):
    frames = open_frames(str(write_bag(tmp_path / "bag", views, depth_late_s=0.05)))
    assert [frame.depth_m for frame in frames] == [None] * 4


def test_a_bag_without_depth_says_what_is_missing(tmp_path, views):
    frames = open_frames(str(write_bag(tmp_path / "bag", views, depth="")))
    assert len(list(frames)) == 4
    assert frames.notes == ["no depth images of the size of the colour images: things have no positions"]


def test_one_of_several_cameras_must_be_named(tmp_path, views):
    pictures = [(name, view.rgb, "rgb8") for name, view in zip(("/left", "/right"), views, strict=False)]
    pictures.append(("/infra", views[2].rgb[..., 0], "mono8"))
    bag = write_pictures(tmp_path / "bag", pictures)
    with pytest.raises(DataError, match=r"name one with --topic: /left, /right$"):
        open_frames(str(bag))
    with pytest.raises(DataError, match="no colour images on /up; it holds /left, /right, /infra"):
        open_frames(str(bag), "/up")
    (frame,) = open_frames(str(bag), "/right")
    assert np.array_equal(frame.rgb, views[1].rgb)
    (frame,) = open_frames(str(write_pictures(tmp_path / "other", pictures[1:])))
    assert np.array_equal(frame.rgb, views[1].rgb), "an infrared camera has no colours"


def read_to_the_end(frames):
    """Returns the images and the error that the source ends with."""
    read = []
    try:
        for frame in frames:
            read.append(frame)
    except DataError as error:
        return read, str(error)
    return read, ""


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("alone", [False, True], ids=["folder", "file"])
def test_a_bag_that_is_cut_is_read_up_to_the_cut(tmp_path, views, storage, alone):
    bag = write_bag(tmp_path / "bag", views * 10, storage=storage)
    (file,) = (path for path in bag.iterdir() if path.suffix != ".yaml")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 6 // 10])
    frames = open_frames(str(file if alone else bag))
    read, error = read_to_the_end(frames)
    assert 10 < len(read) < 30
    for frame, view in zip(read, views * 10, strict=False):
        assert np.array_equal(frame.rgb, view.rgb)
    assert "is cut off" in error
    assert "only the part before is there" in frames.faults[-1]


@pytest.mark.parametrize("name", ["table.bag", "table.bag.active"])
def test_a_bag_of_ros_1_that_is_cut_is_read_up_to_the_cut(tmp_path, views, name):
    file = write_bag(tmp_path / "table.bag", views * 10, version=1).rename(tmp_path / name)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 6 // 10])
    read, error = read_to_the_end(open_frames(str(file)))
    assert 10 < len(read) < 30
    for frame, view in zip(read, views * 10, strict=False):
        assert np.array_equal(frame.rgb, view.rgb)
        np.testing.assert_allclose(frame.depth_m, view.depth_m)
    assert "is cut off" in error


def test_a_recording_that_was_killed_before_its_metadata_were_written_is_read(tmp_path, views):
    bag = write_bag(tmp_path / "bag", views)
    (bag / "metadata.yaml").unlink()
    read, error = read_to_the_end(open_frames(str(bag)))
    assert len(read) == 4
    assert "no metadata" in error


def test_a_video_that_is_cut_is_read_up_to_the_cut(tmp_path, views):
    path = write_video(tmp_path / "table.avi", [view.rgb for view in views * 10], 10.0, "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read, error = read_to_the_end(open_frames(str(path)))
    assert 5 < len(read) < 35
    assert error == "" or "it is cut off or damaged" in error


def test_what_cannot_be_opened_is_said_in_one_line(tmp_path, views):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    (tmp_path / "broken.mcap").write_bytes(b"\x89MCAP0\r\n")
    (tmp_path / "broken.db3").write_bytes(b"nothing")
    write_picture(tmp_path / "table.png", views[0])
    faults = {
        "nowhere": "there is no file or folder .*nowhere: name a picture",
        "empty": "empty holds no pictures: looked in it and below for",
        "notes.txt": "is neither a picture nor a video",
        "broken.jpg": "is no picture that can be read",
        "broken.mp4": "is no video that can be read",
        "broken.mcap": "is no bag that can be read",
        "broken.db3": "is no bag that can be read",
        "*.gif": "the pattern .* matches no file",
        "*.txt": "matches 1 files, and none of them is a picture",
    }
    for name, fault in faults.items():
        with pytest.raises(DataError, match=fault) as error:
            open_frames(str(tmp_path / name))
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="there is no webcam 77 that can be opened; the cameras of this machine: "):
        open_frames("77")
    with pytest.raises(DataError, match="is no bag, so that it has no topic /camera"):
        open_frames(str(tmp_path / "table.png"), "/camera")


def test_a_bag_without_images_says_what_it_holds(tmp_path):
    bag = write_pictures(tmp_path / "bag", [])
    with pytest.raises(DataError, match=r"holds no images .*, but /chatter"):
        open_frames(str(bag))
