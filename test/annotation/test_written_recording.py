# SPDX-License-Identifier: Apache-2.0
"""What was found in a bag is written as a recording that other programs read, with the stamps of the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from clip_seg_ros.annotation.job import Job, Phrase, Source
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject
from clip_seg_ros.annotation.written_recording import camera_of, write_recordings
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.sources.messages import compressed_to_rgb
from clip_seg_ros.sources.recorded_table import true_regions

START_NS = 1_700_000_000_000_000_007
STEP_NS = 33_333_333
TOPIC = "/left/color/image_raw/compressed"
SOURCES = ("kitchen", "hall")


@pytest.fixture(scope="module")
def views() -> list[RenderedView]:
    with SceneRenderer(160, 120) as renderer:
        return [renderer.render(sample_scene(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def found(views) -> list[AnnotatedFrame]:
    """The true objects of three images in each of two bags, as if they had been found."""
    return [
        AnnotatedFrame(
            source=source,
            topic=TOPIC,
            index=index,
            stamp_ns=START_NS + STEP_NS * index,
            name="",
            picture=f"images/{source}/{index:06}.png",
            size=view.labels.shape,
            objects=tuple(AnnotatedObject.of(each, each.id + 254, 0.5, 0.75) for each in true_regions(view)),
            frame_id="left_optical",
        )
        for source in SOURCES
        for index, view in enumerate(views)
    ]


@pytest.fixture(scope="module")
def job(found) -> Job:
    prompts = dict.fromkeys(each.prompt for frame in found for each in frame.objects)
    return Job("", tuple(Source(name, name) for name in SOURCES), tuple(Phrase(text) for text in prompts))


@pytest.fixture(scope="module")
def out(tmp_path_factory, found, views, job) -> Path:
    folder = tmp_path_factory.mktemp("run")
    keep_pictures(folder, found, views)
    write_recordings(folder, lambda: iter(found), job)
    return folder


def keep_pictures(folder: Path, found: list[AnnotatedFrame], views: list[RenderedView]) -> None:
    for frame in found:
        (folder / frame.picture).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / frame.picture), views[frame.index].rgb[..., ::-1])


def read(path: Path) -> dict[str, list[tuple[int, Any]]]:
    messages: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([path]) as reader:
        for connection, stamp_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            messages.setdefault(connection.topic, []).append((stamp_ns, message))
    return messages


def test_each_bag_has_a_recording_with_the_topics_of_the_nodes(out) -> None:
    assert sorted(path.name for path in (out / "recordings").iterdir()) == ["hall.mcap", "kitchen.mcap"]
    for source in SOURCES:
        assert set(read(out / "recordings" / f"{source}.mcap")) == {
            "/clip_seg/left/objects",
            "/clip_seg/left/mask/compressed",
            "/clip_seg/left/labels/compressed",
            "/clip_seg/left/overlay/compressed",
        }


def test_stamps_and_frames_are_those_of_the_images(out) -> None:
    for messages in read(out / "recordings" / "kitchen.mcap").values():
        assert [logged_ns for logged_ns, _ in messages] == [START_NS + STEP_NS * index for index in range(3)]
        for logged_ns, message in messages:
            assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == logged_ns
            assert message.header.frame_id == "left_optical"


def test_objects_masks_and_labels_are_what_was_found(out, found, views, job) -> None:
    messages = read(out / "recordings" / "kitchen.mcap")
    for index, view in enumerate(views):
        (_, objects), (_, mask), (_, labels) = (
            messages[f"/clip_seg/left/{name}"][index] for name in ("objects", "mask/compressed", "labels/compressed")
        )
        drawn = compressed_to_rgb(labels)[..., 0]
        assert objects.camera == "left"
        assert objects.prompts == [phrase.text for phrase in job.phrases]
        assert np.array_equal(compressed_to_rgb(mask)[..., 0] == 255, view.labels > 0)
        for each, thing in zip(objects.objects, found[index].objects, strict=True):
            # The first of the tracks, 255, fits the image of ids; those above begin anew.
            assert each.id == (thing.track - 1) % 255 + 1
            assert np.array_equal(drawn == each.id, view.labels == thing.track - 254)
            assert (each.prompt, each.area) == (thing.prompt, thing.area_px)
            assert (each.position.x, each.position.y, each.position.z) == thing.position_m


def test_the_picture_shows_what_was_found(out, views) -> None:
    for index, (_, picture) in enumerate(
        read(out / "recordings" / "kitchen.mcap")["/clip_seg/left/overlay/compressed"]
    ):
        change = np.abs(compressed_to_rgb(picture).astype(int) - views[index].rgb).mean(axis=-1)
        assert change[views[index].labels > 0].mean() > 5


def test_the_package_mcap_reads_it(out) -> None:
    reader = pytest.importorskip("mcap.reader")
    with (out / "recordings" / "hall.mcap").open("rb") as stream:
        opened = reader.make_reader(stream)
        assert opened.get_header().profile == "ros2"
        assert opened.get_summary().statistics.message_count == 12
        assert len(list(opened.iter_messages())) == 12


def test_the_same_results_give_the_same_bytes_and_replace_the_old_ones(out, found, job) -> None:
    before = {path.name: path.read_bytes() for path in (out / "recordings").iterdir()}
    (out / "recordings" / "hall.mcap").write_bytes(b"old")
    (out / "recordings" / ".recording_killed").mkdir()
    write_recordings(out, lambda: iter(found), job)

    assert {path.name: path.read_bytes() for path in (out / "recordings").iterdir()} == before


def test_images_are_read_one_by_one(out, found, job, monkeypatch) -> None:
    """None is asked for before the one before it is written."""
    written: list[int] = []
    from clip_seg_ros.sources.bag_writing import BagWriter

    add = BagWriter.add
    monkeypatch.setattr(BagWriter, "add", lambda self, *args: (written.append(1), add(self, *args))[1])

    def slowly() -> Iterator[AnnotatedFrame]:
        for count, frame in enumerate(found):
            assert len(written) >= 4 * (count - 1)
            yield frame

    write_recordings(out, slowly, job)

    assert len(written) == 4 * len(found)


def test_what_is_no_bag_gets_no_recording(tmp_path, found, job) -> None:
    write_recordings(tmp_path, lambda: iter([replace(found[0], topic="")]), job)

    assert list(tmp_path.iterdir()) == []


def test_a_missing_picture_is_said_and_leaves_nothing(tmp_path, found, job) -> None:
    with pytest.raises(DataError, match=r"000000\.png"):
        write_recordings(tmp_path, lambda: iter(found), job)

    assert list((tmp_path / "recordings").iterdir()) == []


def test_two_objects_never_share_an_id(tmp_path, found, views, job) -> None:
    first, second, *_ = found[0].objects
    several = (replace(first, track=0), replace(second, track=1), replace(first, track=256), replace(first, track=0))
    frame = found[0].with_objects(several)
    keep_pictures(tmp_path, [frame], views)
    write_recordings(tmp_path, lambda: iter([frame]), job)
    ((_, message),) = read(tmp_path / "recordings" / "kitchen.mcap")["/clip_seg/left/objects"]

    assert [each.id for each in message.objects] == [1, 2, 3, 4]
    assert message.objects[0].prompt == second.prompt, "a track that fits keeps its number"


@pytest.mark.parametrize(
    ("topic", "camera"),
    [
        (TOPIC, "left"),
        ("/camera/camera/color/image_rect_color", "camera_camera"),
        ("/image", ""),
        ("/robot/front/rgb/image_raw", "robot_front"),
        ("/usb_cam", "usb_cam"),
    ],
)
def test_the_camera_of_a_topic(topic, camera) -> None:
    assert camera_of(topic) == camera
