# SPDX-License-Identifier: Apache-2.0
"""Any stretch of a source is what reading all of it gives, from wherever reading begins."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from clip_seg_ros.sim.sequences import sequence
from clip_seg_ros.sources.frame import Stretch
from clip_seg_ros.sources.frames import open_frames
from written_sources import write_bag, write_video

COUNT = 24


@pytest.fixture(scope="module")
def moving():
    return [each.view for each in sequence(3, COUNT, (96, 72))]


def written(kind, folder, moving):
    """Writes the images as a source of a kind; returns its path."""
    if kind == "pictures":
        for index, view in enumerate(moving):
            cv2.imwrite(str(folder / f"{index:03d}.png"), view.rgb[..., ::-1])
        return folder
    if kind in ("mp4", "avi"):
        codec = "mp4v" if kind == "mp4" else "MJPG"
        return write_video(folder / f"table.{kind}", [view.rgb for view in moving], 10.0, codec)
    if kind == "ros1":
        return write_bag(folder / "table.bag", moving, version=1)
    storage = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
    return write_bag(folder / "bag", moving, storage=storage, depth="16UC1", is_compressed=True)


@pytest.mark.parametrize("kind", ["pictures", "mp4", "avi", "ros1", "mcap", "sqlite3"])
def test_a_stretch_has_the_images_and_the_depth_that_reading_everything_gives(tmp_path, moving, kind):
    frames = open_frames(str(written(kind, tmp_path, moving)))
    whole, places = list(frames), frames.places()
    assert len(whole) == len(places) == COUNT
    for begin, end, first in ((0, 5, 0), (7, 12, 7), (7, 12, 3), (20, 99, 18), (23, 24, 23)):
        place = int(places[first]) if first and kind != "pictures" else None
        found = dict(frames.between(Stretch(begin, end, first if place is not None else 0, place)))
        assert list(found) == list(range(begin, min(end, COUNT)))
        for number, frame in found.items():
            assert frame.stamp_ns == whole[number].stamp_ns
            assert np.array_equal(frame.rgb, whole[number].rgb)
            if first <= begin - 1 or not first:  # what belongs to the first image may lie a little before it
                assert (frame.depth_m is None) == (whole[number].depth_m is None)
                if frame.depth_m is not None:
                    assert np.array_equal(frame.depth_m, whole[number].depth_m, equal_nan=True)


@pytest.mark.parametrize("kind", ["mp4", "mcap"])
def test_every_third_image_of_a_stretch(tmp_path, moving, kind):
    frames = open_frames(str(written(kind, tmp_path, moving)))
    assert [number for number, _ in frames.between(Stretch(4, 16, every=3))] == [6, 9, 12, 15]


def test_a_place_that_is_not_that_of_the_image_does_not_lead_astray(tmp_path, moving):
    frames = open_frames(str(written("mp4", tmp_path, moving)))
    whole = list(frames)
    ((number, frame),) = frames.between(Stretch(9, 10, 8, 12_345))
    assert number == 9
    assert np.array_equal(frame.rgb, whole[9].rgb)


def test_an_image_that_cannot_be_decoded_counts_and_is_noted(tmp_path, moving):
    folder = written("pictures", tmp_path, moving)
    (folder / "003.png").write_bytes(b"nothing")
    frames = open_frames(str(folder))
    assert len(frames.places()) == COUNT
    assert [number for number, _ in frames.between(Stretch(2, 6))] == [2, 4, 5]
    assert frames.faults == [f"{folder / '003.png'} is no picture that can be read"]


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_cut_bag_is_counted_up_to_the_cut(tmp_path, moving, storage):
    bag = write_bag(tmp_path / "bag", moving * 5, storage=storage)
    (file,) = (path for path in bag.iterdir() if path.suffix != ".yaml")
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    frames = open_frames(str(bag))
    places = frames.places()
    count = len(places)
    assert 30 < count < 5 * COUNT
    stretch = Stretch(20, 999, 10, int(places[10]))
    assert [number for number, _ in frames.between(stretch)] == list(range(20, count))
    assert any("only the part before is there" in fault for fault in frames.faults)
