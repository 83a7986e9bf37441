# SPDX-License-Identifier: Apache-2.0
"""The service ``segment_at`` of the ``referring`` node: things at a point or in a box of a picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.pipeline.segment_anything import SegmentAnything
from clip_seg_ros.srv import ListPrompts, RemovePrompt, Segment, SegmentAt
from clip_seg_ros.types import ObjectRegion
from ros_harness import Camera, NodeProcess, Talker, Watcher, pixels_of, running_referring, wait_until
from small_sam import write_small_sam

HEADER = Header(frame_id="somewhere")
BOX = RegionOfInterest(x_offset=5, y_offset=5, width=9, height=9)


def image_of(view) -> Image:
    return fill_image(Image(header=HEADER), view.rgb, "rgb8")


@pytest.fixture(scope="module")
def cup(view) -> np.ndarray:
    return view.mask_of("red", "cup")


@pytest.fixture(scope="module")
def click(cup) -> dict[str, float]:
    """The pixel of the cup that is nearest to its middle."""
    rows, columns = np.nonzero(cup)
    middle = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
    return {"x": float(columns[middle]), "y": float(rows[middle])}


@pytest.fixture(scope="module")
def box(cup) -> RegionOfInterest:
    """A box around the cup, a little too large."""
    left, top, right, bottom = ObjectRegion.of_mask("cup", 1, 1.0, cup).box_px
    return RegionOfInterest(x_offset=left - 3, y_offset=top - 2, width=right - left + 6, height=bottom - top + 4)


@pytest.fixture
def taught(referring: NodeProcess, watcher: Watcher) -> Iterator[NodeProcess]:
    """The shared node, which forgets at the end what it is taught."""
    yield referring
    for name in watcher.call(ListPrompts, "list_prompts", ListPrompts.Request()).names:
        assert watcher.call(RemovePrompt, "remove_prompt", RemovePrompt.Request(name=name)).success


def ask(watcher: Watcher, **fields) -> SegmentAt.Response:
    return watcher.call(SegmentAt, "segment_at", SegmentAt.Request(**fields))


def test_a_click_in_an_image_gives_the_mask_of_the_thing(referring, watcher, view, cup, click):
    answer = ask(watcher, image=image_of(view), **click)
    assert answer.success, answer.message
    mask = pixels_of(answer.mask)
    assert mask_iou(mask > 0, cup) > 0.7
    assert set(np.unique(mask)) == {0, 255}
    assert (answer.mask.header, answer.mask.encoding) == (HEADER, "mono8")
    assert answer.object.area == np.count_nonzero(mask)
    assert not answer.object.has_position, "an image of one's own has no depth"
    assert [str(item) for item in answer.objects] == [str(answer.object)]  # NaN equals nothing
    assert f"{answer.object.area} pixels at" in answer.message


def test_a_box_counts_instead_of_the_point(referring, watcher, view, cup, box):
    answer = ask(watcher, image=image_of(view), x=5.0, y=5.0, box=box)
    assert answer.success, answer.message
    assert mask_iou(pixels_of(answer.mask) > 0, cup) > 0.7


def test_a_click_into_the_cameras_picture_gives_the_position(referring, watcher, view, cup, click):
    sent = []

    def answer_to_another_image() -> SegmentAt.Response | None:
        # Depth that comes late, or never, must not decide: the next image brings its own.
        sent.append(camera.send_view(view))
        seen = ask(watcher, **click)
        return seen if seen.success and seen.object.has_position else None

    with Talker.camera() as camera:
        answer = wait_until(answer_to_another_image, "an answer")
    assert mask_iou(pixels_of(answer.mask) > 0, cup) > 0.7
    assert answer.mask.header.stamp.sec * 10**9 + answer.mask.header.stamp.nanosec in sent
    assert answer.position_frame == answer.mask.header.frame_id == "camera_color_optical_frame"
    found = answer.object.position
    rows, columns = np.nonzero(cup)
    depth_m = np.median(view.depth_m[rows, columns])
    lens = view.intrinsics
    assert found.z == pytest.approx(depth_m, abs=0.03)
    assert found.x == pytest.approx((columns.mean() - lens.cx) / lens.fx * depth_m, abs=0.03)
    assert found.y == pytest.approx((rows.mean() - lens.cy) / lens.fy * depth_m, abs=0.03)


def test_what_was_clicked_at_is_found_again_by_its_name(taught, watcher, example, view, cup):
    there = example.mask_of("red", "cup")
    rows, columns = np.nonzero(there)
    middle = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
    point = {"x": float(columns[middle]), "y": float(rows[middle])}
    answer = ask(watcher, image=image_of(example), teach_as="My old mug", **point)
    assert answer.success, answer.message
    assert '"old mug" now means it' in answer.message
    assert answer.object.prompt == "old mug"
    assert list(watcher.call(ListPrompts, "list_prompts", ListPrompts.Request()).names) == ["old mug"]
    accepted = watcher.say("segment my old mug")
    with Camera(depth=False) as camera:
        stamp = camera.send(image_of(view))
        assert mask_iou(pixels_of(watcher.of_stamp("mask", stamp)) > 0, cup) > 0.4
    assert watcher.outcome(accepted.command_id).state == CommandStatus.FOUND


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": 640.0}, "the point (640, 5) is outside of the picture of 640x480"),
        ({"x": float("nan")}, "is outside of the picture"),
        ({"box": RegionOfInterest(x_offset=5, y_offset=5, height=9)}, "the box is empty: 0x9"),
        ({"box": RegionOfInterest(width=641, height=9)}, "the box (0, 0, 641, 9) reaches out of the picture"),
        ({"box": RegionOfInterest(x_offset=2**32 - 1, width=2**32 - 1, height=9)}, "reaches out of the picture"),
        ({"image": Image(encoding="32FC3", height=1, width=1)}, "unknown encoding '32FC3'"),
        ({"alike": True}, "alike needs a box around one of the things"),
        ({"alike": True, "box": BOX}, "clipseg-pocket takes no boxes as examples: to find things that are alike, use"),
        ({"alike": True, "box": BOX, "teach_as": "mug"}, "alike finds things in this picture alone"),
        ({"alike": True, "box": BOX, "unlike": [BOX] * 65}, "give at most 64 boxes of what is not meant, got 65"),
        ({"box": BOX, "unlike": [BOX]}, "boxes of what is not meant count only with alike"),
        ({"teach_as": "cup and bowl"}, 'a command would not take "cup and bowl" for one phrase'),
        ({"image": Image(), "camera": "left"}, 'there is no camera "left": the only camera has no name'),
    ],
)
def test_what_cannot_be_answered_says_what_to_do(taught, watcher, view, changes, words):
    answer = ask(watcher, **{"image": image_of(view), "x": 5.0, "y": 5.0, **changes})
    assert not answer.success
    assert words in answer.message
    assert not answer.mask.data
    assert not watcher.call(ListPrompts, "list_prompts", ListPrompts.Request()).names
    cup = Segment.Request(image=image_of(view), prompts=["red cup"])
    assert watcher.call(Segment, "segment", cup).objects, "the node lives on"


def test_without_an_image_yet_and_with_several_cameras_it_says_so(ros, log, view, cup, click):
    topics = "image_topics:=[/left/image_raw, /right/image_raw]"
    with running_referring(log, "pointed", [topics, "model:=maskclip-pocket"], ("left", "right")) as (_, watcher):
        assert ask(watcher, **click).message == "say which camera: left, right"
        nothing = ask(watcher, camera="left", **click)
        assert not nothing.success
        assert "no image has come yet on /left/image_raw" in nothing.message
        with Camera(depth=False, topic="/left/image_raw") as camera:
            camera.send(image_of(view))
            answer = wait_until(lambda: (seen := ask(watcher, camera="left", **click)).success and seen, "an answer")
        assert mask_iou(pixels_of(answer.mask) > 0, cup) > 0.5
        refused = ask(watcher, image=image_of(view), teach_as="old mug", **click)
        assert not refused.success
        assert "maskclip-pocket understands phrases alone" in refused.message


def test_sam_2_can_be_asked_instead(ros, log, tmp_path, view, click, box):
    folder = str(write_small_sam(tmp_path / "sam"))
    with running_referring(log, "sam", [f"segment_at_model:={folder}"]) as (node, watcher):
        for fields in (click, {"box": box}):
            answer = ask(watcher, image=image_of(view), **fields)
            assert answer.success, answer.message
            model = SegmentAnything(folder, "cpu")
            edges = box.x_offset, box.y_offset, box.x_offset + box.width, box.y_offset + box.height
            wanted = (
                model.thing_in(view.rgb, edges)
                if "box" in fields
                else model.thing_at(view.rgb, (click["x"], click["y"]))
            )
            assert mask_iou(pixels_of(answer.mask) > 0, wanted.mask) > 0.99
        assert f"segment_at asks {folder}" in node.said()
        alike = ask(watcher, image=image_of(view), box=box, alike=True)
        assert not alike.success
        assert 'finds no things that are alike: set segment_at_model to "own"' in alike.message


def test_weights_that_are_not_there_say_what_to_type(ros, log, view, click):
    with running_referring(log, "nosam", ["segment_at_model:=/nowhere/sam2"]) as (_, watcher):
        answer = ask(watcher, image=image_of(view), **click)
        assert not answer.success
        assert "type `hf download /nowhere/sam2` where there is a network" in answer.message
        cup = Segment.Request(image=image_of(view), prompts=["red cup"])
        assert watcher.call(Segment, "segment", cup).objects, "the node lives on"
